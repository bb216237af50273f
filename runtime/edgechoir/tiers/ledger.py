"""What a device has given of its privacy so far, and whether its owner lets it give more.

Every round it masks a vector for is charged before the vector leaves, also where the round then
fails: somebody may have seen the sum. Without sampling in the account, since whoever picks the
cohort is whom the noise is meant for. Once a vector has left without noise no epsilon bounds what
this device has given, and none is shown.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from edgechoir.errors import OperatorError, PolicyViolation
from edgechoir.learning.privacy.budget import epsilon
from edgechoir.store.journal import RoundJournal

NOTE: Final = "privacy"


@dataclass(frozen=True, slots=True)
class Owner:
    """What the owner says: refuse rounds without noise, or beyond `max_epsilon` at `delta`; an
    epsilon that has an end refuses rounds without noise too, which have none."""

    require: bool
    max_epsilon: float | None
    delta: float

    @property
    def insists(self) -> bool:
        """On noise in every round."""
        return self.require or self.max_epsilon is not None


class Ledger:
    """`rho` is the zCDP cost of the `rounds` charged so far, `bare`: a vector has left without
    noise. Kept in the round journal."""

    def __init__(self, journal: RoundJournal, federation: str, owner: Owner) -> None:
        """Raises OperatorError for an account that cannot be read: it is not begun anew."""
        self._journal, self._federation, self._owner = journal, federation, owner
        self._lock = threading.Lock()
        self.rho, self.rounds, self.bare = 0.0, 0, False
        kept = journal.noted(federation, NOTE)
        if kept is None:
            return
        try:
            account = json.loads(kept)
            self.rho, self.rounds = float(account["rho"]), int(account["rounds"])
            self.bare = bool(account.get("bare", False))
        except (ValueError, KeyError, TypeError, AttributeError):
            raise OperatorError(
                "the account of what this device has given of its privacy cannot be read; "
                "its round journal is damaged"
            ) from None

    @property
    def epsilon(self) -> float:
        """What has been given so far, at the owner's delta."""
        return epsilon(self.rho, self._owner.delta)

    def check(self, rho: float | None) -> None:
        """May one more round be taken part in, at this cost? None: it has no noise.

        Raises PolicyViolation.
        """
        owner = self._owner
        if rho is None:
            if owner.insists:
                raise PolicyViolation("a round without noise; this device's owner requires it")
            return
        after = epsilon(self.rho + rho, owner.delta)
        if owner.max_epsilon is not None and after > owner.max_epsilon:
            raise PolicyViolation(
                f"epsilon would be {after:.3g} at delta {owner.delta:g} after this round; "
                f"this device's owner allows {owner.max_epsilon:g}"
            )

    def charge(self, rho: float | None) -> None:
        """Write a round's cost down; the disk has it when this returns. None: it has no noise.

        Raises PolicyViolation: another round was charged since the check, and this is too much.
        """
        with self._lock:
            self.check(rho)
            if rho is None:
                if not self.bare:
                    self._keep(self.rho, self.rounds, True)
                return
            self._keep(self.rho + rho, self.rounds + 1, self.bare)

    def _keep(self, rho: float, rounds: int, bare: bool) -> None:
        account = json.dumps({"rho": rho, "rounds": rounds, "bare": bare}).encode()
        self._journal.note(self._federation, NOTE, account)
        self.rho, self.rounds, self.bare = rho, rounds, bare

    def describe(self) -> Mapping[str, float | int | bool | None]:
        """For the status document."""
        return {
            "epsilon": None if self.bare else round(self.epsilon, 6),
            "delta": self._owner.delta,
            "max_epsilon": self._owner.max_epsilon,
            "required": self._owner.insists,
            "rounds": self.rounds,
            "without_noise": self.bare,
        }
