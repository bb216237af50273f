"""Readings fetched over HTTP: a weather service, a PLC's web interface, another program.

One GET a reading, in the source's thread, with a deadline and a bound on what comes. The answer is
a JSON sample (`message.py`), or any JSON out of which `fields` names the numbers.
"""

import http.client
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any, Final

from edgechoir.errors import OperatorError, SourceError
from edgechoir.pipeline.sample import Sample, as_values
from edgechoir.pipeline.sources.message import read

MAX_ANSWER: Final = 1_000_000
_OPENER: Final = urllib.request.build_opener()


class HttpReading:
    """One reading a call. `fields` are paths into the answer: "main.temp", "sensors.0.value"."""

    def __init__(
        self,
        url: str,
        fields: Sequence[str] = (),
        *,
        key: str = "http",
        deadline: float = 10.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Raises OperatorError: not an http or https address."""
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise OperatorError(f"{url!r} is no address: begin with http:// or https://")
        self._url, self._fields, self._key = url, list(fields), key
        self._deadline, self._now = deadline, now

    def __call__(self) -> Sample:
        """Raises SourceError: no answer in time, or another than expected."""
        try:
            request = urllib.request.Request(  # noqa: S310  # the scheme was checked
                self._url, headers={"Accept": "application/json"}
            )
            with _OPENER.open(request, timeout=self._deadline) as answer:
                body = _bounded(answer, time.monotonic() + self._deadline)
        except urllib.error.HTTPError as error:
            error.close()
            raise SourceError(f"{self._url}: {error}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise SourceError(f"{self._url}: {error}") from error
        if not self._fields:
            sample = read(body, self._key, self._now)
            if sample is None:
                raise SourceError(f"{self._url}: the answer is no sample: {body[:80]!r}")
            return sample
        try:
            found = json.loads(body)
            x = as_values([_number(found, field) for field in self._fields])
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise SourceError(f"{self._url}: the answer lacks a field: {error!r}") from error
        return Sample(self._key, self._now(), x)


def _bounded(answer: Any, until: float) -> bytes:
    """The body, in pieces: a server that trickles must not hold the source for ever."""
    body = b""
    while piece := answer.read1(65_536):
        body += piece
        if len(body) > MAX_ANSWER:
            raise ValueError(f"more than {MAX_ANSWER} bytes")
        if time.monotonic() > until:
            raise TimeoutError("the answer takes too long")
    return body


def _number(found: Any, field: str) -> float | None:
    for part in field.split("."):
        found = found[int(part)] if isinstance(found, list) else found[part]
    if found is not None and (isinstance(found, bool) or not isinstance(found, int | float)):
        raise TypeError(f"{field} is {str(found)[:40]!r}, expected a number")
    return found
