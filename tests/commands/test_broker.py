"""`edgechoir broker`: its three actions, and the short form of the first."""

import json
import os
import time
from pathlib import Path

import pytest

from edgechoir.cli import main
from edgechoir.commands.broker import MAKES as WORDS
from edgechoir.commands.broker import with_action
from edgechoir.fleet.authority_dir import init_authority, issue_broker_files, sign_request
from edgechoir.fleet.enrolment import install_certificate, make_request


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A broker's folder of a fleet with a device and a bridge."""
    now, ca = time.time(), tmp_path / "ca"
    init_authority(ca, "alps", now, 365, os.urandom, None)
    files = issue_broker_files(ca, ["localhost"], now, 90, os.urandom, None)
    for tier, member in (("device", "dev-1"), ("node", "node-1"), ("bridge", "site-a")):
        request = make_request(tmp_path / member, "alps", member, tier, os.urandom).read_bytes()
        issued = sign_request(ca, request, tier, now, 90, os.urandom, None)
        install_certificate(tmp_path / member, issued.pem, (ca / "ca.crt").read_bytes(), now)
    return files.directory


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (["broker", "ca/broker"], ["broker", "run", "ca/broker"]),
        (["broker", "--port", "1", "x"], ["broker", "run", "--port", "1", "x"]),
        (["broker", "check", "x"], ["broker", "check", "x"]),
        (["broker", "--help"], ["broker", "--help"]),
        (["broker"], ["broker"]),
        (["doctor", "broker"], ["doctor", "broker"]),
        ([], []),
    ],
)
def test_a_folder_alone_means_to_run_it(given: list[str], meant: list[str]) -> None:
    assert with_action(given) == meant


def test_the_makes_on_the_command_line_are_those_that_can_be_generated() -> None:
    from edgechoir.broker.generate import MAKES

    assert tuple(MAKES) == WORDS


def test_what_is_generated_passes_the_check(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["broker", "generate", str(folder), "--for", "mosquitto", "--out", str(out)]
    assert main(command) == 0
    assert capsys.readouterr().out.split() == [str(out / "mosquitto.conf"), str(out / "acl")]
    assert f"acl_file {out}/acl" in (out / "mosquitto.conf").read_text()
    assert main(["broker", "check", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []
    (out / "mosquitto.conf").write_text("listener 1883\nallow_anonymous true\n")
    assert main(["broker", "check", str(out)]) == 1
    said = capsys.readouterr().out
    assert f"wrong  {out}/mosquitto.conf:2: allow_anonymous true; expected false;" in said
    assert said.endswith("6 wrong, 5 to note\n")


def test_a_bridge_is_generated_with_its_identity(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bridges.toml").write_text(
        '[site-a]\nchildren = { "node/node-1" = ["device/dev-1"] }\n'
    )
    out = tmp_path / "out"
    command = ["broker", "generate", str(folder), "--for", "bridge", "--out", str(out)]
    assert main(command) == 1
    assert "a bridge needs --bridge, --upper and --identity" in capsys.readouterr().err
    command += ["--bridge", "site-a", "--identity", str(tmp_path / "site-a"), "--upper"]
    assert main([*command, "hub"]) == 1
    assert "--upper 'hub', expected HOST:PORT" in capsys.readouterr().err
    assert main([*command, "hub.plant.lan:8883"]) == 0
    conf = (out / "mosquitto.conf").read_text()
    assert "\naddress hub.plant.lan:8883\n" in conf
    assert f"\nbridge_keyfile {tmp_path}/site-a/member.key\n" in conf
    assert main(["broker", "check", str(out)]) == 0
    assert main([*command[:-1]]) == 1
    assert "takes all three" in capsys.readouterr().err
