"""The receiving end of transfers, without I/O: chunks in, blobs and answers out.

States of a blob of several chunks: waiting (offered, nothing may be sent) -> open (memory is set
aside, `window` chunks may be under way) -> done, or dropped: cancelled, refused, expired, silent.
One that makes no progress while others wait goes back to waiting and keeps what it has. A blob of
one chunk is done as it comes.

Memory is bounded by what is promised, not by what happens to arrive: the sizes of all blobs with
memory stay within `max_bytes`, and at most `places` are open. Each has a window of `window` chunks,
and a wider one where chunks come so fast that all of it is there after QUEUED_S: what lies in
queues on the way holds up everything else that comes. Of those who wait, the one whose sender has
the fewest open blobs is next, then the oldest; nobody overtakes it because it is smaller.

The hashes of the last KEPT_DONE blobs of each sender are remembered, as many as a broker may send
again after a reconnection: a chunk that comes again is answered with `done` and delivers nothing.
A hash that does not fit begins the blob anew.
"""

import hashlib
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Final

from edgechoir.errors import LocalError, Malformed
from edgechoir.transport.blobs import MIN_BODY, ChunkHeader, body_of, read_header
from edgechoir.transport.control import (
    INSTANCE,
    Ack,
    Cancel,
    Cause,
    Control,
    Offer,
    Refuse,
    encode,
)
from edgechoir.transport.sender import MAX_OPEN, Progress

PLACES: Final = 8
WINDOW: Final = 8
"""With PLACES, 64 chunks or 8 MB under way to one member; mosquitto queues 1000 by default."""
WIDEST: Final = 32
QUEUED_S: Final = 0.25
KEPT_DONE: Final = 64
KEPT_ALL: Final = 32_768
"""Hashes remembered for all senders together, 6 MB; who was silent longest is forgotten first."""
MAX_WAITING: Final = 1024
SILENT_S: Final = 600.0
"""A blob whose sender says nothing for so long is dropped."""
HOARDING_S: Final = 60.0
"""The same for one that is not open, while memory is short."""
STALLED_S: Final = 10.0
"""One that makes no progress for so long gives its place to one that waits."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """A whole blob whose hash is right. Comes before the reply that says so."""

    key: str
    blob: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """A control message for the sender under `key`."""

    key: str
    payload: bytes


@dataclass(slots=True)
class _Blob:
    count: int
    total: int
    began: float
    touched: float
    expires: float
    ask: int = 0
    progress: float = 0.0
    """When it was opened, or its last chunk came."""
    open: bool = False
    opened: float = 0.0
    rate: int = 0
    """Chunks that came since it was opened."""
    window: int = 0
    """As the sender was told last."""
    room: bool = False
    """Is memory set aside for it?"""
    bodies: dict[int, memoryview] = field(default_factory=dict)
    hashed: int = 0
    """The first chunks, whose bytes `digest` has."""
    digest: "hashlib._Hash" = field(default_factory=hashlib.sha256)
    have: int = 0
    news: int = 0
    """Chunks that came since the last answer."""

    def put(self, index: int, body: memoryview) -> None:
        """Keep a chunk, and hash what has no gap before it: so the last one need not wait."""
        self.bodies[index] = body
        self.have |= 1 << index
        while (following := self.bodies.get(self.hashed)) is not None:
            self.digest.update(following)
            self.hashed += 1

    def clear(self) -> None:
        """Begin anew."""
        self.bodies, self.hashed, self.digest, self.have = {}, 0, hashlib.sha256(), 0


class Receiver:
    """See the module. `instance` names this process. Times in seconds on the caller's clock."""

    def __init__(
        self,
        instance: bytes,
        max_blob: int,
        max_bytes: int | None = None,
        places: int = PLACES,
        window: int = WINDOW,
    ) -> None:
        self._instance = instance
        self._max_blob = max_blob
        self._max_bytes = 2 * max_blob if max_bytes is None else max_bytes
        if len(instance) != INSTANCE or min(places, window) < 1 or self._max_bytes < max_blob:
            raise LocalError("a receiver needs a name of 8 bytes and room for the largest blob")
        self._places, self._window = places, window
        self._blobs: OrderedDict[tuple[str, bytes], _Blob] = OrderedDict()
        self._done: OrderedDict[str, OrderedDict[bytes, None]] = OrderedDict()
        self._kept = 0
        """Hashes in `_done`."""
        self._sequence = 0
        self._short = False
        """Does the next that waits find no memory?"""
        self.reserved = 0
        """Bytes set aside for blobs that are under way."""
        self.duplicates = self.dropped = 0
        """Chunks that came again; blobs that were begun and not finished."""

    def __len__(self) -> int:
        return len(self._blobs)

    @property
    def open_blobs(self) -> int:
        """Blobs that may be sent now."""
        return sum(blob.open for blob in self._blobs.values())

    def progress(self) -> list[Progress]:
        """How far the blobs are that may be sent now."""
        return [
            Progress(key, len(blob.bodies) * blob.total // blob.count, blob.total, blob.began)
            for (key, _), blob in self._blobs.items()
            if blob.open
        ]

    def take_control(self, key: str, control: Control, now: float) -> list[Reply]:
        """What a sender says beside its chunks. Raises Malformed."""
        name = (key, control.digest)
        match control:
            case Offer(digest, ask, count, total, left):
                if self._is_done(name):
                    return [self._done_reply(name)]
                if not 1 <= count <= 1 + total // MIN_BODY:
                    raise Malformed(f"offer of {count} chunks for {total} bytes")
                if total > self._max_blob:
                    return [Reply(key, encode(Refuse(digest, Cause.TOO_LARGE)))]
                if count == 1:
                    return [self._single_reply(name, ask)]
                blob = self._known(name, count, total, now)
                if blob is None:
                    return []
                blob.ask = ask
                blob.expires = now + left
                waited = not blob.open
                granted = self._admit(now)
                if waited and blob.open:
                    return granted  # its own answer is among them
                return [self._reply(name, blob, now), *granted]
            case Cancel():
                return self._drop(name, now)
            case _:
                raise Malformed(f"a sender does not say {type(control).__name__}")

    def take_chunk(self, key: str, chunk: bytes, now: float) -> list[Delivered | Reply]:
        """Take one chunk. Raises Malformed."""
        header = read_header(chunk)
        name = (key, header.digest)
        if self._is_done(name):
            self.duplicates += 1
            return [self._done_reply(name)]
        if header.total > self._max_blob:
            return [Reply(key, encode(Refuse(header.digest, Cause.TOO_LARGE)))]
        body = body_of(chunk)
        if header.count == 1:
            if hashlib.sha256(body).digest() != header.digest:
                raise Malformed(f"a blob of {len(body)} bytes does not have its hash")
            return [Delivered(key, bytes(body)), self._finish(name)]
        blob = self._known(name, header.count, header.total, now)
        if blob is None:
            return []
        granted: list[Reply] = [] if blob.open else self._admit(now)
        return [*granted, *self._put(name, blob, header, body, now)]

    def _put(
        self,
        name: tuple[str, bytes],
        blob: _Blob,
        header: ChunkHeader,
        body: memoryview,
        now: float,
    ) -> list[Delivered | Reply]:
        bodies = blob.bodies
        if not blob.room:
            return [self._reply(name, blob, now)]  # it may not be sent yet: say so
        if header.index in bodies:
            self.duplicates += 1
            return [self._reply(name, blob, now)]
        blob.put(header.index, body)
        blob.progress = now
        blob.rate += 1
        blob.news += 1
        if len(bodies) == blob.count:
            return self._complete(name, blob, now)
        return [self._reply(name, blob, now)] if blob.news * 4 >= blob.window else []

    def _complete(
        self, name: tuple[str, bytes], blob: _Blob, now: float
    ) -> list[Delivered | Reply]:
        if blob.digest.digest() != name[1]:
            blob.clear()
            self.dropped += 1
            raise Malformed(f"the chunks of a blob of {blob.total} bytes do not give its hash")
        data = b"".join([blob.bodies[index] for index in range(blob.count)])
        self._release(name)
        return [Delivered(name[0], data), self._finish(name), *self._admit(now)]

    def forget(self, key: str, now: float) -> list[Reply]:
        """Take no more of what a sender has begun: its process is gone, or is another one."""
        begun = [name for name in self._blobs if name[0] == key]
        for name in begun:
            self._release(name)
        self.dropped += len(begun)
        replies = [Reply(key, encode(Refuse(digest, Cause.UNWANTED))) for _, digest in begun]
        return replies + self._admit(now)

    def tick(self, now: float) -> list[Reply]:
        """Time has passed: drop what has expired or fallen silent, close what stands in others'
        way."""
        replies: list[Reply] = []
        short = self._short
        waiting = self.open_blobs < len(self._blobs)
        for name, blob in tuple(self._blobs.items()):
            hoards = short and blob.room and not blob.open
            patience = HOARDING_S if hoards else SILENT_S
            if now >= blob.expires or now - blob.touched >= patience:
                replies += self._drop(name, now)
            elif waiting and blob.open and now - blob.progress >= STALLED_S:
                blob.open = False
                self._blobs.move_to_end(name)
                replies.append(self._reply(name, blob, now))
        return replies + self._admit(now)

    # ---- places

    def _known(self, name: tuple[str, bytes], count: int, total: int, now: float) -> _Blob | None:
        """The blob of this name, begun if it is new; None where even the queue is full."""
        blob = self._blobs.get(name)
        if blob is None:
            same = sum(other[0] == name[0] for other in self._blobs)
            if len(self._blobs) >= MAX_WAITING or same >= MAX_OPEN:
                self.dropped += 1
                return None
            blob = self._blobs[name] = _Blob(count, total, now, now, now + SILENT_S)
        elif (blob.count, blob.total) != (count, total):
            raise Malformed(
                f"a blob of {count} chunks and {total} bytes, it was announced as "
                f"{blob.count} and {blob.total}"
            )
        blob.touched = now
        return blob

    def _admit(self, now: float) -> list[Reply]:
        """Open what there is room for; those who get a window are told."""
        replies: list[Reply] = []
        busy = Counter(key for (key, _), blob in self._blobs.items() if blob.open)
        self._short = False
        while busy.total() < self._places:
            waiting = (name for name, blob in self._blobs.items() if not blob.open)
            name = min(waiting, key=lambda name: busy[name[0]], default=None)
            if name is None:
                break
            blob = self._blobs[name]
            if not blob.room:
                if self.reserved + blob.total > self._max_bytes:
                    self._short = True
                    break
                blob.room = True
                self.reserved += blob.total
            blob.open, blob.opened, blob.progress, blob.rate = True, now, now, 0
            busy[name[0]] += 1
            replies.append(self._reply(name, blob, now))
        return replies

    def _drop(self, name: tuple[str, bytes], now: float) -> list[Reply]:
        if name not in self._blobs:
            return []
        self.dropped += 1
        self._release(name)
        return self._admit(now)

    def _release(self, name: tuple[str, bytes]) -> None:
        blob = self._blobs.pop(name)
        if blob.room:
            self.reserved -= blob.total

    # ---- answers

    def _reply(self, name: tuple[str, bytes], blob: _Blob, now: float) -> Reply:
        blob.news = 0
        blob.window = self._window_of(blob, now) if blob.open else 0
        return self._say(name, blob.ask, blob.window, blob.have, done=False)

    def _window_of(self, blob: _Blob, now: float) -> int:
        """As many chunks as come in QUEUED_S, within bounds."""
        elapsed = now - blob.opened
        if elapsed <= 0:
            return self._window
        widest = min(WIDEST, self._places * self._window // self.open_blobs)
        return max(self._window, int(min(widest, blob.rate * QUEUED_S / elapsed)))

    def _single_reply(self, name: tuple[str, bytes], ask: int) -> Reply:
        return self._say(name, ask, 1, 0, done=False)

    def _done_reply(self, name: tuple[str, bytes]) -> Reply:
        return self._say(name, 0, 0, 0, done=True)

    def _say(
        self, name: tuple[str, bytes], ask: int, window: int, have: int, *, done: bool
    ) -> Reply:
        self._sequence += 1
        ack = Ack(name[1], self._instance, self._sequence, ask, window, done, have)
        return Reply(name[0], encode(ack))

    def _is_done(self, name: tuple[str, bytes]) -> bool:
        return name[1] in self._done.get(name[0], ())

    def _finish(self, name: tuple[str, bytes]) -> Reply:
        """Remember a blob as done."""
        key, digest = name
        done = self._done.setdefault(key, OrderedDict())
        done[digest] = None
        self._kept += 1
        self._done.move_to_end(key)
        if len(done) > KEPT_DONE:
            done.popitem(last=False)
            self._kept -= 1
        while self._kept > KEPT_ALL:
            self._kept -= len(self._done.popitem(last=False)[1])
        return self._done_reply(name)
