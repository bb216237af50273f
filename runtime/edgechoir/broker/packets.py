"""The few bytes of MQTT that the Python broker's front door reads and writes itself.

MQTT 3.1.1 (OASIS standard), sections 3.1 (CONNECT) and 3.2 (CONNACK).
"""

from dataclasses import dataclass
from typing import Final

from edgechoir.errors import Malformed

CONNECT: Final = 0x10
MQTT_311: Final = 4
CLEAN_SESSION: Final = 0x02

# CONNACK without a session. MQTT 5 has a length of properties after the reason (section 3.2.2).
REFUSED_VERSION_5: Final = b"\x20\x03\x00\x84\x00"
REFUSED_VERSION: Final = b"\x20\x02\x00\x01"
REFUSED_IDENTIFIER: Final = b"\x20\x02\x00\x02"


@dataclass(frozen=True, slots=True)
class Connect:
    """What the door needs of a CONNECT. `keep_alive_s` 0: none asked for."""

    level: int
    clean: bool
    keep_alive_s: int
    client_id: str


def read_connect(body: bytes) -> Connect:
    """Read the part of a CONNECT after its fixed header. Raises Malformed."""
    if body[:6] != b"\x00\x04MQTT" or len(body) < 10:
        raise Malformed(f"a CONNECT that begins {body[:8].hex()}, expected protocol name MQTT")
    level, flags = body[6], body[7]
    keep_alive = int.from_bytes(body[8:10])
    if level != MQTT_311:
        return Connect(level, bool(flags & CLEAN_SESSION), keep_alive, "")
    length = int.from_bytes(body[10:12])
    client_id = body[12 : 12 + length]
    if len(body) < 12 + length:
        raise Malformed("a CONNECT that ends within its client id")
    try:
        return Connect(level, bool(flags & CLEAN_SESSION), keep_alive, client_id.decode())
    except UnicodeDecodeError:
        raise Malformed("a client id that is not UTF-8") from None


def plain_connect(body: bytes, client_id: str) -> bytes:
    """The same CONNECT, with its header, for a clean session, no keep-alive and this client id.

    `body` is one that `read_connect` has read, of MQTT 3.1.1.
    """
    rest = body[12 + int.from_bytes(body[10:12]) :]
    name = client_id.encode()
    flags = body[7] | CLEAN_SESSION
    changed = b"".join(
        (body[:7], bytes((flags,)), b"\0\0", len(name).to_bytes(2), name, rest),
    )
    return bytes((CONNECT,)) + _remaining_length(len(changed)) + changed


def _remaining_length(n: int) -> bytes:
    """MQTT 3.1.1, section 2.2.3: seven bits a byte, lowest first."""
    out = bytearray()
    while True:
        n, low = divmod(n, 128)
        out.append(low | (0x80 if n else 0))
        if not n:
            return bytes(out)
