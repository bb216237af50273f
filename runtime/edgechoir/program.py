"""What a program of one's own needs, by one import: see `examples/`."""

from edgechoir.bundle.build import build_bundle
from edgechoir.bundle.load import load_bundle
from edgechoir.inference.of_bundle import predictor_of
from edgechoir.inference.predictor import Predictor
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.check import Check
from edgechoir.pipeline.flow import Flow, Stream
from edgechoir.pipeline.labels import LateLabels
from edgechoir.pipeline.run import Pipeline
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sources.python import PythonSource
from edgechoir.pipeline.sources.replay import Replay
from edgechoir.training.trainer import Trainer
from edgechoir.types import FitPlan

__all__ = [
    "Block",
    "Check",
    "FitPlan",
    "Flow",
    "LateLabels",
    "Pipeline",
    "Predictor",
    "PythonSource",
    "Replay",
    "Sample",
    "Stream",
    "Trainer",
    "build_bundle",
    "load_bundle",
    "predictor_of",
]
