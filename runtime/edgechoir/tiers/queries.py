"""What an operator may ask the running cloud: one request in, one inquiry pursued, one answer out.

An answer over fewer devices than the configuration wants is not given, and no more rounds are spent
on queries in a day than it allows: two answers over cohorts that differ by one device tell of that
device, and the fewer answers there are, the less there is to compare.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edgechoir.config.sections import Queries
from edgechoir.errors import OperatorError, first_wrong
from edgechoir.learning.statistics import inquiry as inquiries
from edgechoir.learning.statistics.inquiry import About, Asked, Inquiry, Model, Reply, task_hash
from edgechoir.rounds.schedule import Answered, Ask
from edgechoir.tiers.local_calls import Tell
from edgechoir.tiers.pursuit import drive, question, reply_of

DAY_S: Final = 86_400.0
Kind = Literal["mean", "counts", "histogram", "quantiles", "evaluate", "drift", "linear"]
Level = Annotated[float, Field(gt=0, lt=1)]


class Query(BaseModel):
    """A request at the control socket."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    do: Literal["query"] = "query"
    kind: Kind
    source: Literal["stored", "train", "held_out", "recent"] | None = None
    of: Literal["x", "y", "answer", "confidence"] = "x"
    columns: tuple[Annotated[int, Field(ge=0)], ...] = Field(default=(), max_length=4096)
    bins: int = Field(default=20, ge=2, le=1024)
    low: float | None = None
    high: float | None = None
    at: tuple[Level, ...] = Field(default=inquiries.QUANTILES, min_length=1, max_length=32)
    ridge: float = Field(default=1e-3, ge=0, le=1e6)
    timeout: float = Field(default=600.0, gt=0, le=86_400)

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if (self.low is None) != (self.high is None):
            raise ValueError("give both ends of the range, or neither")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ValueError(f"the range goes from {self.low:g} to {self.high:g}: swap its ends")
        return self

    def about(self) -> About:
        """Which values."""
        default = "held_out" if self.kind == "evaluate" else "stored"
        return About(self.source or default, self.of, self.columns)

    def inquiry(self, model: Model) -> Inquiry:
        """Its rounds. Raises OperatorError for a column that the model does not have."""
        if self.columns and max(self.columns) >= model.columns:
            raise OperatorError(
                f"column {max(self.columns)} is asked about, the model has 0 to {model.columns - 1}"
            )
        about = self.about()
        match self.kind:
            case "mean":
                return inquiries.mean(model, about)
            case "counts":
                return inquiries.counts(model, about)
            case "histogram":
                return inquiries.histogram(model, about, self.bins, self.low, self.high)
            case "quantiles":
                return inquiries.quantiles(model, about, self.at)
            case "evaluate":
                return inquiries.evaluate(model, about)
            case "drift":
                return inquiries.drifted(model, about)
            case "linear":
                return inquiries.fit_linear(model, about, self.ridge)


def read_query(request: Mapping[str, Any]) -> Query:
    """Raises OperatorError with the first thing that is wrong."""
    try:
        return Query.model_validate(request)
    except ValidationError as error:
        place, what = first_wrong(error)
        raise OperatorError(f"{place or 'query'}: {what}") from None


class Desk:
    """Takes queries at the root, within the bounds of its configuration."""

    def __init__(
        self,
        bounds: Queries,
        subject: Model,
        ask: Callable[[Ask], Awaitable[Answered]],
        devices: Callable[[], int],
        record: Callable[..., None],
    ) -> None:
        self._bounds, self._subject = bounds, subject
        self._ask, self._devices, self._record = ask, devices, record
        self._spent: deque[float] = deque()
        self._count = 0

    async def query(self, request: Mapping[str, Any], tell: Tell) -> Mapping[str, Any]:
        """Pursue it. Raises OperatorError, or BadUpdate where the sums are no answer."""
        query = read_query(request)
        self._count += 1
        name = f"query-{self._count}"
        self._record("query", name=name, query=query.model_dump_json(exclude_defaults=True))
        try:
            answer = await self._pursue(query, name, tell)
        except Exception as error:
            self._record("query_failed", name=name, reason=str(error))
            raise
        self._record(
            "query_answered", name=name, samples=answer["samples"], devices=answer["devices"]
        )
        return answer

    async def _pursue(self, query: Query, name: str, tell: Tell) -> dict[str, Any]:
        here = self._devices()
        if here < self._bounds.min_devices:
            raise OperatorError(
                f"{here} devices take part now, an answer needs {self._bounds.min_devices} "
                "(queries.min_devices)"
            )
        inquiry = query.inquiry(self._subject)
        number = 0

        async def reply(asked: Asked) -> Reply:
            nonlocal number
            number += 1
            self._spend()
            short = task_hash(asked.task)[:12]
            await tell(f"round {number}: {asked.task.kind}, task {short}, {asked.dimension} sums")
            got = reply_of(await self._ask(question(f"{name}/{number}", asked)), number)
            if got.devices < self._bounds.min_devices:
                raise OperatorError(
                    f"{got.devices} devices answered, an answer needs "
                    f"{self._bounds.min_devices} (queries.min_devices): the others declined, "
                    "or were away; their owners see the task with `edgechoir consent list`"
                )
            return got

        try:
            async with asyncio.timeout(query.timeout):
                return await drive(inquiry, reply)
        except TimeoutError:
            raise OperatorError(
                f"no answer within {query.timeout:g} s, in round {number}: "
                f"{self._devices()} devices take part now"
            ) from None

    def _spend(self) -> None:
        now = time.monotonic()
        while self._spent and self._spent[0] < now - DAY_S:
            self._spent.popleft()
        if len(self._spent) >= self._bounds.rounds_per_day:
            raise OperatorError(
                f"{len(self._spent)} rounds went to queries in 24 hours, no more are allowed "
                "(queries.rounds_per_day)"
            )
        self._spent.append(now)
