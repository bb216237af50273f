"""The hash of the global state tells apart what differs anywhere."""

import hashlib

import numpy as np

from edgechoir.learning.state import State, digest, digest_of, to_bytes

WEIGHTS = np.arange(6, dtype=np.float32)


def test_without_further_vectors_it_is_the_hash_of_the_parameters() -> None:
    assert digest_of(State(WEIGHTS)) == hashlib.sha256(to_bytes(WEIGHTS)).digest()


def test_each_name_and_each_vector_changes_it_and_their_order_does_not() -> None:
    params, one, two = to_bytes(WEIGHTS), b"1" * 8, b"2" * 8
    hashes = {
        digest(params, {}),
        digest(params, {"mean": b""}),
        digest(params, {"mean": one}),
        digest(params, {"mean": two}),
        digest(params, {"mea": one}),
        digest(params, {"mean": one, "std": two}),
        digest(params, {"mean": two, "std": one}),
        digest(params + one, {}),
    }
    assert len(hashes) == 8
    backwards = digest(params, {"std": two, "mean": one})
    assert backwards == digest(params, {"mean": one, "std": two})
