"""The files in `broker_config/` are what the code renders, and it renders nothing dangerous."""

from dataclasses import replace
from pathlib import Path

import pytest

from edgechoir.broker.mosquitto import render_conf
from edgechoir.broker.reference import SETTINGS, main, reference_files
from edgechoir.errors import OperatorError

FOLDER = Path(__file__).parents[2] / "broker_config"


@pytest.mark.parametrize("name", reference_files())
def test_the_reference_file_is_what_the_code_renders(name: str) -> None:
    assert (FOLDER / name).read_text() == reference_files()[name], (
        "run: python -m edgechoir.broker.reference broker_config"
    )


def test_the_command_writes_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["reference", str(tmp_path)])
    main()
    written = {
        str(path.relative_to(tmp_path)): path.read_text()
        for path in tmp_path.rglob("*")
        if path.is_file()
    }
    assert written == reference_files()


@pytest.mark.parametrize("address", ["", "127.0.0.1\nallow_anonymous true", " ::"])
def test_a_value_cannot_smuggle_in_a_line(address: str) -> None:
    with pytest.raises(OperatorError, match="cannot stand in"):
        render_conf(replace(SETTINGS, address=address), place="/etc", user=None)
