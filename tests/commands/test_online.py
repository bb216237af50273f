"""Enrolment over the network, by the commands that people type."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgechoir.fleet.enrolment import load_member


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(ca: Path, port: int, *words: str) -> Iterator[None]:
    """`edgechoir ca serve`, from the line that says it is up until it has ended cleanly."""
    command = [sys.executable, "-m", "edgechoir", "ca", "serve", str(ca), "--host", "127.0.0.1"]
    command += ["--address", "127.0.0.1", "--port", str(port), "--no-passphrase", *words]
    log = ca.parent / "serve.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        assert process.stdout is not None
        try:
            said = process.stdout.readline().decode()
            assert said == f"enrolment of alps on https://127.0.0.1:{port}\n", log.read_text()
            yield
        finally:
            process.terminate()
            status = process.wait(30)
    assert status == 0, log.read_text()


@pytest.mark.e2e
def test_a_machine_enrols_and_renews_with_nothing_but_a_token(
    run: Any, site: Any, tmp_path: Path
) -> None:
    port, home, copies = free_port(), tmp_path / "dev-1", tmp_path / "copies"
    url = f"https://127.0.0.1:{port}"
    asked = ("ca", "token", site.ca, "--member", "dev-1", "--tier", "device")
    token = run.good(*asked, "--parent", "node-1", "--url", url, "--days", "90").strip()
    assert token.startswith("ect1.")
    assert "device/dev-1 has a token that is open for 24.0 more hours" in run.good(
        "ca", "list", site.ca
    )
    copies.mkdir()
    with serving(site.ca, port, "--after", f"cp {site.ca}/registry.json {copies}"):
        said = run.good("enrol", home, "--token", token)
        assert said.splitlines() == [
            f"device/dev-1 is enrolled in {home}",
            "next: edgechoir init device dev-1 --federation alps --parent node-1",
        ]
        member = load_member(home, time.time())
        assert member.policy.min_devices == 5
        assert "has its newest certificate already" in run.good("enrol", home, "--renew")
        said = run.good("enrol", home, "--renew", "--new-key")
        assert said.startswith("device/dev-1 has a new certificate, valid until ")
        renewed = load_member(home, time.time())
        assert renewed.certificate.public_key != member.certificate.public_key
        (tmp_path / "token").write_text(token + "\n")
        ended = run("enrol", tmp_path / "thief", "--token", f"@{tmp_path / 'token'}")
        assert (ended.status, "used already, with another key" in ended.complaint) == (1, True)
        run.good("ca", "revoke", site.ca, "dev-1", "--no-passphrase")
        ended = run("enrol", home, "--renew")
        assert (ended.status, "was revoked: enrol it anew" in ended.complaint) == (1, True)
    registry = json.loads((copies / "registry.json").read_text())
    assert [record["member"] for record in registry["members"]] == ["broker", "dev-1"]
    said = run.good("audit", "show", "--state", site.ca)
    assert "enrolled" in said
    run.good("audit", "verify", "--state", site.ca, "--ca", site.ca / "ca.crt")


def test_an_endpoint_that_is_away_is_named_in_one_line(run: Any, site: Any, tmp_path: Path) -> None:
    url = f"https://127.0.0.1:{free_port()}"
    asked = ("--member", "dev-1", "--tier", "device", "--url", url)
    token = run.good("ca", "token", site.ca, *asked).strip()
    ended = run("enrol", tmp_path / "dev-1", "--token", token)
    assert (ended.status, ended.complaint.startswith(f"edgechoir: {url}: ")) == (1, True)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (("--token", "nonsense"), "that is no token"),
        (("--token", "x", "--renew"), "not both"),
        (("--new-key",), "goes with --renew"),
        (("--renew",), "enrol this member first"),
    ],
)
def test_what_cannot_be_meant_is_said(
    run: Any, tmp_path: Path, words: tuple[str, ...], complaint: str
) -> None:
    ended = run("enrol", tmp_path / "home", *words)
    assert (ended.status, complaint in ended.complaint) == (1, True)


def test_a_member_enrolled_by_hand_must_be_told_where_to_renew(run: Any, site: Any) -> None:
    home = site.member("device", "dev-1", "node-1").parent / "identity"
    ended = run("enrol", home, "--renew")
    assert (ended.status, "give --url https://" in ended.complaint) == (1, True)


def test_a_token_of_another_member_is_not_used(run: Any, site: Any, tmp_path: Path) -> None:
    url = ("--url", "https://127.0.0.1:1")
    token = run.good("ca", "token", site.ca, "--member", "dev-1", "--tier", "device", *url).strip()
    ended = run("enrol", tmp_path / "dev-2", "--token", token, "--member", "dev-2")
    assert ended.complaint == "edgechoir: --member dev-2: the token is for dev-1"


def test_doctor_says_how_the_certificate_is_renewed_and_whether_it_is_revoked(
    run: Any, site: Any
) -> None:
    url = '"https://127.0.0.1:1"'
    config = site.member("device", "dev-1", "node-1")
    text = config.read_text().replace(
        '# enrolment_url = "https://ca.plant.lan:8884"', f"enrolment_url = {url}"
    )
    config.write_text(text)
    found = run.findings(config)
    assert "renews itself from" in found["certificate"]["seen"]
    assert "revocations" not in found
    run.good("ca", "revoke", site.ca, "dev-1", "--no-passphrase")
    crl = config.parent / "identity" / "ca.crl"
    crl.write_bytes((site.ca / "ca.crl").read_bytes())
    assert run.findings(config)["revocations"] == {
        "level": "wrong",
        "what": "revocations",
        "seen": "this member's certificate was revoked",
        "advice": "enrol it anew",
    }
    crl.write_text("nothing")
    assert run.findings(config)["revocations"]["level"] == "wrong"
