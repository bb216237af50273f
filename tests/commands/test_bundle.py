"""A bundle is verified before it is shipped, and built from a model file."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from edgechoir.bundle.load import load_bundle
from edgechoir.bundle.manifest import Preprocessing
from edgechoir.bundle.rewrite import write_with

BUNDLE = Path(__file__).parents[2] / "models" / "digits" / "bundle"
MODEL = """\
from torch import nn

META = {
    "name": "tiny",
    "task": "regression",
    "input": [3],
    "outputs": ["celsius"],
}


def model() -> nn.Module:
    return nn.Linear(3, 1)
"""


def test_the_digits_bundle_is_sound(run: Any) -> None:
    said = run.good("bundle", "verify", BUNDLE)
    assert said == (
        f"{BUNDLE}: sound. digits, classification, 2410 parameters, inputs [64], 10 outputs\n"
    )


def test_a_program_gets_the_manifest(run: Any) -> None:
    said = json.loads(run.good("bundle", "verify", BUNDLE, "--json"))
    written = json.loads((BUNDLE / "manifest.json").read_text())
    assert {key: said[key] for key in written} == written  # and the defaults of newer keys


def test_one_changed_byte_is_found(run: Any, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(BUNDLE, copy)
    params = bytearray((copy / "params.bin").read_bytes())
    params[100] ^= 1
    (copy / "params.bin").write_bytes(params)
    ended = run("bundle", "verify", copy)
    assert ended.status == 1
    assert f"{copy}: digits: parameters hash to " in ended.complaint


@pytest.mark.torch
def test_a_model_file_becomes_a_sound_bundle(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "tiny.py").write_text(MODEL)
    said = run.good("bundle", "build", tmp_path / "tiny.py", tmp_path / "out")
    assert said == f"{tmp_path / 'out'}: tiny, 4 parameters\n"
    said = run.good("bundle", "verify", tmp_path / "out")
    assert said.endswith("sound. tiny, regression, 4 parameters, inputs [3], 1 outputs\n")


@pytest.mark.torch
def test_a_file_that_is_no_model_is_refused(run: Any, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    (tmp_path / "tiny.py").write_text("META = {}\n")
    ended = run("bundle", "build", tmp_path / "tiny.py", tmp_path / "out")
    assert ended.status == 1
    assert "define model(), a function that returns a torch.nn.Module" in ended.complaint
    assert not (tmp_path / "out").exists()


def test_a_bundle_says_what_it_is(run: Any) -> None:
    said = run.good("bundle", "show", BUNDLE)
    assert said.startswith("digits: classification, 2410 parameters, ")
    assert "linear x 2, relu" in said
    assert "0.weight  [32, 64]" in said


def test_two_bundles_say_in_what_they_differ(run: Any, tmp_path: Path) -> None:
    assert run.good("bundle", "diff", BUNDLE, BUNDLE) == "the same model\n"
    bundle = load_bundle(BUNDLE)
    params = bundle.params.copy()
    params[0] += 2.0
    write_with(bundle, params, tmp_path / "other", Preprocessing(scale=(0.5,)))
    ended = run("bundle", "diff", BUNDLE, tmp_path / "other")
    assert ended.status == 1
    first, second = ended.out.splitlines()
    assert first.startswith("preprocessing: ")
    assert first.endswith("scale=(0.5,) axis=-1")
    assert second.startswith("0.weight: moved by 2 (")
    assert second.endswith("an element by 2 at most")
