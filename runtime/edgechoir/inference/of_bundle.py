"""A predictor for a bundle: what a program needs that runs a model without a fleet."""

from edgechoir.bundle.load import Bundle
from edgechoir.bundle.manifest import preparation
from edgechoir.inference.prediction import Output
from edgechoir.inference.predictor import Predictor
from edgechoir.types import Floats


def predictor_of(bundle: Bundle, params: Floats | None = None, version: int = 0) -> Predictor:
    """Answers raw samples with the bundle's model, and its own parameters unless given others [d].

    Raises BadModel: the parameters do not fit.
    """
    classes = bundle.manifest.task == "classification"
    return Predictor(
        bundle.onnx,
        bundle.params if params is None else params,
        version,
        shape=bundle.manifest.input_shape,
        output=Output.LOGITS if classes else Output.VALUES,
        prepare=preparation(bundle.manifest),
    )
