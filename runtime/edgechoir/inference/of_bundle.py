"""A predictor for a bundle: what a program needs that runs a model without a fleet."""

from collections.abc import Sequence
from pathlib import Path

from edgechoir.bundle.load import Bundle, load_bundle
from edgechoir.bundle.manifest import preparation
from edgechoir.inference.prediction import Output
from edgechoir.inference.predictor import Predictor
from edgechoir.types import Floats


def predictor_of(
    bundle: Bundle,
    params: Floats | None = None,
    version: int = 0,
    providers: Sequence[str] | None = None,
) -> Predictor:
    """Answers raw samples with the bundle's model, and its own parameters unless given others [d].

    Raises BadModel: the parameters do not fit; OperatorError: a provider is not usable here.
    """
    classes = bundle.manifest.task == "classification"
    return Predictor(
        bundle.onnx,
        bundle.params if params is None else params,
        version,
        shape=bundle.manifest.input_shape,
        output=Output.LOGITS if classes else Output.VALUES,
        prepare=preparation(bundle.manifest),
        providers=providers,
    )


def tried(path: Path | str, providers: Sequence[str]) -> str:
    """What executes the model of the bundle in `path` here, and how long an answer takes.

    Raises OperatorError, BadModel.
    """
    bundle = load_bundle(path)
    predictor = predictor_of(bundle, providers=providers or None)
    where = "in the event loop" if predictor.inline else "in a thread of its own"
    return f"{predictor.provider} answers in {predictor.probe * 1e3:.3g} ms, {where}"
