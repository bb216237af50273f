"""A member that runs renews its certificate, and goes on under it without losing a round."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from edgechoir.fleet.audit_check import records, verify_log
from edgechoir.fleet.authority_dir import open_authority, revoke, sign_request
from edgechoir.fleet.enrolment import install_certificate, load_member, make_renewal
from edgechoir.fleet.enrolment_server import EnrolmentSettings, enrolment_server
from edgechoir.identity.chain import Line

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation, Learner

DAY_S = 86_400.0
HOST = "127.0.0.1"


@pytest.fixture
def old(federation: Federation) -> Learner:
    """A learner with a directory of its own, whose certificate is six days old and holds seven."""
    learner = federation.learner("dev-1")
    given = learner.config.identity
    home = federation.folder / "dev-1-identity"
    shutil.copytree(given, home)
    ca = federation.folder / "ca"
    shutil.copytree(given.parent / "ca", ca)
    request = make_renewal(home, os.urandom, new_key_too=False)
    then = time.time() - 6 * DAY_S
    issued = sign_request(ca, request, "device", then, 7, os.urandom, None)
    install_certificate(home, issued.pem, (ca / "ca.crt").read_bytes(), time.time())
    learner.config = learner.config.model_copy(update={"identity": home})
    return learner


@asynccontextmanager
async def endpoint(federation: Federation, learner: Learner) -> AsyncIterator[None]:
    """The enrolment endpoint, which the learner's configuration names."""
    ca = federation.folder / "ca"
    settings = EnrolmentSettings(ca, (HOST,), HOST, 0)
    async with enrolment_server(settings, open_authority(ca, None)) as port:
        url = {"enrolment_url": f"https://{HOST}:{port}"}
        learner.config = learner.config.model_copy(update=url)
        yield


def test_a_certificate_is_renewed_while_rounds_go_on(federation: Federation, old: Learner) -> None:
    before = load_member(old.config.identity, time.time())

    async def trial() -> None:
        async with endpoint(federation, old), federation.running() as running:
            other = federation.learner("dev-2")
            running.start("cloud", federation.aggregator(federation.cloud(2)))
            for learner in (old, other):
                running.start(str(learner.config.member), learner.run(federation.open_link))
            await running.until(
                lambda seen: (
                    "dev-1" in seen.statuses
                    and (said := seen.statuses["dev-1"].certificate) is not None
                    and said.not_after > before.certificate.not_after + DAY_S
                ),
                "a later end in the status",
            )
            await running.rounds(2)
            assert [metrics.outcome for metrics in running.seen.rounds] == ["done"] * len(
                running.seen.rounds
            )
            said = running.status("dev-1").certificate
            assert said is not None
            assert (said.renewal or "").startswith("due ")
            for name in ("dev-2", "dev-1", "cloud"):
                await running.stop(name)

    asyncio.run(trial())
    after = load_member(old.config.identity, time.time())
    assert after.certificate.serial != before.certificate.serial
    assert after.certificate.public_key == before.certificate.public_key
    log = federation.folder / "dev-1" / "state" / "audit"
    verdict = verify_log(log, after.root)
    assert (verdict.wrong, verdict.signer) == ([], after.certificate)
    kinds = [line.kind for _, _, line in records(log) if isinstance(line, Line)]
    assert "renewed" in kinds


def test_a_revoked_member_gets_no_other_certificate_and_says_so(
    federation: Federation, old: Learner, caplog: pytest.LogCaptureFixture
) -> None:
    revoke(federation.folder / "ca", "dev-1", time.time(), None)

    async def trial() -> None:
        async with endpoint(federation, old), federation.running() as running:
            running.start("dev-1", old.run(federation.open_link))
            await running.until(
                lambda seen: (
                    "dev-1" in seen.statuses
                    and (said := seen.statuses["dev-1"].certificate) is not None
                    and "was revoked: enrol it anew" in (said.renewal or "")
                ),
                "the reason in the status",
            )
            said = running.status("dev-1").certificate
            assert said is not None
            assert said.revoked

    with caplog.at_level(logging.WARNING, "edgechoir"):
        asyncio.run(trial())
    lines = [r.message for r in caplog.records if "was not renewed" in r.message]
    assert len(lines) == 1


def test_an_endpoint_that_is_away_is_tried_again(federation: Federation, old: Learner) -> None:
    config = old.config
    old.config = config.model_copy(update={"enrolment_url": f"https://{HOST}:1"})

    async def trial() -> None:
        async with federation.running() as running:
            running.start("dev-1", old.run(federation.open_link))
            await running.until(
                lambda seen: (
                    "dev-1" in seen.statuses
                    and (said := seen.statuses["dev-1"].certificate) is not None
                    and (said.renewal or "").startswith("failed, tried again ")
                ),
                "the failure in the status",
            )

    asyncio.run(trial())


def test_a_certificate_that_the_operator_installs_is_taken_up(
    federation: Federation, old: Learner
) -> None:
    home, ca = old.config.identity, federation.folder / "ca"
    root = (ca / "ca.crt").read_bytes()

    async def trial() -> None:
        async with federation.running() as running:
            running.start("dev-1", old.run(federation.open_link))
            await running.until(lambda seen: "dev-1" in seen.statuses, "dev-1")
            request = make_renewal(home, os.urandom, new_key_too=False)
            issued = sign_request(ca, request, "device", time.time(), 90, os.urandom, None)
            install_certificate(home, issued.pem, root, time.time())
            await running.until(
                lambda seen: (
                    (said := seen.statuses["dev-1"].certificate) is not None
                    and said.not_after > time.time() + 20 * DAY_S
                ),
                "the new end in the status",
            )

    asyncio.run(trial())
