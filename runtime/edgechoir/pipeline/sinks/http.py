"""Samples and answers posted over HTTP, a batch a request, as lines of JSON."""

import asyncio
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from typing import Final

from edgechoir.errors import OperatorError
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sinks.document import line

_OPENER: Final = urllib.request.build_opener()


class HttpSink:
    """Posts to `url`; any status but 2xx loses the batch. `token` goes into Authorization."""

    def __init__(
        self, url: str, *, token: str | None = None, deadline: float = 10.0, name: str = "http"
    ) -> None:
        """Raises OperatorError: not an http or https address."""
        if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
            raise OperatorError(f"{url!r} is no address: begin with http:// or https://")
        self.name = name
        self._url, self._deadline = url, deadline
        self._fields = {"Content-Type": "application/x-ndjson"}
        if token is not None:
            self._fields["Authorization"] = f"Bearer {token}"

    async def write(self, samples: Sequence[Sample]) -> None:
        """Raises OSError: refused, or no answer in time."""
        await asyncio.to_thread(self._post, b"".join(line(sample) for sample in samples))

    async def close(self) -> None:
        return None

    def _post(self, body: bytes) -> None:
        request = urllib.request.Request(  # noqa: S310  # the scheme was checked
            self._url, body, self._fields, method="POST"
        )
        try:
            with _OPENER.open(request, timeout=self._deadline) as answer:
                answer.read(65_536)
        except urllib.error.HTTPError as error:
            error.close()
            raise
