from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgechoir.errors import BadModel, InferenceError, OperatorError
from edgechoir.inference.session import CPU, LEAN_ABOVE, open_session, providers_in_order
from edgechoir.types import Floats

Mlp = Callable[..., bytes]
Weights = Callable[..., Floats]
SIZES = (4, 8, 3)


def by_hand(w: Floats, x: Floats) -> Floats:
    w0, b0 = w[:32].reshape(4, 8), w[32:40]
    w1, b1 = w[40:64].reshape(8, 3), w[64:67]
    return np.asarray(np.maximum(x @ w0 + b0, 0) @ w1 + b1, dtype=np.float32)


def test_session_computes_with_the_vector_it_was_given(mlp: Mlp, weights: Weights) -> None:
    w = weights(SIZES)
    x = np.random.default_rng(1).standard_normal((5, 4)).astype(np.float32)
    np.testing.assert_allclose(
        open_session(mlp(SIZES), w, (4,)).run(x), by_hand(w, x), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("hidden", [100, 600])
def test_session_does_not_look_back_at_the_vector(mlp: Mlp, weights: Weights, hidden: int) -> None:
    """On both sides of `LEAN_ABOVE`, where ONNX Runtime keeps the weights in different ways."""
    sizes = (4, hidden, hidden, 3)
    w = weights(sizes)
    assert (w.nbytes >= LEAN_ABOVE) == (hidden == 600)
    session = open_session(mlp(sizes), w, (4,))
    x = np.ones((1, 4), dtype=np.float32)
    before = session.run(x)
    w[:] = np.nan
    np.testing.assert_array_equal(session.run(x), before)


def test_provider_in_use_is_the_cpu_here(mlp: Mlp, weights: Weights) -> None:
    assert open_session(mlp(SIZES), weights(SIZES), (4,), [CPU]).provider == CPU


def test_accelerators_come_before_the_cpu_in_their_order() -> None:
    available = [CPU, "XnnpackExecutionProvider", "Other", "TensorrtExecutionProvider"]
    assert providers_in_order(available) == [
        "TensorrtExecutionProvider",
        "XnnpackExecutionProvider",
        CPU,
    ]
    assert providers_in_order(available, ["XnnpackExecutionProvider"]) == [
        "XnnpackExecutionProvider",
        CPU,
    ]


@pytest.mark.parametrize("wanted", ["CUDAExecutionProvider", "Other"])
def test_wanted_provider_that_is_not_usable_is_refused(wanted: str) -> None:
    with pytest.raises(OperatorError, match=wanted):
        providers_in_order([CPU, "Other"], [wanted])


def test_too_few_weights_are_refused(mlp: Mlp, weights: Weights) -> None:
    with pytest.raises(BadModel, match="refuses"):
        open_session(mlp(SIZES), weights(SIZES)[:-1], (4,))


def test_bytes_that_are_no_model_are_refused(weights: Weights) -> None:
    with pytest.raises(BadModel):
        open_session(b"params.bin is not enough", weights(SIZES), (4,))


def test_model_with_weights_of_its_own_is_refused(weights: Weights) -> None:
    with pytest.raises(BadModel, match="takes no weights"):
        open_session(b"", weights(SIZES), (4,))


def test_model_cannot_read_a_file_beside_the_process(
    mlp: Mlp, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    w = weights(SIZES)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.bin.secret").write_bytes(w.tobytes())
    with pytest.raises(BadModel):
        open_session(mlp(SIZES, location="params.bin.secret"), w, (4,))


@pytest.mark.parametrize("shape", [(5,), (4, 1), ()])
def test_input_of_another_shape_is_refused(
    mlp: Mlp, weights: Weights, shape: tuple[int, ...]
) -> None:
    with pytest.raises(BadModel, match="input"):
        open_session(mlp(SIZES), weights(SIZES), shape)


def test_fixed_batch_size_is_refused(mlp: Mlp, weights: Weights) -> None:
    with pytest.raises(BadModel, match="batch"):
        open_session(mlp(SIZES, batch=1), weights(SIZES), (4,))


def test_runtime_refusal_names_the_batch(mlp: Mlp, weights: Weights) -> None:
    session = open_session(mlp(SIZES), weights(SIZES), (4,))
    with pytest.raises(InferenceError, match=r"\(1, 5\)"):
        session.run(np.zeros((1, 5), dtype=np.float32))
