"""Personal layers are joined to the shared ones, kept, and never mistaken for another model's."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgechoir.bundle.load import Bundle, load_bundle
from edgechoir.errors import BadModel
from edgechoir.store.vectors import KeptVectors
from edgechoir.tiers.personal import PersonalLayers

DIGITS = Path(__file__).parents[2] / "models" / "digits" / "bundle"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[KeptVectors]:
    store = KeptVectors(tmp_path / "kept.db")
    yield store
    store.close()


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    """The digits model, its last parameter personal."""
    plain = load_bundle(DIGITS)
    last = plain.manifest.parameters[-1].name
    return replace(plain, manifest=plain.manifest.model_copy(update={"personal": (last,)}))


def test_what_was_put_is_there_at_the_next_start(bundle: Bundle, kept: KeptVectors) -> None:
    layers = PersonalLayers(bundle, kept)
    shared, first = layers.shared, layers.own
    assert np.array_equal(layers.with_shared(shared), bundle.params)
    layers.put(first + 1, 3)
    again = PersonalLayers(bundle, kept)
    assert np.array_equal(again.own, first + 1)
    assert np.array_equal(again.with_shared(shared * 2), np.concatenate([shared * 2, first + 1]))
    with pytest.raises(BadModel, match="personal weights, expected"):
        again.with_shared(shared[1:])


def test_layers_of_another_model_are_not_used_and_make_room(
    bundle: Bundle, kept: KeptVectors
) -> None:
    PersonalLayers(bundle, kept).put(PersonalLayers(bundle, kept).own + 1, 3)
    manifest = bundle.manifest.model_copy(update={"name": "other"})
    other = PersonalLayers(replace(bundle, manifest=manifest), kept)
    assert np.array_equal(other.own, PersonalLayers(bundle, None).own)
    kept.put("control", other.own, 1)
    other.put(other.own + 2, 4)
    assert len(kept.names()) == 2
    assert "control" in kept.names()
    assert np.array_equal(PersonalLayers(bundle, kept).own, PersonalLayers(bundle, None).own)


def test_a_model_without_personal_layers_is_left_as_it_is(kept: KeptVectors) -> None:
    plain = load_bundle(DIGITS)
    layers = PersonalLayers(plain, kept)
    assert layers.own.size == 0
    assert layers.with_shared(plain.params) is not None
    assert np.array_equal(layers.with_shared(plain.params), plain.params)
