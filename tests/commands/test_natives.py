"""A library that does not run here is a message, and one that does is imported once more only."""

import signal
from pathlib import Path

import pytest

from edgechoir.commands.natives import MARK, check_natives
from edgechoir.errors import OperatorError

CONFIG = 'state = "kept"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "kept").mkdir()
    path = tmp_path / "config.toml"
    path.write_text(CONFIG)
    return path


def counting(path: Path) -> dict[str, str]:
    """A library whose import leaves a trace."""
    return {"numpy": f"open({str(path)!r}, 'a').write('x')"}


def test_what_went_well_is_not_tried_again(config: Path, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    check_natives(config, counting(trace))
    check_natives(config, counting(trace))
    assert trace.read_text() == "x"
    (tmp_path / "kept" / MARK).write_text("of another CPU")
    check_natives(config, counting(trace))
    assert trace.read_text() == "xx"


def test_an_illegal_instruction_becomes_a_message(config: Path, tmp_path: Path) -> None:
    died = {"onnxruntime": f"import os; os.kill(os.getpid(), {signal.SIGILL.value})"}
    with pytest.raises(OperatorError, match=r"onnxruntime cannot be used: .*illegal instruction"):
        check_natives(config, died)
    assert not (tmp_path / "kept" / MARK).exists()


def test_a_missing_library_becomes_a_message(config: Path) -> None:
    with pytest.raises(OperatorError, match="No module named 'no_such_library'"):
        check_natives(config, {"numpy": "import no_such_library"})


def test_a_file_that_cannot_be_read_is_left_to_its_reader(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for text in ("state = ", "state = 3"):
        (tmp_path / "bad.toml").write_text(text)
        check_natives(tmp_path / "bad.toml", counting(trace))
    check_natives(tmp_path / "none.toml", counting(trace))
    assert trace.read_text() == "xxx"
