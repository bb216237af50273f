"""What a check of a broker's configuration has to say."""

from dataclasses import dataclass
from typing import Literal

Weight = Literal["note", "wrong"]


@dataclass(frozen=True, slots=True)
class Complaint:
    """`wrong`: unsafe, or a fleet does not work with it. `note`: worth knowing.

    `seen` at `where` (file and line), what was `expected` instead, and what to `do`.
    """

    weight: Weight
    where: str
    seen: str
    expected: str
    do: str

    def __str__(self) -> str:
        return f"{self.weight:>5}  {self.where}: {self.seen}; expected {self.expected}; {self.do}"

    def as_dict(self) -> dict[str, str]:
        """As `--json` prints it."""
        return {
            "level": self.weight,
            "where": self.where,
            "seen": self.seen,
            "expected": self.expected,
            "advice": self.do,
        }
