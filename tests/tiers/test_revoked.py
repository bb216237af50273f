"""A list of revoked certificates put beside the cloud's key reaches the whole fleet."""

from __future__ import annotations

import asyncio
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgechoir.errors import Replayed
from edgechoir.fleet.authority_dir import open_authority
from edgechoir.fleet.enrolment import load_member
from edgechoir.fleet.files import PUBLIC, write_atomic
from edgechoir.identity.authority import revocation_list
from edgechoir.store.journal import RoundJournal
from edgechoir.tiers.revoked import CrlFile, Revoked

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation


def crl(home: Path, number: int, *revoked: Path) -> bytes:
    """A list of the CA beside a member's directory."""
    authority = open_authority(home.parent / "ca", None)
    now = time.time()
    serials = [(load_member(one, now).certificate.serial, now) for one in revoked]
    return revocation_list(authority, serials, number, now)


def test_a_stolen_device_is_dropped_in_mid_round_and_heard_by_nobody(
    federation: Federation,
) -> None:
    async def trial() -> None:
        async with federation.running() as running:
            config = federation.cloud(3, deadline=3600.0)
            home = federation.folder / "cloud-identity"
            shutil.copytree(config.identity, home)
            config = config.model_copy(update={"identity": home})
            learners = [federation.learner(f"dev-{i}") for i in (1, 2, 3)]
            running.start("cloud", federation.aggregator(config))
            for learner in learners:
                running.start(str(learner.config.member), learner.run(federation.open_link))
            await running.rounds(1)
            learners[1].idle = True
            before = len(learners[1].asked)
            await learners[1].until(lambda: len(learners[1].asked) > before)
            count = len(running.done)
            device = learners[1].config.identity
            list_7 = crl(federation.identity("cloud", "cloud"), 7, device)
            write_atomic(home / "ca.crl", list_7, PUBLIC)
            await running.until(lambda _: len(running.done) > count + 1, "rounds without dev-2")
            assert [metrics.devices for metrics in running.done[count + 1 :]] == [2] * (
                len(running.done) - count - 1
            )
            for name in ("cloud", "dev-1", "dev-3"):
                await running.until(
                    lambda seen, name=name: (  # type: ignore[misc]
                        (said := seen.statuses[name].certificate) is not None
                        and said.revocations == 7
                    ),
                    f"list 7 at {name}",
                )
            own = running.status("dev-2").certificate
            assert own is not None
            await running.dropped("cloud", "revoked")

    asyncio.run(trial())


def test_a_list_is_kept_over_a_restart_and_never_goes_back(
    tmp_path: Path, federation: Federation
) -> None:
    home = federation.identity("device", "dev-1")
    root = load_member(home, time.time()).root
    journal = RoundJournal(tmp_path / "journal.db")
    first = Revoked(root, "alps", journal)
    assert first.held is None
    assert first.take(crl(home, 4, home)) is not None
    assert first.take(crl(home, 4, home)) is None
    asyncio.run(first.keep())
    again = Revoked(root, "alps", journal)
    assert again.held == first.held
    with pytest.raises(Replayed):
        again.take(crl(home, 3))
    journal.close()


def test_a_file_is_read_once_for_each_change(tmp_path: Path) -> None:
    file = CrlFile(tmp_path)
    assert file.changed() is None
    write_atomic(tmp_path / "ca.crl", b"one", PUBLIC)
    assert (file.changed(), file.changed()) == (b"one", None)
    write_atomic(tmp_path / "ca.crl", b"two", PUBLIC)
    assert file.changed() == b"two"
