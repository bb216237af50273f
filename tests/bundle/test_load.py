"""What is not exactly a sound bundle is refused, and the refusal names the file."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.bundle.load import check_bundle, load_bundle
from edgechoir.bundle.manifest import FILES, MANIFEST, MAX_BYTES
from edgechoir.errors import BadModel, OperatorError

DIGITS = Path(__file__).parents[2] / "models" / "digits" / "bundle"
GOOD = {name: (DIGITS / name).read_bytes() for name in (MANIFEST, *FILES)}


def rehashed(name: str, data: bytes) -> dict[str, bytes]:
    """The digits bundle with one file replaced and the manifest saying so."""
    manifest = json.loads(GOOD[MANIFEST])
    manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
    return {**GOOD, name: data, MANIFEST: json.dumps(manifest).encode()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the digits bundle to spoil."""
    return Path(shutil.copytree(DIGITS, tmp_path / "bundle"))


def test_the_digits_bundle_loads() -> None:
    bundle = load_bundle(DIGITS)
    assert bundle.params.shape == (bundle.manifest.size,)
    assert bundle.digest == hashlib.sha256(GOOD[MANIFEST]).hexdigest()
    assert bundle.onnx == GOOD["infer.onnx"]


def test_a_path_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="not a directory"):
        load_bundle(tmp_path / "missing")
    with pytest.raises(OperatorError, match=r"manifest\.json"):
        load_bundle(tmp_path)


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(OperatorError, match=name):
        load_bundle(folder)


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_is_seen(name: str) -> None:
    spoiled = bytearray(GOOD[name])
    spoiled[len(spoiled) // 2] ^= 1
    with pytest.raises(BadModel, match="hash"):
        check_bundle({**GOOD, name: bytes(spoiled)}, DIGITS)


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
def test_a_link_is_refused_wherever_it_points(name: str, folder: Path) -> None:
    (folder / name).rename(folder / "elsewhere")
    (folder / name).symlink_to("elsewhere")
    with pytest.raises(OperatorError, match=name):
        load_bundle(folder)


def test_what_is_no_plain_file_is_refused_and_not_waited_for(folder: Path) -> None:
    (folder / "params.bin").unlink()
    os.mkfifo(folder / "params.bin")
    with pytest.raises(BadModel, match="not a plain file"):
        load_bundle(folder)


def test_a_file_over_its_cap_is_refused(folder: Path) -> None:
    with (folder / "infer.onnx").open("r+b") as file:
        file.truncate(MAX_BYTES["infer.onnx"] + 1)
    with pytest.raises(BadModel, match=r"infer\.onnx: over"):
        load_bundle(folder)


def test_other_files_are_refused() -> None:
    with pytest.raises(BadModel, match="model\\.pkl"):
        check_bundle({**GOOD, "model.pkl": b""}, DIGITS)


def test_parameters_that_are_not_finite_are_refused() -> None:
    params = np.frombuffer(GOOD["params.bin"], "<f4").copy()
    params[7] = np.nan
    with pytest.raises(BadModel, match="parameter 7 is nan"):
        check_bundle(rehashed("params.bin", params.tobytes()), DIGITS)


def test_parameters_of_another_length_are_refused() -> None:
    with pytest.raises(BadModel, match="9636 bytes of parameters, expected 9640"):
        check_bundle(rehashed("params.bin", GOOD["params.bin"][:-4]), DIGITS)


def test_a_graph_of_another_shape_is_refused() -> None:
    graph = GOOD["graph.json"].replace(b'"output": "linear_1"', b'"output": "relu"')
    with pytest.raises(BadModel, match=r"output has shape \(2, 32\)"):
        check_bundle(rehashed("graph.json", graph), DIGITS)


@given(name=st.sampled_from(FILES), data=st.data())
@settings(max_examples=300)
def test_any_change_is_taken_or_refused_cleanly(name: str, data: st.DataObject) -> None:
    spoiled = bytearray(GOOD[name])
    match data.draw(st.sampled_from(["change", "cut", "insert"])):
        case "change":
            spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
        case "cut":
            del spoiled[data.draw(st.integers(0, len(spoiled) - 1)) :]
        case _:
            at = data.draw(st.integers(0, len(spoiled)))
            spoiled[at:at] = data.draw(st.binary(min_size=1, max_size=20))
    try:
        bundle = check_bundle(rehashed(name, bytes(spoiled)), DIGITS)
    except BadModel:
        return
    assert np.isfinite(bundle.params).all()


def test_loading_imports_nothing_heavy() -> None:
    heavy = ("torch", "onnx", "onnxscript", "onnxruntime", "sklearn", "matplotlib", "rich")
    program = (
        "import sys, edgechoir.bundle.load, edgechoir.training.trainer\n"
        f"edgechoir.bundle.load.load_bundle({str(DIGITS)!r})\n"
        "edgechoir.training.trainer.available()\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
