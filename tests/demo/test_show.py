"""The demo touches nothing but its own directory, and says what it cannot do."""

import asyncio
import socket
from pathlib import Path

import pytest

from edgechoir.bundle.load import load_bundle
from edgechoir.demo.show import MARK, Options, bundle_path, fresh, show
from edgechoir.errors import OperatorError
from edgechoir.training.trainer import available


def test_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    directory = fresh(tmp_path / "deep" / "demo")
    (directory / "members").mkdir()
    (directory / "members" / "old").touch()
    assert fresh(directory) == directory
    assert [path.name for path in directory.iterdir()] == [MARK]


def test_an_empty_directory_is_taken(tmp_path: Path) -> None:
    assert fresh(tmp_path) == tmp_path.resolve()


def test_a_directory_with_anything_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(OperatorError, match="holds something else"):
        fresh(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_directory_that_cannot_be_made_is_an_operator_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for directory in (tmp_path / "file", tmp_path / "file" / "demo"):
        with pytest.raises(OperatorError, match=r"cannot be used: Not a directory"):
            fresh(directory)


@pytest.mark.parametrize(("seed", "port"), [(-1, 0), (0, -1), (0, 65536)])
def test_a_seed_or_port_that_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, seed: int, port: int
) -> None:
    options = Options(tmp_path / "demo", 3, "auto", port, seed, None)
    with pytest.raises(OperatorError, match="allowed: 0 and up, and 0 to 65535"):
        asyncio.run(show(options, {}))
    assert not (tmp_path / "demo").exists()


def test_the_bundle_of_the_digits_comes_with_the_package() -> None:
    bundle = load_bundle(bundle_path())
    assert bundle.manifest.input_shape == (64,)
    assert len(bundle.manifest.outputs) == 10


def test_a_broker_that_cannot_start_ends_the_demo_with_its_reason(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    if not available():
        pytest.skip("the extra 'train' is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        port = int(taken.getsockname()[1])
        options = Options(tmp_path / "demo", 3, "auto", port, 0, None)
        with pytest.raises(OperatorError, match=f"127.0.0.1:{port} is taken by another program"):
            asyncio.run(show(options, {}))
