"""`edgechoir doctor` finds what would keep a member from working, and says what to do."""

import asyncio
import fcntl
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgechoir.commands.checkup import check_up, identity
from edgechoir.commands.finding import Finding, Level
from edgechoir.config import DeviceConfig, load, load_for
from edgechoir.monitor.status import MemberState

DAY = 86_400.0


def samples(home: Path, n: int = 40, width: int = 64, y: int = 3) -> None:
    np.savez(home / "samples.npz", x=np.ones((n, width), np.float32), y=np.full(n, y))


@pytest.fixture
def device(site: Any) -> Path:
    """A device whose files are all good; no broker runs."""
    config: Path = site.member("device", "dev-1", "node-1")
    samples(config.parent)
    return config


def levels(found: dict[str, dict[str, str]], level: str) -> set[str]:
    return {what for what, each in found.items() if each["level"] == level}


def with_lines(config: Path, *lines: str) -> Path:
    config.write_text(config.read_text() + "\n".join(["", *lines, ""]))
    return config


def test_everything_but_the_broker_is_good(run: Any, device: Path) -> None:
    found = run.findings(device)
    assert levels(found, "wrong") == {"broker"}
    assert levels(found, "good") >= {
        *("configuration", "identity", "certificate", "model", "state", "disk", "sensor")
    }
    assert found["sensor"]["seen"].endswith("samples.npz: 40 samples of [64]")
    assert "it refused the connection: is the broker running" in found["broker"]["seen"]


def test_a_device_needs_onnxruntime(
    run: Any, device: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "onnxruntime" in levels(run.findings(device), "wrong")


def test_looking_changes_nothing(run: Any, device: Path) -> None:
    def files() -> set[tuple[str, float]]:
        return {(str(p), p.stat().st_mtime) for p in device.parent.rglob("*")}

    before = files()
    run.findings(device)
    assert files() == before


def test_people_get_one_line_each_in_the_order_of_looking(run: Any, device: Path) -> None:
    ended = run("doctor", device)
    assert (ended.status, ended.err) == (1, "")
    lines = ended.out.splitlines()
    assert {line[:5].strip() for line in lines} <= {"good", "note", "wrong"}
    assert lines[0].startswith(" good  python: ")
    assert lines[-1].startswith("wrong  broker: ")


def test_each_wrong_line_of_a_configuration_is_a_finding(run: Any, tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('federation = "alps"\ntier = "node"\nmember = "N"\nparent = 3\n')
    ended = run("doctor", config, "--json")
    assert ended.status == 1
    said = [f["seen"] for f in json.loads(ended.out) if f["what"] == "configuration"]
    assert [line.split(": ")[0] for line in said] == [f"{config}:3", f"{config}:4"]


def test_a_member_that_is_not_enrolled_is_told_how(run: Any, device: Path) -> None:
    shutil.rmtree(device.parent / "identity")
    found = run.findings(device)
    assert "enrol this member first with `edgechoir enrol`" in found["identity"]["seen"]
    assert "broker" not in found


def test_the_identity_of_another_member_is_wrong(run: Any, site: Any, device: Path) -> None:
    other = site.member("device", "dev-2", "node-1")
    shutil.rmtree(device.parent / "identity")
    shutil.copytree(other.parent / "identity", device.parent / "identity")
    found = run.findings(device)
    assert "holds the identity of alps/device/dev-2" in found["identity"]["seen"]


def test_a_key_that_others_can_read_is_wrong(run: Any, device: Path) -> None:
    (device.parent / "identity" / "member.key").chmod(0o640)
    found = run.findings(device)
    assert found["identity"]["level"] == "good"
    assert "has mode 0640" in found["key file"]["seen"]
    assert found["key file"]["level"] == "wrong"


def test_the_policy_is_the_pinned_one_or_the_built_in(run: Any, device: Path) -> None:
    found = run.findings(device)["policy"]
    assert found["level"] == "good"
    assert found["seen"].startswith("signed by the CA: a sum has at least 2 members and 5 devices")
    policy = device.parent / "identity" / "policy"
    signed = policy.read_text()
    policy.write_text(signed.replace('"min_devices": 5', '"min_devices": 2'))
    found = run.findings(device)["identity"]
    assert found["level"] == "wrong"
    assert "get the policy file from the CA's directory again" in found["seen"]
    policy.unlink()
    found = run.findings(device)["policy"]
    assert found["level"] == "note"
    assert found["seen"].startswith("none is pinned, so a sum has at least 2 members and 3 devices")


@pytest.mark.parametrize(
    ("days", "what", "level", "said"),
    [
        (-1, "clock", Level.WRONG, "is before the certificate begins"),
        (0, "certificate", Level.GOOD, "365 days"),
        (340, "certificate", Level.NOTE, "25 days"),
        (366, "identity", Level.WRONG, "expired"),
    ],
)
def test_a_certificate_is_judged_by_the_clock(
    device: Path, days: int, what: str, level: Level, said: str
) -> None:
    findings, member = identity(load(device), time.time() + days * DAY)
    found = {finding.what: finding for finding in findings}
    assert (found[what].level, said in found[what].seen) == (level, True)
    assert (member is None) == (level is Level.WRONG)


def test_a_state_directory_in_use_is_noted(run: Any, device: Path) -> None:
    state = device.parent / "state"
    state.mkdir()
    assert run.findings(device)["state"]["level"] == "good"
    lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT)
    try:
        assert run.findings(device)["state"]["level"] == "good"
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = run.findings(device)["state"]
    finally:
        os.close(lock)
    assert found["level"] == "note"
    assert "this member runs, a second will not start" in found["seen"]


def test_a_state_that_is_a_file_is_wrong(run: Any, device: Path) -> None:
    (device.parent / "state").write_text("")
    assert run.findings(device)["state"]["level"] == "wrong"


def test_a_damaged_model_is_wrong(run: Any, site: Any, tmp_path: Path) -> None:
    config = site.member("device", "dev-1", "node-1")
    bundle = load_for(config, DeviceConfig).model.bundle
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    (copy / "params.bin").write_bytes(bytes(9640))
    config.write_text(config.read_text().replace(str(bundle), str(copy)))
    assert "parameters hash to" in run.findings(config)["model"]["seen"]


@pytest.mark.parametrize(
    ("given", "level", "said"),
    [
        ({"width": 8}, "wrong", "the model takes [64]"),
        ({"y": 10}, "wrong", "the model's classes are 0 to 9"),
        ({"n": 5}, "note", "with fewer than 32 this device sits rounds out"),
    ],
)
def test_samples_that_the_model_cannot_use_are_found(
    run: Any, device: Path, given: dict[str, int], level: str, said: str
) -> None:
    samples(device.parent, **given)
    found = run.findings(device)["sensor"]
    assert (found["level"], found["advice"]) == (level, said)


def test_a_missing_recording_is_wrong(run: Any, device: Path) -> None:
    (device.parent / "samples.npz").unlink()
    found = run.findings(device)["sensor"]
    assert found["level"] == "wrong"
    assert "cannot be replayed" in found["seen"]


def replace_sensor(config: Path, *lines: str) -> None:
    head, _, rest = config.read_text().partition("\n[sensor]\n")
    config.write_text(
        "\n".join([head, "[sensor]", *lines, "", rest[rest.index("[sensor.check]") :]])
    )


def test_a_function_is_imported_by_the_path_of_this_process(
    run: Any, device: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_sensor(device, 'source = "python"', 'call = "mysensor:read"')
    found = run.findings(device)["sensor"]
    assert found["level"] == "wrong"
    assert "'mysensor:read' cannot be imported: No module named 'mysensor'" in found["seen"]
    (tmp_path / "mysensor.py").write_text("def read():\n    yield 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = run.findings(device)["sensor"]
    assert (found["level"], found["seen"]) == ("good", "mysensor:read can be imported")


def test_a_sensors_broker_that_is_away_is_wrong(run: Any, site: Any, device: Path) -> None:
    replace_sensor(device, 'source = "mqtt"', 'topic = "line-1"', f"port = {site.port}")
    found = run.findings(device)["sensor"]
    assert found["level"] == "wrong"
    assert "it refused the connection" in found["seen"]


def test_the_pipeline_is_built(run: Any, device: Path) -> None:
    with_lines(device, "[[pipeline]]", 'op = "scale"', "factor = 0.5")
    assert run.findings(device)["pipeline"]["seen"] == "scale, infer"
    with_lines(device, "[[pipeline]]", 'op = "smooth"')
    found = run.findings(device)["pipeline"]
    assert found["level"] == "wrong"
    assert "operator 2: unknown op 'smooth'" in found["seen"]


def test_a_trace_is_pointed_out(run: Any, device: Path) -> None:
    with_lines(device, "[trace]", 'directory = "trace"')
    assert run.findings(device)["trace"]["level"] == "note"


def test_every_other_tier_can_be_looked_at(run: Any, site: Any) -> None:
    for tier, member, parent in (
        ("cloud", "cloud", None),
        ("edge-cloud", "edge-1", "cloud"),
        ("node", "node-1", "edge-1"),
        ("monitor", "eye", None),
    ):
        found = run.findings(site.member(tier, member, parent))
        assert levels(found, "wrong") == {"broker"}
        assert levels(found, "note") == set()
        assert ("state" in found) == (tier != "monitor")
        assert ("model" in found) == (tier == "cloud")


@pytest.mark.e2e
def test_with_a_broker_everything_is_good(run: Any, site: Any, device: Path) -> None:
    node = site.member("node", "node-1", "edge-1")
    eye = site.member("monitor", "eye")
    with site.broker():
        found = run.findings(device)
        assert levels(found, "wrong") == set()
        assert "connected with MQTT 5 over TLSv1.3" in found["broker"]["seen"]
        assert found["own status"]["seen"] == "readable; none has been published yet"
        assert found["parent"]["level"] == "note"
        assert found["parent"]["seen"] == "node/node-1 has published no status"

        site.publish(node, state=MemberState.ONLINE)
        site.publish(device, state=MemberState.LOST)
        found = run.findings(device)
        assert found["parent"]["level"] == "good"
        assert found["parent"]["seen"].startswith("node/node-1 is online since ")
        assert found["own status"]["level"] == "note"
        assert found["own status"]["seen"].startswith("lost since ")

        site.publish(node, state=MemberState.STOPPED)
        assert run.findings(device)["parent"]["level"] == "note"
        said = run.findings(eye)["status topics"]["seen"]
        assert said == "readable, 2 members have published one"


@pytest.mark.e2e
def test_a_revoked_member_is_told_so(run: Any, site: Any, device: Path) -> None:
    run.good("ca", "revoke", site.ca, "dev-1", "--no-passphrase")
    with site.broker():
        found = run.findings(device)["broker"]
    assert found["level"] == "wrong"
    assert "it refused our certificate as revoked" in found["seen"]


@pytest.mark.e2e
def test_a_broker_under_another_name_is_refused(run: Any, site: Any) -> None:
    config = site.member("monitor", "eye", None, host='"localhost"')
    with site.broker():
        found = run.findings(config)["broker"]
    assert found["level"] == "wrong"
    assert "its certificate is for another name" in found["seen"]


def test_findings_come_one_by_one(device: Path) -> None:
    """The first is there before anything slow has begun."""

    async def first() -> Finding:
        findings = check_up(device)
        async for finding in findings:
            await findings.aclose()  # type: ignore[attr-defined]
            return finding
        raise AssertionError("nothing was found")

    assert asyncio.run(first()).what == "python"


def test_the_key_of_encrypted_samples_is_looked_at(run: Any, device: Path) -> None:
    assert run.findings(device)["samples"]["level"] == "good"
    text = device.read_text()
    assert "encrypt = false" in text
    device.write_text(text.replace("encrypt = false", "encrypt = true\nhours = 24.0"))
    found = run.findings(device)["samples"]
    assert (found["level"], "made at the first start" in found["seen"]) == ("good", True)
    assert "no older than 24 hours" in found["seen"]

    key = device.parent / "identity" / "samples.key"
    key.write_text("00" * 32)
    key.chmod(0o600)
    (device.parent / "state").mkdir()
    found = run.findings(device)["samples"]
    assert (found["level"], "the same disk" in found["seen"]) == ("note", True)

    key.chmod(0o644)
    assert "others can read it" in run.findings(device)["samples"]["seen"]
    key.unlink()
    (device.parent / "state" / "samples.db").touch()
    assert "put the key back" in run.findings(device)["samples"]["seen"]


def test_the_model_is_asked_once_as_the_device_would(run: Any, device: Path) -> None:
    found = run.findings(device)["inference"]
    assert found["level"] == "good"
    assert found["seen"].startswith("CPUExecutionProvider answers in ")


def test_a_provider_that_is_not_there_is_wrong(run: Any, device: Path) -> None:
    wanted = 'providers = ["TensorrtExecutionProvider"]'
    device.write_text(device.read_text().replace("providers = []", wanted))
    found = run.findings(device)["inference"]
    assert found["level"] == "wrong"
    assert "'TensorrtExecutionProvider' is not usable here" in found["seen"]
