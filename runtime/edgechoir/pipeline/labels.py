"""Labels that come after their samples: a laboratory's result, an inspection, a repair.

An unlabelled sample waits for at most `wait` seconds. A label names the key; every sample of that
key that waits gets it, or where the label has a time and `tolerance` is set, those within so many
seconds of that time. So a key names a workpiece, or a sensor and the time says which reading.
A sample whose label never comes is not stored.
"""

from collections import OrderedDict, deque

from edgechoir.errors import OperatorError
from edgechoir.pipeline.sample import Sample


class LateLabels:
    """Samples that wait for their label, at most `most` in all: the oldest key gives way."""

    def __init__(
        self, wait: float = 86_400.0, tolerance: float | None = None, most: int = 10_000
    ) -> None:
        """Raises OperatorError: a bound that is not above 0."""
        if not (wait > 0 and most > 0 and (tolerance is None or tolerance >= 0)):
            raise OperatorError(f"wait is {wait}, tolerance {tolerance}, most {most}: all above 0")
        self._wait, self._tolerance, self._most = wait, tolerance, most
        self._waiting: OrderedDict[str, deque[tuple[float, Sample]]] = OrderedDict()
        self._size = 0
        self.labelled = self.expired = self.unmatched = 0

    def hold(self, sample: Sample, now: float) -> None:
        """Remember an unlabelled sample; `now` is this device's clock, not the sample's."""
        self._forget(now)
        while self._size >= self._most:
            self._drop_oldest()
        self._waiting.setdefault(sample.key, deque()).append((now, sample))
        self._size += 1

    def label(self, label: Sample, now: float) -> list[Sample]:
        """The samples that this label is for, with it. They wait no longer."""
        self._forget(now)
        kept: deque[tuple[float, Sample]] = deque()
        given: list[Sample] = []
        for since, sample in self._waiting.pop(label.key, ()):
            if self._tolerance is None or abs(sample.time - label.time) <= self._tolerance:
                given.append(sample._replace(y=label.y))
            else:
                kept.append((since, sample))
        if kept:
            self._waiting[label.key] = kept
        self._size -= len(given)
        self.labelled += len(given)
        self.unmatched += not given
        return given

    def __len__(self) -> int:
        return self._size

    def _forget(self, now: float) -> None:
        """Samples that waited too long. A clock set back only makes them wait longer."""
        for key in list(self._waiting)[:8]:  # a few each time: the oldest keys stand first
            waiting = self._waiting[key]
            while waiting and now - waiting[0][0] > self._wait:
                waiting.popleft()
                self._size -= 1
                self.expired += 1
            if not waiting:
                del self._waiting[key]

    def _drop_oldest(self) -> None:
        key = next(iter(self._waiting))
        self._waiting[key].popleft()
        self._size -= 1
        self.expired += 1
        if not self._waiting[key]:
            del self._waiting[key]
