"""What of a member's life goes into its audit log.

Who came and went, what was asked of this member with whom and for which model, what it answered,
what came of a round, what it refused. Never a vector, a sample or a key.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from edgechoir.errors import RemoteError
from edgechoir.fleet.audit import Audit
from edgechoir.identity.policy import Policy
from edgechoir.rounds.endpoint import Outcome
from edgechoir.rounds.events import (
    Abandon,
    Event,
    Membership,
    ModelHeld,
    NoContribution,
    Order,
    Record,
    RoundDone,
    RoundFailed,
    Work,
)
from edgechoir.tiers.consent import Decision
from edgechoir.wire import Plan

MAX_NAMES: Final = 32


class Account:
    """Writes to `audit` what the state machines ask for and say."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self._members: frozenset[str] = frozenset()

    def begin(self, instance: bytes, version: str, parent: str | None, policy: Policy) -> None:
        """A process has started, under this policy."""
        self.audit.record("started", instance=instance.hex(), version=version, parent=parent)
        self.audit.record("policy", **asdict(policy))

    def happened(self, what: Outcome | Event) -> None:
        """Record an outcome or an event, if it is one to remember."""
        match what:
            case Membership(epoch, members):
                self._membership(epoch, frozenset(members))
            case Work(plan):
                self.audit.record("asked", **_plan(plan))
            case Order():
                self.audit.record(
                    "ordered", round=what.round, **_model(what.model_version, what.model_hash)
                )
            case Record(epoch, round_, upload):
                self.audit.record(
                    "answered", epoch=epoch, round=round_, context=upload.context.hex()
                )
            case NoContribution(round_, reason):
                self.audit.record("declined", round=round_, reason=reason)
            case Abandon(round_, reason):
                self.audit.record("abandoned", round=round_, reason=reason)
            case RoundDone(plan, survivors):
                self.audit.record("round", outcome="done", survivors=list(survivors), **_plan(plan))
            case RoundFailed(round_, reason):
                self.audit.record("round", outcome="failed", round=round_, reason=reason)
            case ModelHeld(version, digest):
                self.audit.record("model", **_model(version, digest))
            case _:
                pass

    def consent(self, round_: int, decision: Decision) -> None:
        """The owner's consent to a task was asked for, and given or not."""
        self.audit.record(
            "consent",
            round=round_,
            work=decision.task.kind,
            task=decision.hash,
            agreed=not decision.reason,
            reason=decision.reason or None,
        )

    def refused(self, error: RemoteError, peer: str) -> None:
        """A peer broke a rule; `peer` is who may write where its message came from."""
        self.audit.record_limited(
            "refused", f"{error.reason} {peer}", reason=error.reason, peer=peer, why=str(error)
        )

    def _membership(self, epoch: int, members: frozenset[str]) -> None:
        joined, left = sorted(members - self._members), sorted(self._members - members)
        if not joined and not left:
            return
        self._members = members
        self.audit.record_limited(
            "members", "changes", epoch=epoch, joined=joined, left=left, now=len(members)
        )


def _plan(plan: Plan) -> Mapping[str, Any]:
    return {
        "epoch": plan.epoch,
        "turn": plan.turn,
        "round": plan.round,
        "roster": plan.roster.hex(),
        "cohort": list(plan.cohort[:MAX_NAMES]),
        "devices": plan.devices,
        "min_survivors": plan.min_survivors,
        **_model(plan.model_version, plan.model_hash),
    }


def _model(version: int, digest: bytes) -> dict[str, Any]:
    return {"version": version, "sha256": digest.hex()}
