"""The CONNECT packet, read and rewritten."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.broker.packets import Connect, plain_connect, read_connect
from edgechoir.errors import Malformed

NAME = b"\x00\x04MQTT"


def body(level: int, flags: int, keep_alive: int, client_id: bytes, rest: bytes = b"") -> bytes:
    header = NAME + bytes((level, flags)) + keep_alive.to_bytes(2)
    return header + len(client_id).to_bytes(2) + client_id + rest


@given(
    flags=st.integers(0, 255),
    keep_alive=st.integers(0, 65535),
    client_id=st.text(max_size=60),
    rest=st.binary(max_size=300),
)
def test_a_connect_is_read_and_rewritten_to_a_clean_session(
    flags: int, keep_alive: int, client_id: str, rest: bytes
) -> None:
    before = body(4, flags, keep_alive, client_id.encode(), rest)
    assert read_connect(before) == Connect(4, bool(flags & 2), keep_alive, client_id)
    wanted = body(4, flags | 2, 0, b"dev-1", rest)
    after = plain_connect(before, "dev-1")
    assert after.endswith(wanted)
    assert after[0] == 0x10
    length = sum((byte & 0x7F) << 7 * i for i, byte in enumerate(after[1 : -len(wanted)]))
    assert length == len(wanted)


def test_another_level_is_reported_without_reading_on() -> None:
    assert read_connect(body(5, 2, 60, b"", b"")) == Connect(5, True, 60, "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        NAME,
        b"\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x00",
        body(4, 2, 60, b"dev-1")[:-1],
        body(4, 2, 60, b"\xff\xfe"),
    ],
)
def test_a_broken_connect_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        read_connect(data)


@given(data=st.binary(max_size=64))
def test_arbitrary_bytes_are_read_or_malformed(data: bytes) -> None:
    try:
        read_connect(NAME + data)
    except Malformed:
        return
