"""What is known of a run, folded from documents: the rounds, the members' figures, the versions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from edgechoir.errors import OperatorError
from edgechoir.monitor.records import Metrics
from edgechoir.monitor.status import PrivacyStatus, Status

T = TypeVar("T")
MAX_MEMBERS: Final = 5_000
MAX_POINTS: Final = 20_000
"""Of one member; later ones are left out."""


@dataclass(frozen=True, slots=True)
class Figures:
    """How the model did on a member's rows, or those beneath it."""

    accuracy: float | None
    loss: float | None
    rmse: float | None


@dataclass(slots=True)
class MemberRun:
    """What a member's status said over time: figures and epsilon by round, and its last word."""

    last: Status
    figures: dict[int, Figures] = field(default_factory=dict)
    epsilon: dict[int, float] = field(default_factory=dict)
    privacy: PrivacyStatus | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """A model version, how it did when it was measured, and whether the cloud still has it."""

    version: int
    figures: Figures | None
    kept: bool | None = None
    best: bool = False


@dataclass(slots=True)
class Run:
    """Everything known. `settings` as JSON objects, the oldest first; `trials` are rounds that
    `edgechoir tune` spent, and none of the run."""

    federation: str = ""
    rounds: list[Metrics] = field(default_factory=list)
    trials: list[Metrics] = field(default_factory=list)
    members: dict[tuple[str, str], MemberRun] = field(default_factory=dict)
    settings: list[Mapping[str, Any]] = field(default_factory=list)
    stored: list[Version] = field(default_factory=list)
    left_out: int = 0
    _seen: set[tuple[int, float]] = field(default_factory=set)

    def take(self, document: Status | Metrics) -> None:
        """Fold a document in. Raises OperatorError for one of another federation."""
        self.belongs(document.federation)
        if isinstance(document, Status):
            self._status(document)
        elif document.tier == "cloud" and (document.round, document.at) not in self._seen:
            self._seen.add((document.round, document.at))
            (self.trials if document.trial else self.rounds).append(document)

    def belongs(self, federation: str) -> None:
        """Raises OperatorError where two federations would be mixed."""
        if self.federation and federation != self.federation:
            raise OperatorError(
                f"documents of {federation!r} and of {self.federation!r}: a report is of one "
                "federation"
            )
        self.federation = federation

    def _status(self, status: Status) -> None:
        key = (status.tier, status.member)
        member = self.members.get(key)
        if member is None:
            if len(self.members) >= MAX_MEMBERS:
                self.left_out += 1
                return
            member = self.members[key] = MemberRun(status)
        member.last = status
        model, account = status.model, status.privacy
        if model is not None and model.measured_in is not None:
            _add(member.figures, model.measured_in, Figures(model.accuracy, model.loss, model.rmse))
        if account is not None:
            member.privacy = account
            if account.epsilon is not None and status.round is not None:
                _add(member.epsilon, status.round.number, account.epsilon)

    def sort(self) -> None:
        """Once all is in: rounds in the order they ended."""
        for documents in (self.rounds, self.trials):
            documents.sort(key=lambda metrics: (metrics.at, metrics.round))

    # ---- what a page asks

    @property
    def done(self) -> list[Metrics]:
        """Rounds that gave a sum."""
        return [metrics for metrics in self.rounds if metrics.outcome != "failed"]

    @property
    def failed(self) -> list[Metrics]:
        """Rounds that gave none, and those whose sum was not followed."""
        return [metrics for metrics in self.rounds if metrics.outcome != "done"]

    @property
    def regression(self) -> bool:
        return any(metrics.rmse is not None for metrics in self.rounds)

    @property
    def ended(self) -> str:
        """Why the run is over; nothing where it is not, as far as is known."""
        last = self.rounds[-1] if self.rounds else None
        return "" if last is None or not last.final else (last.ended or "the run is over")

    @property
    def versions(self) -> list[Version]:
        """The versions measured or kept, ascending, the best marked."""
        if self.stored:
            return self.stored
        found = {
            m.version: Figures(m.accuracy, m.loss, m.rmse)
            for m in self.done
            if m.version is not None and (m.accuracy, m.loss) != (None, None)
        }
        best = max(found, key=lambda version: rank(found[version]), default=None)
        return [Version(v, found[v], None, v == best) for v in sorted(found)]


def rank(figures: Figures) -> tuple[float, float]:
    """Higher is better, as the cloud judges: by accuracy, and then by loss."""
    accuracy = -1.0 if figures.accuracy is None else figures.accuracy
    return accuracy, -(float("inf") if figures.loss is None else figures.loss)


def _add(into: dict[int, T], at: int, value: T) -> None:
    if at in into or len(into) < MAX_POINTS:
        into[at] = value
