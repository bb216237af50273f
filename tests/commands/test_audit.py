"""`edgechoir audit` on the log of a member."""

import json
import time
from pathlib import Path
from typing import Any

from edgechoir.config.reading import load
from edgechoir.fleet.audit import Audit
from edgechoir.fleet.enrolment import load_member
from edgechoir.tiers.process import audit_of


def log_of(config_path: Path) -> Audit:
    config: Any = load(config_path)
    config.state.mkdir(mode=0o700)
    return audit_of(config, load_member(config.identity, time.time()))


def test_a_log_is_verified_against_the_fleets_ca(run: Any, site: Any) -> None:
    config = site.member("device", "dev-1", "node-1")
    log = log_of(config)
    log.record("joined", member="device/dev-2")
    log.close()
    said = run.good("audit", "verify", "--config", config)
    assert said.startswith("the log holds: 4 records in 1 files, number 0 to 3, 2 seals of ")
    assert "not checked" not in said
    state = config.parent / "state"
    assert "not checked" in run.good("audit", "verify", "--state", state)
    document = json.loads(
        run.good("audit", "verify", "--state", state, "--ca", site.ca / "ca.crt", "--json")
    )
    assert (document["holds"], document["signer"]) == (True, "device/dev-1")
    assert document["signer_checked"] is True
    assert document["head"] == log.figures()["head"]


def test_a_changed_record_is_named_by_its_line(run: Any, site: Any) -> None:
    config = site.member("device", "dev-1", "node-1")
    log = log_of(config)
    log.record("joined", member="device/dev-2")
    log.close()
    (file,) = (config.parent / "state" / "audit").glob("*.log")
    file.write_bytes(file.read_bytes().replace(b"dev-2", b"dev-3"))
    ended = run("audit", "verify", "--config", config)
    assert ended.status == 1
    assert "wrong  000000000000.log:3: record 2 ('joined') was changed" in ended.out
    assert ended.out.splitlines()[-2].startswith("1 wrong: ")


def test_doctor_looks_at_the_log(run: Any, site: Any) -> None:
    config = site.member("device", "dev-1", "node-1")
    assert "audit log" not in run.findings(config)
    log = log_of(config)
    log.record("joined", member="device/dev-2")
    log.close()
    assert run.findings(config)["audit log"]["seen"] == "4 records, the chain holds"
    (file,) = (config.parent / "state" / "audit").glob("*.log")
    file.write_bytes(file.read_bytes().replace(b"dev-2", b"dev-3"))
    assert run.findings(config)["audit log"]["level"] == "note"


def test_a_log_cut_off_is_found_by_a_head_seen_before(run: Any, site: Any) -> None:
    config = site.member("device", "dev-1", "node-1")
    log = log_of(config)
    log.record("joined", member="device/dev-2")
    log.close()
    head = log.figures()["head"]
    run.good("audit", "verify", "--config", config, "--head", head)
    (file,) = (config.parent / "state" / "audit").glob("*.log")
    file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-2]))
    run.good("audit", "verify", "--config", config)
    ended = run("audit", "verify", "--config", config, "--head", head)
    assert (ended.status, "the log was cut off before it" in ended.out) == (1, True)


def test_records_are_shown_and_chosen(run: Any, site: Any) -> None:
    config = site.member("device", "dev-1", "node-1")
    log = log_of(config)
    log.record("joined", member="device/dev-2\x1b[2J")
    log.record("left", member="device/dev-2")
    log.close()
    where = ("audit", "show", "--config", config)
    assert len(run.good(*where).splitlines()) == 5
    (line,) = run.good(*where, "--kind", "joined").splitlines()
    assert line.endswith('joined     member="device/dev-2\\u001b[2J"')
    (line,) = run.good(*where, "--kind", "left", "--kind", "joined", "--last", "1").splitlines()
    assert "left" in line
    documents = [json.loads(line) for line in run.good(*where, "--json").splitlines()]
    assert [document["kind"] for document in documents] == [
        "signer",
        "seal",
        "joined",
        "left",
        "seal",
    ]


def test_a_member_without_a_log_is_said_to_have_none(run: Any, site: Any) -> None:
    config = site.member("device", "dev-1", "node-1")
    ended = run("audit", "verify", "--config", config)
    assert (ended.status, "holds no audit log" in ended.complaint) == (1, True)
    eye = site.member("monitor", "eye")
    ended = run("audit", "show", "--config", eye)
    assert (ended.status, "keeps no audit log" in ended.complaint) == (1, True)
