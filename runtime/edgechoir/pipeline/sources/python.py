"""The user's own sensor: a function "package.module:function" that gives an iterator.

Each item is x (a number, list or array), the tuple (x, y), a Sample, or a Block of many. An async
iterator runs in the event loop. A plain iterator may block, as reading a sensor does, so it runs in
a thread of its own that reads at most `AHEAD` items before they are taken and then waits: nothing
is lost, nothing piles up. An item that is none of these is counted and dropped.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from math import ceil
from typing import Final

import numpy as np

from edgechoir.errors import EdgechoirError, OperatorError, SourceError
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.clock import Clock
from edgechoir.pipeline.sample import Label, Sample, as_values

AHEAD: Final = 64


def polled(
    read: Callable[[], object],
    rate: float,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[object]:
    """A blocking iterator for a function that gives one reading a call: `rate` calls a second.

    Calls lie on a grid, so their own time does not add up; ticks that a slow call ran over are
    left out. Raises OperatorError: a rate that is not above 0.
    """
    if not rate > 0:
        raise OperatorError(f"rate is {rate} calls a second: give a number above 0")
    return _poll(read, 1 / rate, monotonic, sleep)


def _poll(
    read: Callable[[], object],
    period: float,
    monotonic: Callable[[], float],
    sleep: Callable[[float], None],
) -> Iterator[object]:
    start, tick = monotonic(), 0
    while True:
        ahead = start + tick * period - monotonic()
        if ahead > 0:
            sleep(ahead)
        yield read()
        tick = max(tick + 1, ceil((monotonic() - start) / period))


def paced(items: Iterable[object], rate: float) -> Iterator[object]:
    """`items` at the pace of `polled`: the next one is drawn at each tick."""
    drawn = iter(items)
    return polled(lambda: next(drawn), rate)


class PythonSource:
    """Samples from what `make(**arguments)` gives; `key` names those that are not a Sample."""

    def __init__(
        self,
        make: Callable[..., object],
        arguments: Mapping[str, object] | None = None,
        *,
        key: str = "python",
        clock: Clock | None = None,
    ) -> None:
        self._make, self._arguments, self._key = make, dict(arguments or {}), key
        self._clock = Clock() if clock is None else clock
        self._malformed = 0
        self._items: AsyncIterator[object] | None = None
        self._reader: _Reader | None = None

    @property
    def counts(self) -> Mapping[str, int]:
        return {"malformed": self._malformed} if self._malformed else {}

    async def __aenter__(self) -> "PythonSource":
        """Call the function. Raises OperatorError: it fails, or does not give an iterator."""
        try:
            given = self._make(**self._arguments)
        except EdgechoirError:
            raise
        except OSError as error:  # not plugged in, or not yet
            raise SourceError(f"the source {self._make} cannot be opened: {error!r}") from error
        except Exception as error:  # the user's code may raise anything
            raise OperatorError(f"the source {self._make} failed to start: {error!r}") from error
        if isinstance(given, AsyncIterable):
            self._items = aiter(given)
        elif isinstance(given, Iterable):
            self._reader = _Reader(iter(given))
            self._items = self._reader.items()
        else:
            raise OperatorError(f"the source {self._make} gave {given!r}, expected an iterator")
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._reader is not None:
            self._reader.stop()
            self._reader = None
        if isinstance(self._items, AsyncGenerator):
            await self._items.aclose()

    async def __aiter__(self) -> AsyncIterator[Sample | Block]:
        if self._items is None:
            raise OperatorError("the source is not open: use 'async with'")
        while True:
            try:
                item = await anext(self._items)
            except StopAsyncIteration:
                return
            except Exception as error:  # the user's code may raise anything
                raise SourceError(f"the source {self._make} failed: {error!r}") from error
            sample = item if isinstance(item, Block) else self._read(item)
            if sample is None:
                self._malformed += 1
            else:
                yield sample

    def _read(self, item: object) -> Sample | None:
        try:
            if isinstance(item, Sample):
                return Sample(item.key, float(item.time), as_values(item.x), _label(item.y))
            x, y = item if isinstance(item, tuple) and len(item) == 2 else (item, None)
            return Sample(self._key, self._clock.now(), as_values(x), _label(y))
        except (TypeError, ValueError):
            return None


def _label(y: object) -> Label | None:
    number = y.item() if isinstance(y, np.generic | np.ndarray) else y
    if number is None or isinstance(number, int | float):
        return number
    raise TypeError(f"the label is {number!r}, expected a number")


class _Reader:
    """Runs a blocking iterator in a daemon thread: one stuck in a sensor must not hold up exit."""

    def __init__(self, iterator: Iterator[object]) -> None:
        self._iterator = iterator
        self._loop = asyncio.get_running_loop()
        self._queue: deque[object] = deque()
        self._slots = threading.Semaphore(AHEAD)
        self._ready = asyncio.Event()
        self._stopped = False
        self._ended = False
        self._error: Exception | None = None
        threading.Thread(target=self._read, name="edgechoir-source", daemon=True).start()

    def stop(self) -> None:
        self._stopped = True
        self._slots.release()

    async def items(self) -> AsyncIterator[object]:
        while True:
            ended = self._ended  # before the queue is emptied: the last item comes before the end
            while self._queue:
                self._slots.release()
                yield self._queue.popleft()
            if ended:
                if self._error is not None:
                    raise self._error
                return
            await self._ready.wait()
            self._ready.clear()

    def _read(self) -> None:
        try:
            while True:
                self._slots.acquire()
                if self._stopped:
                    break
                self._queue.append(next(self._iterator))
                self._wake()
        except StopIteration:
            pass
        except Exception as error:  # the user's code may raise anything: raised again in `items`
            self._error = error
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:  # the loop has ended: nobody waits any more
            self._stopped = True
