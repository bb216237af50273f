"""What a check-up says: one finding for each thing that was looked at."""

from dataclasses import dataclass
from enum import Enum


class Level(Enum):
    """`WRONG` keeps the member from working, `NOTE` is worth knowing."""

    GOOD = "good"
    NOTE = "note"
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Finding:
    """`seen` in `what`; `advice` says what to do, where `seen` does not say it already."""

    level: Level
    what: str
    seen: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.level.value:>5}  {self.what}: {self.seen}{advice}"

    def as_dict(self) -> dict[str, str]:
        """As `--json` prints it."""
        return {
            "level": self.level.value,
            "what": self.what,
            "seen": self.seen,
            "advice": self.advice,
        }


def good(what: str, seen: str) -> Finding:
    return Finding(Level.GOOD, what, seen)


def note(what: str, seen: str, advice: str = "") -> Finding:
    return Finding(Level.NOTE, what, seen, advice)


def wrong(what: str, seen: str, advice: str = "") -> Finding:
    return Finding(Level.WRONG, what, seen, advice)
