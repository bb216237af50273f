import hashlib
import struct
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import LocalError, Malformed
from edgechoir.transport.blobs import LIMIT, MIN_BODY, OPEN_PER_KEY, OVERHEAD, Assembler, split

SMALL = 4096
blobs = st.integers(0, 20_000).flatmap(
    lambda n: st.integers(0, 255).map(lambda seed: bytes((seed + i * 7) % 256 for i in range(n)))
)


def chunk(
    digest: bytes,
    index: int,
    count: int,
    total: int,
    body: bytes,
    *,
    magic: bytes = b"EB",
    version: int = 1,
    flags: int = 0,
) -> bytes:
    return struct.pack(">2sBB32sIIQ", magic, version, flags, digest, index, count, total) + body


@given(blobs, st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_chunks_in_any_order_and_more_than_once_give_the_blob_once(
    data: bytes, rng: Random
) -> None:
    chunks = list(split(data, SMALL)) * 2
    rng.shuffle(chunks)
    assembler = Assembler(20_000)
    out = [blob for c in chunks if (blob := assembler.feed("k", c, 0.0)) is not None]
    assert out == [data]
    assert assembler.duplicates == len(chunks) // 2
    assert assembler.held_bytes == 0
    assert assembler.open_blobs == 0


@given(st.lists(blobs, min_size=1, max_size=4, unique=True), st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_blobs_of_several_senders_may_be_mixed(data: list[bytes], rng: Random) -> None:
    jobs = [(f"k{i % 2}", c) for i, blob in enumerate(data) for c in split(blob, SMALL)]
    rng.shuffle(jobs)
    assembler = Assembler(20_000)
    out = [blob for key, c in jobs if (blob := assembler.feed(key, c, 0.0)) is not None]
    assert sorted(out) == sorted(data)


@given(blobs)
@settings(max_examples=30)
def test_every_chunk_leaves_room_for_topic_and_header(data: bytes) -> None:
    for c in split(data, SMALL):
        assert len(c) + OVERHEAD <= SMALL


def test_the_default_limit_is_that_of_the_strictest_broker() -> None:
    chunks = list(split(bytes(1_000_000)))
    assert max(map(len, chunks)) <= LIMIT - OVERHEAD
    assert len(chunks) == 8


@given(st.binary(max_size=200))
def test_hostile_bytes_are_malformed_and_hold_nothing(payload: bytes) -> None:
    assembler = Assembler(1000)
    if not payload:
        assert assembler.feed("k", payload, 0.0) is None
        return
    with pytest.raises(Malformed):
        assembler.feed("k", payload, 0.0)
    assert assembler.held_bytes == 0


D = hashlib.sha256(bytes(2 * MIN_BODY)).digest()


@pytest.mark.parametrize(
    "payload",
    [
        chunk(D, 0, 1, 4, b"abcd", magic=b"XB"),
        chunk(D, 0, 1, 4, b"abcd", version=2),
        chunk(D, 0, 1, 4, b"abcd", flags=1),
        chunk(D, 1, 1, 4, b"abcd"),
        chunk(D, 0, 0, 4, b"abcd"),
        chunk(D, 0, 1, 4, b"abc"),
        chunk(D, 0, 1, 4, b"abcde"),
        chunk(D, 0, 4, 4, b"a"),
        chunk(D, 0, 1, 2**63, b"a"),
        chunk(D, 2**32 - 2, 2**32 - 1, 2**44, b"a" * 4096),
        chunk(D, 0, 1, 10**6, bytes(10**6)),
    ],
)
def test_a_header_that_does_not_fit_is_refused(payload: bytes) -> None:
    with pytest.raises(Malformed):
        Assembler(100_000).feed("k", payload, 0.0)


def test_chunks_that_disagree_about_their_blob_are_refused_and_the_blob_goes_on() -> None:
    data = bytes(2 * MIN_BODY)
    half = data[:MIN_BODY]
    assembler = Assembler(10_000)
    assembler.feed("k", chunk(D, 0, 2, len(data), half), 0.0)
    with pytest.raises(Malformed, match="those before said"):
        assembler.feed("k", chunk(D, 0, 1, len(data), data), 0.0)
    assert assembler.feed("k", chunk(D, 1, 2, len(data), half), 0.0) == data


def test_a_wrong_byte_fails_at_the_hash_and_a_new_copy_may_come() -> None:
    data = bytes(range(256)) * 40
    chunks = list(split(data, SMALL))
    bad = chunks[1][:-1] + bytes([chunks[1][-1] ^ 1])
    assembler = Assembler(20_000)
    for c in (chunks[0], bad, *chunks[2:-1]):
        assert assembler.feed("k", c, 0.0) is None
    with pytest.raises(Malformed, match="hash"):
        assembler.feed("k", chunks[-1], 0.0)
    assert assembler.held_bytes == 0
    assert [b for c in chunks if (b := assembler.feed("k", c, 0.0))] == [data]


def test_a_finished_blob_is_ignored_under_its_key_and_taken_under_another() -> None:
    (only,) = split(b"again")
    assembler = Assembler(100)
    assert assembler.feed("a", only, 0.0) == b"again"
    assert assembler.feed("a", only, 0.0) is None
    assert assembler.duplicates == 1
    assert assembler.feed("b", only, 0.0) == b"again"


def test_the_blob_longest_without_a_chunk_goes_first_when_too_many_are_open() -> None:
    first, second, third = (list(split(bytes([n]) * 9000, SMALL)) for n in range(3))
    assembler = Assembler(10_000, max_open=2)
    assembler.feed("a", first[0], 0.0)
    assembler.feed("b", second[0], 1.0)
    assembler.feed("a", first[1], 2.0)
    assembler.feed("c", third[0], 3.0)
    assert assembler.evicted == 1
    assert assembler.feed("a", first[2], 4.0) == bytes([0]) * 9000


def test_one_key_cannot_crowd_out_the_others() -> None:
    victim = list(split(b"v" * 9000, SMALL))
    assembler = Assembler(10_000, max_open=16)
    assembler.feed("victim", victim[0], 0.0)
    for n in range(100):
        assembler.feed("flood", next(split(bytes([n]) * 9000, SMALL)), 1.0)
    assert assembler.open_blobs == 1 + OPEN_PER_KEY
    assembler.feed("victim", victim[1], 2.0)
    assert assembler.feed("victim", victim[2], 2.0) == b"v" * 9000


def test_bytes_held_stay_below_the_bound() -> None:
    assembler = Assembler(9000, max_open=100, max_total_bytes=12_000)
    for n in range(20):
        for c in list(split(bytes([n]) * 9000, SMALL))[:2]:
            assembler.feed(f"k{n}", c, 0.0)
            assert assembler.held_bytes <= 12_000
    assert assembler.evicted > 0


def test_an_incomplete_blob_expires() -> None:
    chunks = list(split(bytes(9000), SMALL))
    assembler = Assembler(10_000, max_age=60.0)
    assembler.feed("k", chunks[0], 100.0)
    assembler.expire(160.0)
    assert assembler.open_blobs == 1
    assembler.expire(160.5)
    assert assembler.open_blobs == 0
    assert assembler.evicted == 1


def test_an_assembler_without_room_for_one_blob_is_refused() -> None:
    with pytest.raises(LocalError):
        Assembler(1000, max_total_bytes=999)
    with pytest.raises(LocalError):
        next(split(b"x", 2000))
