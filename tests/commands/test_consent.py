"""`edgechoir consent` shows what was asked, and says what the owner wants."""

import json
from pathlib import Path

import pytest

from edgechoir.cli import main
from edgechoir.tiers.consent import ASKED, read_word

HASH = "ab12" * 16


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Of a device that was asked for a histogram."""
    question = {
        "hash": HASH,
        "kind": "histo\x1b[2J",
        "about": '"bins": 4',
        "first": 1e9,
        "last": 1e9,
        "times": 2,
        "decision": "declined",
        "reason": "the owner has not approved histogram",
    }
    document = {"questions": [question], "answered": [1e9]}
    (tmp_path / ASKED).write_text(json.dumps(document))
    return tmp_path


def test_an_owner_sees_what_was_asked_and_decides(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ("--state", str(state))
    assert main(["consent", "list", *here]) == 0
    shown = capsys.readouterr().out
    assert HASH[:12] in shown
    assert "declined" in shown
    assert "2001-09-09" in shown
    assert "\x1b" not in shown
    assert main(["consent", "approve", HASH[:12], *here]) == 0
    assert read_word(state).approved == (HASH,)
    assert main(["consent", "withdraw", *here]) == 0
    assert read_word(state).withdrawn
    capsys.readouterr()
    assert main(["consent", "list", *here]) == 0
    assert capsys.readouterr().out.startswith("withdrawn: everything is declined")
    assert main(["consent", "list", "--json", *here]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["withdrawn"]
    assert document["approved"] == [HASH]
    assert document["questions"][0]["times"] == 2
    assert main(["consent", "resume", *here]) == 0
    assert main(["consent", "revoke", HASH[:6], *here]) == 0
    assert read_word(state).approved == ()
    assert not read_word(state).withdrawn


def test_what_cannot_be_is_one_line_and_a_status(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["consent", "approve", "ffffff", "--state", str(state)]) == 1
    assert main(["consent", "revoke", "ffffff", "--state", str(state)]) == 1
    assert main(["consent", "list", "--state", str(state / "none")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 3
