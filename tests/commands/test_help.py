"""The help of every command is as it was last agreed on.

After a change that is meant: EDGECHOIR_SNAPSHOTS=write python -m pytest tests/commands/test_help.py
"""

import argparse
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgechoir import __version__
from edgechoir.cli import parser

SNAPSHOTS = Path(__file__).parent / "snapshots"


def parsers(
    top: argparse.ArgumentParser, words: str = "edgechoir"
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """A command and all beneath it: "edgechoir ca sign", say, and its parser."""
    yield words, top
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, inner in action.choices.items():
                yield from parsers(inner, f"{words} {word}")


def test_every_command_says_what_was_agreed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    said = {f"{words.replace(' ', '-')}.txt": p.format_help() for words, p in parsers(parser())}
    if os.environ.get("EDGECHOIR_SNAPSHOTS") == "write":
        SNAPSHOTS.mkdir(exist_ok=True)
        for old in SNAPSHOTS.glob("*.txt"):
            old.unlink()
        for name, text in said.items():
            (SNAPSHOTS / name).write_text(text)
    assert said == {file.name: file.read_text() for file in SNAPSHOTS.glob("*.txt")}


def test_every_argument_is_explained() -> None:
    silent = [
        f"{words}: {action.dest}"
        for words, each in parsers(parser())
        for action in each._actions
        if not action.help and not isinstance(action, argparse._SubParsersAction)
    ]
    assert silent == []


def test_the_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parser().parse_args(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"edgechoir {__version__}\n"
