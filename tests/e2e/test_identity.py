"""Certificates of a fleet that runs: exchanged in mid-run, and revoked past a broker that lies."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgechoir.fleet.audit_check import verify_log
from edgechoir.fleet.authority_dir import open_authority, sign_request
from edgechoir.fleet.enrolment import install_certificate, load_member, make_renewal
from edgechoir.fleet.files import PUBLIC, write_atomic
from edgechoir.identity.authority import revocation_list

if TYPE_CHECKING:
    from tests.e2e.conftest import Fleet, FleetOf, View

pytestmark = [pytest.mark.e2e, pytest.mark.torch, pytest.mark.timeout(180)]

TREE = (
    ("cloud", "cloud", None),
    ("device", "dev-1", "cloud"),
    ("device", "dev-2", "cloud"),
    ("device", "dev-3", "cloud"),
    ("device", "dev-4", "cloud"),
)
MEMBERS = [member for _, member, _ in TREE]


@pytest.fixture
def fleet(make_fleet: FleetOf, tmp_path: Path) -> Iterator[Fleet]:
    with make_fleet(tmp_path, TREE, 100_000) as fleet:
        yield fleet


def exchange(fleet: Fleet, member: str) -> float:
    """Install another certificate for the same key, as an operator would; when it ends."""
    home, ca = fleet.identity(member).directory, fleet.folder / "ca"
    request = make_renewal(home, os.urandom, new_key_too=False)
    tier = fleet.seats[member].tier
    issued = sign_request(ca, request, tier, time.time(), 300, os.urandom, None)
    root = (ca / "ca.crt").read_bytes()
    return install_certificate(home, issued.pem, root, time.time()).not_after


def revoke_past_the_broker(fleet: Fleet, member: str) -> None:
    """The cloud gets the list, the broker does not."""
    authority = open_authority(fleet.folder / "ca", None)
    now = time.time()
    serial = load_member(fleet.identity(member).directory, now).certificate.serial
    der = revocation_list(authority, [(serial, now)], 1000, now)
    write_atomic(fleet.identity("cloud").crl, der, PUBLIC)


async def goes_by_list(view: View, member: str, number: int) -> None:
    def holds() -> bool:
        said = view.status(member).certificate
        return said is not None and said.revocations == number

    await view.until(holds, f"list {number} at {member}")


def test_certificates_change_hands_while_rounds_go_on(fleet: Fleet) -> None:
    async def trial() -> None:
        async with fleet.view() as view:
            # A member opens its connection again between two rounds: let there be such a time.
            fleet.edit("cloud", "pause_s = 0.0", "pause_s = 0.5")
            fleet.start(*MEMBERS)
            await view.rounds(2, devices=4)
            before = len(view.seen.rounds)
            ends = {name: exchange(fleet, name) for name in ("dev-1", "cloud")}
            for name, end in ends.items():

                def renewed(name: str = name, end: float = end) -> bool:
                    status = view.status(name)
                    said, broker = status.certificate, status.broker
                    reopened = broker is not None and broker.reconnects >= 1
                    return said is not None and said.not_after == end and reopened

                await view.until(renewed, f"{name} connected under its new certificate")
            await view.rounds(2, devices=4)
            outcomes = {(metrics.outcome, metrics.devices) for metrics in view.seen.rounds[before:]}
            assert outcomes == {("done", 4)}

            revoke_past_the_broker(fleet, "dev-2")
            await goes_by_list(view, "cloud", 1000)
            await view.rounds(2, devices=3)
            for name in ("dev-1", "dev-3", "dev-4"):
                await goes_by_list(view, name, 1000)
            await view.dropped("cloud", "revoked", 1)
            await asyncio.to_thread(fleet.stop, *MEMBERS)

    asyncio.run(trial())
    for name in MEMBERS:
        root = load_member(fleet.identity(name).directory, time.time()).root
        log = fleet.seats[name].directory / "state" / "audit"
        assert verify_log(log, root).wrong == []
