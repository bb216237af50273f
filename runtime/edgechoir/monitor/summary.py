"""A status document in a few words, the columns of the terminal view."""

from dataclasses import dataclass
from typing import Final

from edgechoir.monitor.status import Status

COLUMNS: Final = ("model", "round", "answers", "training", "process", "notes")


@dataclass(frozen=True, slots=True)
class Summary:
    """One short text a column; empty where the document says nothing."""

    model: str
    round: str
    answers: str
    training: str
    process: str
    notes: str

    def texts(self) -> tuple[str, ...]:
        """The texts in the order of COLUMNS."""
        return (self.model, self.round, self.answers, self.training, self.process, self.notes)


def summarise(status: Status) -> Summary:
    """Each part of the document that is there, for people."""
    return Summary(
        _model(status),
        _round(status),
        _answers(status),
        _training(status),
        _process(status),
        _notes(status),
    )


def _model(status: Status) -> str:
    if not (model := status.model):
        return ""
    accuracy = "" if model.accuracy is None else f" {model.accuracy:.1%}"
    return f"v{model.version}{accuracy}"


def _round(status: Status) -> str:
    if not (now := status.round):
        return ""
    spoken = "" if now.members is None else f" {now.members}"
    of = "" if now.expected is None else f"/{now.expected}"
    return f"{now.number} {now.phase}{spoken}{of}"


def _answers(status: Status) -> str:
    if not (model := status.inference):
        return ""
    p50 = "" if model.p50_ms is None else f", p50 {model.p50_ms:.2f} ms"
    p99 = "" if model.p99_ms is None else f", p99 {model.p99_ms:.2f} ms"
    missed = f", {model.missed} missed" if model.missed else ""
    return f"{model.answered}{missed}{p50}{p99}"


def _training(status: Status) -> str:
    if not (trainer := status.training):
        return ""
    return trainer.state if trainer.available else "not available"


def _process(status: Status) -> str:
    if not (process := status.health):
        return ""
    memory = "" if process.rss_mb is None else f"{process.rss_mb:.0f} MB"
    cpu = "" if process.cpu_percent is None else f"{process.cpu_percent:.0f}%"
    return ", ".join(filter(None, (memory, cpu)))


def _notes(status: Status) -> str:
    notes = []
    if status.round and status.round.reason:
        notes.append(f"last round: {status.round.reason}")
    for way in status.transfers or ():
        there, of = way.arrived / 1e6, way.total / 1e6
        peer = f"from {way.sender}" if way.receiver == status.member else f"to {way.receiver}"
        notes.append(f"{there:.1f} of {of:.1f} MB {peer}")
    if status.drops:
        worst = sorted(status.drops.items(), key=lambda item: -item[1])[:3]
        notes.append("refused " + ", ".join(f"{count} {reason}" for reason, count in worst))
    if status.broker and status.broker.reconnects:
        notes.append(f"reconnected {status.broker.reconnects} times")
    return "; ".join(notes)
