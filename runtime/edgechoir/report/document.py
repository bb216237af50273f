"""The same as plain values, for other programs."""

from dataclasses import asdict
from typing import Any

from edgechoir.report.run import Run


def document(run: Run) -> dict[str, Any]:
    """Everything in a run, as JSON has it."""
    return {
        "federation": run.federation,
        "ended": run.ended or None,
        "settings": [dict(one) for one in run.settings],
        "rounds": [m.model_dump(mode="json", exclude_none=True) for m in run.rounds],
        "trials": [m.model_dump(mode="json", exclude_none=True) for m in run.trials],
        "versions": [asdict(version) for version in run.versions],
        "members": [
            {
                "tier": tier,
                "member": member,
                "parent": seen.last.parent,
                "state": seen.last.state.value,
                "figures": [{"round": at, **asdict(f)} for at, f in sorted(seen.figures.items())],
                "epsilon": [{"round": at, "value": e} for at, e in sorted(seen.epsilon.items())],
                "privacy": None
                if seen.privacy is None
                else seen.privacy.model_dump(mode="json", exclude_none=True),
            }
            for (tier, member), seen in sorted(run.members.items())
        ],
    }
