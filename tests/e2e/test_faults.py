"""What goes wrong in a fleet stays where it went wrong: the rounds go on."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.bundle.load import load_bundle
from edgechoir.demo.layout import FEDERATION
from edgechoir.fleet.enrolment import load_member
from edgechoir.identity.authority import create_authority, issue
from edgechoir.identity.envelope import DOMAIN, Signer
from edgechoir.identity.keys import new_key, sign
from edgechoir.identity.request import make_request
from edgechoir.monitor.status import MemberState
from edgechoir.transport.blobs import Assembler, split
from edgechoir.transport.control import is_control

if TYPE_CHECKING:
    from tests.e2e.conftest import Fleet, FleetOf, LeftRunning

    from edgechoir.fleet.enrolment import MemberPaths
    from edgechoir.types import Floats

pytestmark = [pytest.mark.e2e, pytest.mark.torch, pytest.mark.timeout(180)]

TREE = (
    ("cloud", "cloud", None),
    ("node", "node-1", "cloud"),
    ("device", "dev-1", "node-1"),
    ("device", "dev-2", "node-1"),
    ("device", "dev-3", "node-1"),
    ("device", "dev-4", "cloud"),
)
MEMBERS = [member for _, member, _ in TREE]
DEADLINE_S = 30.0


@pytest.fixture(scope="module")
def fleet(make_fleet: FleetOf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Four devices in rounds without end."""
    with make_fleet(tmp_path_factory.mktemp("faults"), TREE, 1_000_000) as fleet:
        fleet.edit("cloud", "pause_s = 0.0", "pause_s = 0.2")
        fleet.start(*MEMBERS)
        yield fleet


# ---- a device that dies


def test_a_device_killed_in_a_round_is_left_out_and_takes_part_again(
    fleet: Fleet, left_running: LeftRunning
) -> None:
    async def trial() -> None:
        async with fleet.view() as view:
            await view.rounds(2, devices=4)
            killed = fleet.running["dev-2"].pid
            fleet.kill("dev-2")
            await view.is_state("dev-2", MemberState.LOST)
            before = len(view.seen.rounds)
            await view.rounds(2, devices=3)
            for metrics in view.seen.rounds[before:]:
                assert metrics.seconds is not None
                assert metrics.seconds < DEADLINE_S
                assert metrics.outcome == "done" or "dev-2" in (metrics.reason or "")
            # Its training worker has gone with it.
            assert await asyncio.to_thread(left_running, f"--parent {killed}") == []
            fleet.start("dev-2")
            await view.is_state("dev-2", MemberState.ONLINE)
            await view.rounds(2, devices=4)

    asyncio.run(trial())


# ---- a broker that dies


def test_a_broker_that_is_killed_and_comes_back_empty_costs_no_answer_and_no_device(
    fleet: Fleet,
) -> None:
    async def trial() -> None:
        async with fleet.view() as view:
            await view.rounds(1, devices=4)
            fleet.kill("broker")
            fleet.start_broker()
            await view.rounds(2, devices=4)
            for member in MEMBERS:
                await view.until(
                    lambda one=member: (
                        (broker := view.status(one).broker) is not None  # type: ignore[misc]
                        and broker.reconnects >= 1
                    ),
                    f"{member} having come back",
                )
            for member in ("dev-1", "dev-3", "dev-4"):
                inference = view.status(member).inference
                assert inference is not None
                assert inference.missed == 0

    asyncio.run(trial())


# ---- a second process


def second(fleet: Fleet, member: str, state: str | None) -> subprocess.CompletedProcess[str]:
    """Run a member again to its end, with a state directory of its own or the same."""
    config = fleet.seats[member].config
    if state is not None:
        text = config.read_text()
        assert 'state = "state"' in text
        config = config.with_name(f"{state}.toml")
        config.write_text(text.replace('state = "state"', f'state = "{state}"'))
    return subprocess.run(
        [sys.executable, "-m", "edgechoir", fleet.seats[member].tier, str(config)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )


@pytest.mark.parametrize("member", ["dev-1", "node-1"])
def test_a_second_process_of_an_identity_refuses_to_start(fleet: Fleet, member: str) -> None:
    async def trial() -> None:
        async with fleet.view() as view:
            await view.rounds(1, devices=4)
            first = view.status(member)
            done = await asyncio.to_thread(second, fleet, member, "elsewhere")
            assert done.returncode == 1
            assert "Traceback" not in done.stderr
            said = done.stderr.splitlines()[-1]
            assert said.startswith("edgechoir: another process already runs as ")
            assert first.instance in said
            await view.rounds(2, devices=4)
            assert view.status(member).instance == first.instance
            assert view.status(member).state is MemberState.ONLINE

    asyncio.run(trial())


def test_a_second_process_in_the_same_directory_is_refused_at_once(fleet: Fleet) -> None:
    began = time.monotonic()
    done = second(fleet, "dev-1", None)
    assert time.monotonic() - began < 15
    assert done.returncode == 1
    state = fleet.seats["dev-1"].directory / "state"
    assert done.stderr.splitlines() == [
        f"edgechoir: another process uses {state}: stop it, or give this one a state directory "
        "of its own"
    ]


# ---- what members may not say


def chunk(data: bytes) -> bytes:
    """The only chunk of a blob."""
    (only,) = split(data)
    return only


def signer(paths: MemberPaths) -> Signer:
    member = load_member(paths.directory, time.time())
    return Signer(member.key, member.certificate, os.urandom(8))


def of_another_ca() -> Signer:
    """Someone who calls itself dev-9 under a CA of the same federation's name."""
    now = time.time()
    key = new_key(os.urandom)
    ca = create_authority(FEDERATION, os.urandom, now, 7)
    request = make_request(key, FEDERATION, "device", "dev-9")
    return Signer(key, issue(ca, request, "device", now, 7, os.urandom), os.urandom(8))


def captured_upload(fleet: Fleet) -> bytes:
    """An upload as it goes by, read by mosquitto's own client under the node's certificate."""
    command = fleet.mosquitto_client(
        "mosquitto_sub",
        fleet.identity("node-1"),
        *("-q", "1", "-t", f"edgechoir/v1/{FEDERATION}/+/+/up/node-1"),
        *("-F", "%x", "-C", "24", "-W", "30"),
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    for line in done.stdout.split():
        payload = bytes.fromhex(line)
        if is_control(payload):
            continue
        blob = Assembler(1 << 20).feed("up", payload, 0.0)
        if blob is not None and blob[3] == wire.Upload.KIND:
            return blob
    raise AssertionError("no upload among two dozen messages")


def test_bad_messages_to_a_node_are_counted_by_reason_and_rounds_go_on(fleet: Fleet) -> None:
    async def trial() -> None:
        intruder = fleet.intruder
        async with fleet.view() as view:
            await view.rounds(1, devices=4)
            real = await asyncio.to_thread(captured_upload, fleet)
            no = wire.Abort(1, 1, "an intruder")
            own = signer(intruder)
            signed = own.wrap(no.KIND, wire.encode(no), 1)
            stranger = of_another_ca().wrap(no.KIND, wire.encode(no), 1)
            key = new_key(os.urandom)
            payloads = {
                "malformed": [
                    b"no chunk at all",
                    chunk(real)[:-10],
                    chunk(real[: len(real) // 2]),
                    chunk(signed[:-64]),
                    chunk(own.wrap(no.KIND, b"no such body", 2)),
                ],
                "replayed": [chunk(real)],
                "bad_signature": [
                    chunk(signed[:-64] + bytes(64)),
                    chunk(signed[:-64] + sign(key, DOMAIN, signed[:-64])),
                    chunk(real[:-200] + bytes([real[-200] ^ 1]) + real[-199:]),
                ],
                "bad_certificate": [chunk(stranger)],
                "unknown_member": [chunk(own.wrap(no.KIND, wire.encode(no), 3))],
            }
            before = view.status("node-1").drops
            for reason, several in payloads.items():
                for payload in several:
                    where = "device/dev-9/up/node-1"
                    await asyncio.to_thread(fleet.publish, intruder, where, payload)
                await view.dropped("node-1", reason, before.get(reason, 0) + len(several))
            await view.rounds(2, devices=4)

    asyncio.run(trial())


def test_bad_models_to_devices_are_counted_and_the_live_one_goes_on(fleet: Fleet) -> None:
    async def trial() -> None:
        first = load_bundle(fleet.folder / "bundle").params
        not_finite = first.copy()
        not_finite[7] = np.nan
        cloud, node = signer(fleet.identity("cloud")), signer(fleet.identity("node-1"))
        ahead = 1_000_000
        payloads = [
            chunk(cloud.wrap(*model_of(ahead, first, 1, digest=bytes(32)))),
            chunk(cloud.wrap(*model_of(ahead, not_finite, 2))),
            chunk(cloud.wrap(*model_of(ahead, first[:-1], 3))),
            chunk(cloud.wrap(*model_of(0, first, 4))),
            chunk(node.wrap(*model_of(ahead, first, 5))),
        ]
        async with fleet.view() as view:
            await view.rounds(1, devices=4)
            before = view.status("dev-3")
            for payload in payloads:
                where = "node/node-1/model/0"
                await asyncio.to_thread(fleet.publish, fleet.identity("node-1"), where, payload)
            for member in ("dev-1", "dev-2", "dev-3"):
                await view.dropped(member, "bad_model", 4)
                await view.dropped(member, "replayed", 1)
            await view.rounds(2, devices=4)
            now = view.status("dev-3")
            assert before.model is not None
            assert now.model is not None
            assert before.model.version < now.model.version < ahead
            assert now.inference is not None
            assert now.inference.missed == 0

    asyncio.run(trial())


def model_of(
    version: int, weights: Floats, sequence: int, digest: bytes | None = None
) -> tuple[int, bytes, int]:
    """Kind, body and sequence number of a model message."""
    params = weights.astype("<f4").tobytes()
    sha256 = hashlib.sha256(params).digest() if digest is None else digest
    model = wire.Model(version, version, sha256, params, (), 4, 400, 0)
    return model.KIND, wire.encode(model), sequence
