"""An error is one line on stderr and an exit status, never a traceback."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CONFIG = """\
federation = "alps"
tier = "node"
member = "node-1"
parent = "cloud"
parent_tier = "cloud"
"""


def test_the_command_and_the_module_are_the_same(alone: dict[str, str]) -> None:
    script = shutil.which("edgechoir", path=str(Path(sys.executable).parent))
    assert script is not None
    said = [
        subprocess.run(
            [*words, "--version"], capture_output=True, text=True, env=alone, timeout=60, check=True
        ).stdout
        for words in ((sys.executable, "-m", "edgechoir"), (script,))
    ]
    assert said[0] == said[1] != ""


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("sing",),
        ("ca",),
        ("ca", "init"),
        ("init", "gateway", "gw-1"),
        ("device",),
        ("demo", "--rounds", "many"),
        ("monitor", "config.toml", "--twice"),
    ],
)
def test_a_wrong_command_line_has_status_2(run: Any, words: tuple[str, ...]) -> None:
    ended = run(*words)
    assert ended.status == 2
    assert ended.err.startswith("usage: edgechoir")
    assert ended.out == ""


@pytest.mark.parametrize("command", ["device", "node", "edge-cloud", "cloud", "monitor"])
def test_a_missing_configuration_has_status_2(run: Any, tmp_path: Path, command: str) -> None:
    ended = run(command, tmp_path / "none.toml")
    assert ended.status == 2
    assert "none.toml: cannot be read (No such file or directory)" in ended.complaint


def test_a_wrong_configuration_is_named_with_its_line(run: Any, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(f"{CONFIG}[broker]\nprot = 1\n")
    ended = run("node", config)
    assert ended.status == 2
    assert ended.complaint.startswith(f"edgechoir: {config}:7: broker.prot is not a key")


def test_the_configuration_of_another_tier_says_which_command_it_is_for(
    run: Any, tmp_path: Path
) -> None:
    config = tmp_path / "node.toml"
    config.write_text(CONFIG)
    ended = run("edge-cloud", config)
    assert ended.status == 2
    assert f"run `edgechoir node {config}`" in ended.complaint


def test_a_member_without_an_identity_has_status_1(run: Any, tmp_path: Path) -> None:
    config = tmp_path / "node.toml"
    config.write_text(CONFIG)
    ended = run("node", config)
    assert ended.status == 1
    assert "enrol this member first with `edgechoir enrol`" in ended.complaint


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("ca", "list", "nowhere"), "registry.json is missing"),
        (("ca", "init", "ca", "--federation", "Alps!", "--no-passphrase"), "not a valid id"),
        (("ca", "init", "ca", "--federation", "alps"), "no terminal to ask at"),
        (("ca", "init", "ca", "--federation", "a", "--passphrase-file", "none"), "No such file"),
        (("ca", "sign", "ca", "none.csr", "--tier", "device"), "none.csr is missing"),
        (("ca", "revoke", "ca", "dev-1", "--no-passphrase"), "cannot work in"),
        (("enrol", "home"), "give --federation, --tier, --member"),
        (("enrol", "home", "--certificate", "x.crt"), "name the CA's with --ca-certificate"),
        (("broker", "nowhere"), "server.key is missing"),
        (("bundle", "verify", "nowhere"), "is not a directory; expected a model bundle"),
        (("demo", "--rounds", "1"), "--rounds is 1, expected 2 to 1000"),
        (("init", "device", "dev-1"), "name it with --parent ID"),
        (("init", "cloud", "cloud", "--parent", "x"), "has no parent: leave --parent out"),
        (("init", "monitor", "eye", "--output", "no/such/folder.toml"), "cannot be written"),
    ],
)
def test_what_cannot_work_is_said_in_one_line(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run(*words)
    assert ended.status == 1
    assert ended.complaint.startswith("edgechoir: ")
    assert said in ended.complaint
