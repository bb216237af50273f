"""Each codec reads exactly what it writes, within its bounds, and nothing else."""

import math
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.codec import Codec, Cursor, Many, Number, Pair, Raw, Text
from edgechoir.errors import LocalError, Malformed

BYTE = Number("B", 3, 200)
NAMED = Many(Pair(Text(4), Raw(3)), 2)


def written(codec: Codec, value: Any) -> bytes:
    parts: list[Any] = []
    codec.write(value, parts)
    return b"".join(parts)


def read(codec: Codec, data: bytes) -> Any:
    """Everything, and not a byte beyond it."""
    cursor = Cursor(data)
    value = codec.read(cursor)
    assert cursor.at == len(data)
    return value


# The form itself, as another implementation would write it.
FORMS: list[tuple[Codec, Any, str]] = [
    (Number("B", 0, 255), 7, "07"),
    (Number("H", 0, 65535), 258, "0102"),
    (Number("I", 0, 2**32 - 1), 1, "00000001"),
    (Number("Q", 0, 2**64 - 1), 1, "0000000000000001"),
    (Number("d", 0, 10), 1.5, "3ff8000000000000"),
    (Raw(4), b"\xff\x00", "00000002ff00"),
    (Raw(2, exact=2), b"ab", "000000026162"),
    (Text(4), "ä", "00000002c3a4"),
    (NAMED, (("a", b""), ("b", b"\x09")), "00000002 0000000161 00000000 0000000162 0000000109"),
    (NAMED, (), "00000000"),
]


@pytest.mark.parametrize(("codec", "value", "form"), FORMS)
def test_a_value_has_this_form_and_is_read_back_from_it(
    codec: Codec, value: Any, form: str
) -> None:
    data = bytes.fromhex(form)
    assert written(codec, value) == data
    assert read(codec, data) == value


@pytest.mark.parametrize(("codec", "value", "form"), FORMS)
def test_a_value_cut_short_is_malformed(codec: Codec, value: Any, form: str) -> None:
    data = bytes.fromhex(form)
    for length in range(len(data)):
        with pytest.raises(Malformed, match=r"are left|expected 2 bytes"):
            read(codec, data[:length])


@pytest.mark.parametrize("value", [2, 201, -1, 256])
def test_a_number_outside_its_bounds_is_neither_written_nor_read(value: int) -> None:
    with pytest.raises(LocalError, match="does not fit"):
        written(BYTE, value)
    if 0 <= value < 256:
        with pytest.raises(Malformed, match=r"outside 3\.\.200"):
            read(BYTE, bytes([value]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_real_that_is_not_finite_is_neither_written_nor_read(value: float) -> None:
    codec = Number("d", -math.inf, math.inf) if math.isinf(value) else Number("d", -1e300, 1e300)
    with pytest.raises(Malformed, match="number"):
        read(codec, struct.pack(">d", value))
    if math.isnan(value):
        with pytest.raises(LocalError):
            written(codec, value)


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        (Raw(2), b"abc"),
        (Raw(4, exact=2), b"a"),
        (Raw(4, exact=2), b"abc"),
        (Text(2), "äb"),
        (Text(9), "\udfff"),
        (NAMED, (("a", b""),) * 3),
        (NAMED, (("abcde", b""),)),
    ],
)
def test_a_value_beyond_its_limit_is_our_own_error(codec: Codec, value: Any) -> None:
    with pytest.raises(LocalError):
        written(codec, value)


@pytest.mark.parametrize(
    ("codec", "form"),
    [
        (Raw(2), "00000003616263"),
        (Raw(4, exact=2), "0000000161"),
        (Text(1), "000000026162"),
        (Text(9), "00000001ff"),
        (NAMED, "00000003"),
        (NAMED, "ffffffff"),
    ],
)
def test_a_form_beyond_its_limit_is_malformed(codec: Codec, form: str) -> None:
    with pytest.raises(Malformed):
        read(codec, bytes.fromhex(form))


def test_a_list_within_a_list_is_bounded_by_both() -> None:
    nested = Many(Many(Raw(1), 2), 2)
    value = ((b"", b"a"), ())
    assert read(nested, written(nested, value)) == value
    with pytest.raises(Malformed, match="at most 2 entries, saw 3"):
        read(nested, struct.pack(">III", 1, 3, 0))


@given(data=st.binary(max_size=60))
def test_whatever_is_read_would_be_written_so(data: bytes) -> None:
    for codec in (BYTE, Raw(9), Text(9), NAMED):
        cursor = Cursor(data)
        try:
            value = codec.read(cursor)
        except Malformed:
            continue
        assert written(codec, value) == data[: cursor.at]


def test_a_cursor_says_what_was_to_be_read_and_what_is_left() -> None:
    cursor = Cursor(b"abc")
    assert bytes(cursor.take(2, "head")) == b"ab"
    with pytest.raises(Malformed, match="tail: expected 2 bytes, 1 are left"):
        cursor.take(2, "tail")
    assert bytes(cursor.take(1, "rest")) == b"c"
