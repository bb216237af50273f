"""What a fleet's members have written down after some rounds, each in its own log."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgechoir.fleet.audit_check import records, verify_log
from edgechoir.fleet.enrolment import load_member
from edgechoir.identity.chain import Line
from edgechoir.transport.topics import topic
from edgechoir.types import Address, MemberId

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation


def said(federation: Federation, tier: str, member: str, kind: str) -> list[dict[str, Any]]:
    """The records of a kind in a member's log, which must hold."""
    directory: Path = federation.folder / member / "state" / "audit"
    root = load_member(federation.identity(tier, member), time.time()).root
    assert verify_log(directory, root).wrong == []
    return [
        dict(line.fields)
        for _, _, line in records(directory)
        if isinstance(line, Line) and line.kind == kind
    ]


def test_every_tier_can_account_for_its_rounds(federation: Federation) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            learners = [federation.learner(f"dev-{i}") for i in (1, 2, 3)]
            running.start("cloud", federation.aggregator(federation.cloud(3, rounds=2)))
            for learner in learners:
                running.start(str(learner.config.member), learner.run(federation.open_link))
            await running.until(lambda seen: any(m.final for m in seen.rounds), "the end")
            for learner in learners:
                await learner.until(lambda one=learner: 2 in one.versions)  # type: ignore[misc]
            await running.until(
                lambda seen: all(
                    status.audit is not None and status.audit.records > 2
                    for name, status in seen.statuses.items()
                    if name != "eye"
                ),
                "heads in every status",
            )
            for name in ("dev-3", "dev-2", "dev-1", "cloud"):
                await running.stop(name)

    asyncio.run(trial())
    cohort = ["dev-1", "dev-2", "dev-3"]
    rounds = said(federation, "cloud", "cloud", "round")
    assert [(r["round"], r["outcome"], r["cohort"]) for r in rounds[:2]] == [
        (1, "done", cohort),
        (2, "done", cohort),
    ]
    assert [r["survivors"] for r in rounds[:2]] == [cohort, cohort]
    first, *_ = said(federation, "cloud", "cloud", "members")
    assert first["joined"] == cohort
    assert [r["round"] for r in said(federation, "cloud", "cloud", "ordered")] == [1, 2]

    asked = said(federation, "device", "dev-1", "asked")
    assert [(r["round"], r["cohort"], r["devices"]) for r in asked] == [
        (1, cohort, 3),
        (2, cohort, 3),
    ]
    answered = said(federation, "device", "dev-1", "answered")
    assert [r["round"] for r in answered] == [1, 2]
    models = said(federation, "device", "dev-1", "model")
    assert [m["version"] for m in models] == [0, 1, 2]
    assert models[1]["sha256"] == asked[1]["sha256"]
    (policy,) = said(federation, "device", "dev-1", "policy")
    assert (policy["min_members"], policy["min_devices"]) == (2, 2)
    (started,) = said(federation, "device", "dev-1", "started")
    assert started["parent"] == "cloud/cloud"
    assert said(federation, "device", "dev-1", "stopped") == [{}]


def test_what_was_refused_is_written_down_with_whose_it_was(federation: Federation) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            learners = [federation.learner(f"dev-{i}") for i in (1, 2)]
            running.start("cloud", federation.aggregator(federation.cloud(2)))
            for learner in learners:
                running.start(str(learner.config.member), learner.run(federation.open_link))
            await running.rounds(1)
            liar = Address("device", MemberId("dev-9"))
            federation.identity("device", "dev-9")
            async with federation.broker.link("dev-9#liar") as link:
                where = str(topic("alps", liar, "up", "cloud"))
                await link.publish(where, b"no envelope")
                await running.dropped("cloud", "malformed")
            for name in ("dev-2", "dev-1", "cloud"):
                await running.stop(name)

    asyncio.run(trial())
    refused = said(federation, "cloud", "cloud", "refused")
    assert ("malformed", "device/dev-9") in {(r["reason"], r["peer"]) for r in refused}
