"""What was put into a frame comes out of it, and nothing else is taken for a frame."""

import json

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgechoir.errors import TrainingError
from edgechoir.training.frames import (
    MAX_BODY,
    MAX_HEADER,
    PREFIX,
    Frame,
    Json,
    decode,
    encode,
    lengths,
)

ARRAYS = hnp.arrays(
    st.sampled_from([np.float32, np.int64]), hnp.array_shapes(max_dims=3, min_side=0)
)
FIELDS: st.SearchStrategy[dict[str, Json]] = st.dictionaries(
    st.text(max_size=5).filter(lambda key: key != "arrays"),
    st.integers() | st.text(max_size=5) | st.booleans() | st.none(),
    max_size=4,
)


def split(head: bytes, parts: list[bytes | memoryview]) -> tuple[bytes, bytes]:
    """Header and body, as a reader finds them."""
    header, body = lengths(head[: PREFIX.size])
    data = b"".join(parts)
    assert (len(head), len(data)) == (PREFIX.size + header, body)
    return head[PREFIX.size :], data


@given(fields=FIELDS, arrays=st.dictionaries(st.text(max_size=5), ARRAYS, max_size=3))
def test_a_frame_survives_writing_and_reading(
    fields: dict[str, Json], arrays: dict[str, npt.NDArray[np.float32]]
) -> None:
    frame = decode(*split(*encode(Frame(fields, arrays))))
    assert frame.fields == fields
    assert frame.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert frame.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(frame.arrays[name], array)


def test_an_array_need_not_be_contiguous() -> None:
    array = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    frame = decode(*split(*encode(Frame({}, {"a": array}))))
    np.testing.assert_array_equal(frame.arrays["a"], array)


def test_other_types_are_refused() -> None:
    objects = np.array([None, 1], dtype=object)
    with pytest.raises(TrainingError, match="is object"):
        encode(Frame({}, {"a": objects}))


def test_lengths_are_checked_before_memory_is_taken() -> None:
    assert lengths(PREFIX.pack(MAX_HEADER, MAX_BODY)) == (MAX_HEADER, MAX_BODY)
    for header, body in ((MAX_HEADER + 1, 0), (0, MAX_BODY + 1), (2**32 - 1, 2**64 - 1)):
        with pytest.raises(TrainingError, match="at most"):
            lengths(PREFIX.pack(header, body))


@pytest.mark.parametrize(
    "table",
    [
        [["a", "float32", [3]]],
        [["a", "float32", [1]]],
        [["a", "float32", [-2]]],
        [["a", "float32", [2.0]]],
        [["a", "object", [2]]],
        [["a", "float32", [2**40, 2**40]]],
        [["a", "float32"]],
        [[1, 2, 3]],
        7,
    ],
)
def test_a_table_that_does_not_fit_its_bytes_is_refused(table: object) -> None:
    with pytest.raises(TrainingError, match="malformed"):
        decode(json.dumps({"arrays": table}).encode(), b"8 bytes.")


@given(header=st.binary(max_size=60), body=st.binary(max_size=20))
def test_any_bytes_are_refused_cleanly(header: bytes, body: bytes) -> None:
    with pytest.raises(TrainingError):
        decode(header, body)
