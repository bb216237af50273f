"""A manifest is consistent, or refused with what is wrong."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.bundle.manifest import Manifest, parse_manifest, prepare, verify_params
from edgechoir.errors import BadModel

DIGITS = Path(__file__).parents[2] / "models" / "digits" / "bundle"
GOOD: dict[str, Any] = json.loads((DIGITS / "manifest.json").read_text())

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


def changed(**fields: object) -> bytes:
    """The digits manifest with some fields replaced."""
    return json.dumps({**GOOD, **fields}).encode()


def regression(shape: list[int], preprocessing: dict[str, object]) -> Manifest:
    """A manifest whose samples have this shape."""
    return parse_manifest(changed(input_shape=shape, preprocessing=preprocessing))


def test_the_digits_manifest_is_read() -> None:
    manifest = parse_manifest(json.dumps(GOOD).encode())
    assert manifest.size == 2410
    assert [parameter.offset for parameter in manifest.parameters] == [0, 2048, 2080, 2400]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"format": 2}, "format"),
        ({"name": "../../etc"}, "name"),
        ({"name": "digits\n"}, "name"),
        ({"dtype": "float16"}, "dtype"),
        ({"task": "regression"}, "does not go with"),
        ({"outputs": ["one"]}, "at least two outputs"),
        ({"outputs": ["a", "a"]}, "same name"),
        ({"input_shape": [1 << 13, 1 << 13]}, "elements"),
        ({"input_shape": [0]}, "input_shape"),
        ({"input_shape": [True]}, "input_shape"),
        ({"input_shape": []}, "input_shape"),
        ({"sha256": {**GOOD["sha256"], "../key": "0" * 64}}, "exactly"),
        ({"sha256": {"graph.json": "0" * 64}}, "exactly"),
        ({"sha256": {**GOOD["sha256"], "graph.json": "0" * 63}}, "sha256"),
        ({"parameters": []}, "parameters"),
        ({"parameters": [{"name": "w", "shape": [2], "offset": 1}]}, "starts at 1"),
        ({"parameters": [{"name": "../w", "shape": [2], "offset": 0}]}, "name"),
        ({"parameters": [{"name": "w", "shape": [1 << 16, 1 << 16], "offset": 0}]}, "at most"),
        ({"parameters": [{"name": "w", "shape": [-2], "offset": 0}]}, "shape"),
        (
            {
                "parameters": [
                    {"name": "w", "shape": [2], "offset": 0},
                    {"name": "w", "shape": [2], "offset": 2},
                ]
            },
            "same name",
        ),
        ({"preprocessing": {"scale": [1.0, 2.0]}}, "expected 1 or 64"),
        ({"preprocessing": {"axis": 1}}, "axis"),
        ({"personal": ["tail.*"]}, "fits no parameter"),
        ({"personal": ["*"]}, "nothing is left"),
        ({"personal": ["0.*"]}, "stands before a shared one"),
        ({"personal": ["[a-z]"]}, "personal"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_wrong_manifest_is_explained(fields: dict[str, object], expected: str) -> None:
    with pytest.raises(BadModel, match=r"manifest\.json") as caught:
        parse_manifest(changed(**fields))
    assert expected in str(caught.value)


def test_numbers_that_are_not_finite_are_refused() -> None:
    for word in ("NaN", "Infinity", "1e999"):
        data = json.dumps(GOOD).replace("0.0625", word).encode()
        with pytest.raises(BadModel):
            parse_manifest(data)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_refused_cleanly(data: bytes) -> None:
    with pytest.raises(BadModel):
        parse_manifest(data)


@given(key=st.sampled_from(sorted(GOOD)), value=JSON)
def test_any_value_in_any_place_is_read_or_refused_cleanly(key: str, value: object) -> None:
    try:
        manifest = parse_manifest(changed(**{key: value}))
    except BadModel:
        return
    assert manifest.size > 0


@given(depth=st.integers(1, 20_000))
def test_deep_nesting_is_refused_cleanly(depth: int) -> None:
    with pytest.raises(BadModel):
        parse_manifest(b'{"a":' * depth)


def params_of(values: list[float]) -> tuple[Manifest, bytes, str]:
    """A manifest of that many parameters, and these values as its bytes."""
    manifest = parse_manifest(
        changed(parameters=[{"name": "w", "shape": [len(values)], "offset": 0}])
    )
    data = np.array(values, "<f4").tobytes()
    return manifest, data, hashlib.sha256(data).hexdigest()


def test_sound_parameters_become_a_vector_that_cannot_be_written() -> None:
    manifest, data, digest = params_of([1.0, -2.5, 0.0])
    vector = verify_params(manifest, data, digest)
    assert vector.dtype == np.float32
    assert vector.tolist() == [1.0, -2.5, 0.0]
    with pytest.raises(ValueError, match="read-only"):
        vector[0] = 1


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_parameters_that_are_not_finite_are_refused_by_place(bad: float) -> None:
    with pytest.raises(BadModel, match="parameter 1 is"):
        verify_params(*params_of([0.0, bad, 0.0]))


def test_parameters_of_another_length_or_hash_are_refused() -> None:
    manifest, data, digest = params_of([0.0, 1.0])
    with pytest.raises(BadModel, match="4 bytes of parameters, expected 8"):
        verify_params(manifest, data[:4], digest)
    with pytest.raises(BadModel, match="hash to"):
        verify_params(manifest, data[::-1], digest)


def test_preprocessing_works_along_its_axis() -> None:
    x = np.ones((2, 3, 4), np.float32)
    manifest = regression([3, 4], {"offset": [1.0, 0.0, -1.0], "scale": [2.0], "axis": 0})
    prepared = prepare(manifest, x)
    assert prepared.dtype == np.float32
    assert prepared[:, 0].max() == 0
    assert (prepared[:, 1] == 2).all()
    assert (prepared[:, 2] == 4).all()
    last = regression([3, 4], {"scale": [1.0, 2.0, 3.0, 4.0]})
    assert prepare(last, x)[1, 2].tolist() == [1, 2, 3, 4]
