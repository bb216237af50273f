"""Blobs in chunks small enough for the strictest broker (128 KB: AWS IoT Core).

    chunk = magic "EB" | version u8 | flags u8 | sha256 of the blob [32] | index u32 | count u32
            | total u64 | body                                                      (big-endian)

All bodies but the last have ceil(total / count) bytes, so the header fixes the length of each body
and a chunk that does not fit is refused at once. An empty blob is one chunk without a body.
Chunks may come in any order, more than once, and mixed with those of other blobs.
"""

import asyncio
import hashlib
import struct
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from edgechoir.errors import LinkError, LocalError, Malformed
from edgechoir.transport.link import Link, Priority
from edgechoir.transport.topics import MAX_LENGTH

LIMIT: Final = 131072
"""Bytes a broker must accept in one message, with its topic."""
OVERHEAD: Final = MAX_LENGTH + 32
"""Bytes kept free for the topic and MQTT's own header and properties."""
VERSION: Final = 1
MIN_BODY: Final = 1024
"""Chunks of a blob that needs more than one are at least this long: bounds bookkeeping per byte."""
DONE_KEPT: Final = 256
OPEN_PER_KEY: Final = 4

_HEADER: Final = struct.Struct(">2sBB32sIIQ")


class Chunks:
    """A blob cut into `count` chunks, each at most `limit` - OVERHEAD bytes with its header.

    Each is made when asked for, so that a blob under way is in memory once.
    """

    def __init__(self, data: bytes, limit: int = LIMIT) -> None:
        room = limit - OVERHEAD - _HEADER.size
        if room < 2 * MIN_BODY:
            raise LocalError(f"limit of {limit} bytes leaves {room} for a body, too few")
        self.total = len(data)
        self.count = max(1, -(-self.total // room))
        self.digest = hashlib.sha256(data).digest()
        self._size = -(-self.total // self.count)
        self._view = memoryview(data)

    def __getitem__(self, index: int) -> bytes:
        """The chunk with this index, 0 <= index < count."""
        header = _HEADER.pack(b"EB", VERSION, 0, self.digest, index, self.count, self.total)
        body = self._view[index * self._size : (index + 1) * self._size]
        return b"".join((header, body))


def split(data: bytes, limit: int = LIMIT) -> Iterator[bytes]:
    """All chunks of a blob, in order."""
    chunks = Chunks(data, limit)
    return (chunks[index] for index in range(chunks.count))


@dataclass(frozen=True, slots=True)
class ChunkHeader:
    """What a chunk says of itself and its blob. Sizes in bytes."""

    digest: bytes
    index: int
    count: int
    total: int

    @property
    def offset(self) -> int:
        """Where in the blob this chunk's body begins."""
        return self.index * -(-self.total // self.count)

    @property
    def body_length(self) -> int:
        """The one length that this chunk's body can have."""
        size = -(-self.total // self.count)
        return size if self.index < self.count - 1 else self.total - size * (self.count - 1)


def body_of(chunk: bytes) -> memoryview:
    """What a chunk carries behind its header."""
    return memoryview(chunk)[_HEADER.size :]


def read_header(chunk: bytes) -> ChunkHeader:
    """Check and read a chunk's header against itself and the chunk's length. Raises Malformed."""
    if len(chunk) < _HEADER.size:
        raise Malformed(f"chunk of {len(chunk)} bytes, its header alone has {_HEADER.size}")
    magic, version, flags, digest, index, count, total = _HEADER.unpack_from(chunk)
    if magic != b"EB" or version != VERSION or flags != 0:
        raise Malformed(
            f"chunk starts with {magic!r}, version {version}, flags {flags}; "
            f"expected b'EB', version {VERSION}, flags 0"
        )
    if index >= count or count > 1 + total // MIN_BODY:
        raise Malformed(f"chunk {index} of {count} for a blob of {total} bytes")
    header = ChunkHeader(digest, index, count, total)
    if len(chunk) - _HEADER.size != header.body_length:
        raise Malformed(
            f"chunk {index} of {count} for a blob of {total} bytes has a body of "
            f"{len(chunk) - _HEADER.size} bytes, expected {header.body_length}"
        )
    return header


@dataclass(slots=True)
class _Open:
    header: ChunkHeader
    touched: float
    bodies: dict[int, bytes] = field(default_factory=dict)
    held: int = 0


class Assembler:
    """Puts chunks together per key (the sender's `Topic.stream`), within stated bounds.

    At most `max_open` incomplete blobs (OPEN_PER_KEY under one key), `max_total_bytes` of bodies
    and `max_age` seconds since the last chunk; beyond, the one longest without a chunk goes first,
    and under a crowded key that key's own. `evicted` and `duplicates` count.
    """

    def __init__(
        self,
        max_blob_bytes: int,
        max_open: int = 64,
        max_total_bytes: int | None = None,
        max_age: float = 600.0,
    ) -> None:
        self._max_blob = max_blob_bytes
        self._max_open = max_open
        self._max_total = 4 * max_blob_bytes if max_total_bytes is None else max_total_bytes
        if self._max_total < max_blob_bytes or max_open < 1:
            raise LocalError("an assembler must have room for one blob of the largest size")
        self._max_age = max_age
        self._open: OrderedDict[tuple[str, bytes], _Open] = OrderedDict()
        self._done: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._held = 0
        self.evicted = 0
        self.duplicates = 0

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies waiting for the rest of their blobs."""
        return self._held

    @property
    def open_blobs(self) -> int:
        """Blobs of which some chunks came and some are missing."""
        return len(self._open)

    def feed(self, key: str, payload: bytes, now: float) -> bytes | None:
        """Take one payload; gives the blob when it is the last one missing.

        A chunk of a blob that this key completed before is counted and ignored; so is an empty
        payload, with which MQTT announces a cleared retained topic. Raises Malformed.
        """
        self.expire(now)
        if not payload:
            return None
        header = read_header(payload)
        if header.total > self._max_blob:
            raise Malformed(f"blob of {header.total} bytes announced, at most {self._max_blob}")
        name = (key, header.digest)
        if name in self._done:
            self.duplicates += 1
            self._done.move_to_end(name)
            return None
        blob = self._open.get(name)
        if blob is None:
            self._make_room(key)
            blob = self._open[name] = _Open(header, now)
        elif (blob.header.count, blob.header.total) != (header.count, header.total):
            raise Malformed(
                f"chunk says {header.count} chunks and {header.total} bytes, those before said "
                f"{blob.header.count} and {blob.header.total}"
            )
        blob.touched = now
        self._open.move_to_end(name)
        if header.index in blob.bodies:
            self.duplicates += 1
            return None
        body = payload[_HEADER.size :]
        blob.bodies[header.index] = body
        blob.held += len(body)
        self._held += len(body)
        if len(blob.bodies) < header.count:
            while self._held > self._max_total:
                self._evict(next(iter(self._open)))
            return None
        return self._complete(name)

    def expire(self, now: float) -> None:
        """Drop incomplete blobs that got no chunk for `max_age` seconds."""
        while self._open:
            name, blob = next(iter(self._open.items()))
            if now - blob.touched <= self._max_age:
                return
            self._evict(name)

    def _complete(self, name: tuple[str, bytes]) -> bytes:
        blob = self._open.pop(name)
        self._held -= blob.held
        data = b"".join(blob.bodies[index] for index in range(blob.header.count))
        if hashlib.sha256(data).digest() != blob.header.digest:
            raise Malformed(f"the chunks of a blob of {len(data)} bytes do not give its hash")
        self._done[name] = None
        if len(self._done) > DONE_KEPT:
            self._done.popitem(last=False)
        return data

    def _make_room(self, key: str) -> None:
        own = [name for name in self._open if name[0] == key]
        if len(own) >= OPEN_PER_KEY:
            self._evict(own[0])
        elif len(self._open) >= self._max_open:
            self._evict(next(iter(self._open)))

    def _evict(self, name: tuple[str, bytes]) -> None:
        self._held -= self._open.pop(name).held
        self.evicted += 1


async def send_blob(
    link: Link,
    topic: str,
    data: bytes,
    *,
    retain: bool = False,
    per_chunk_topic: bool = False,
    stale_chunks: int = 0,
    window: int = 4,
    timeout: float = 30.0,
) -> int:
    """Publish a blob with QoS 1, in order, `window` chunks in flight. Returns the chunk count.

    With `per_chunk_topic` chunk i goes to `<topic>/<i>`: a broker retains one message a topic.
    `stale_chunks` is the count of the blob retained there before; what the new one does not
    overwrite is cleared afterwards. Raises LinkError when a chunk is not acknowledged within
    `timeout` seconds; the chunks before it stay where they are, sending again is safe.
    """
    gate = asyncio.Semaphore(window)
    chunks = Chunks(data)
    priority = Priority.BULK if chunks.count > 1 else Priority.CONTROL

    async def send(to: str, payload: bytes) -> None:
        try:
            await link.publish(
                to, payload, retain=retain, qos=1, priority=priority, timeout=timeout
            )
        finally:
            gate.release()

    def jobs() -> Iterator[tuple[str, bytes]]:
        for index in range(chunks.count):
            yield (f"{topic}/{index}" if per_chunk_topic else topic), chunks[index]
        if per_chunk_topic and retain:
            for index in range(chunks.count, stale_chunks):
                yield f"{topic}/{index}", b""

    try:
        async with asyncio.TaskGroup() as group:
            for to, payload in jobs():
                await gate.acquire()
                group.create_task(send(to, payload))
    except BaseExceptionGroup as errors:
        first = errors.exceptions[0]
        if isinstance(first, LinkError):
            raise LinkError(f"blob of {len(data)} bytes to {topic}: {first}") from first
        raise first from None
    return chunks.count
