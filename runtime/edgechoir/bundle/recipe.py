"""What an author writes: a Python file with META and model().

    from torch import nn

    META = {
        "name": "digits",
        "task": "classification",
        "input": [64],
        "outputs": ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"],
        "scale": 1 / 16,
    }


    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

The file is run when the bundle is built, on the author's machine, and never on a device.
"""

import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgechoir.bundle.manifest import LossName, Preprocessing, Task
from edgechoir.errors import OperatorError, first_wrong

if TYPE_CHECKING:
    from torch import nn

Numbers = float | Annotated[tuple[float, ...], Field(min_length=1)]


class Meta(BaseModel):
    """META of a model file.

    `input` is the shape of one sample, `outputs` names the model's output columns: the class labels
    (the model gives logits), or the quantities of a regression. What the model sees is
    (x - offset) * scale, along `axis` of the sample where a list is given. `loss` defaults to
    cross_entropy or mse. `personal` names the parameters that every device keeps to itself, with *
    for any characters: ["head.*"].
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: str
    task: Task
    input: tuple[int, ...]
    outputs: tuple[str, ...]
    loss: LossName | None = None
    offset: Numbers = 0.0
    scale: Numbers = 1.0
    axis: int = -1
    personal: tuple[str, ...] = ()

    def preprocessing(self) -> Preprocessing:
        """As the manifest writes it."""

        def numbers(given: Numbers) -> tuple[float, ...]:
            return given if isinstance(given, tuple) else (given,)

        return Preprocessing(offset=numbers(self.offset), scale=numbers(self.scale), axis=self.axis)


@dataclass(frozen=True, slots=True)
class Recipe:
    """A model file that has been run: META, and the function that makes the module."""

    meta: Meta
    model: Callable[[], "nn.Module"]


def run_model_file(path: Path) -> Recipe:
    """Run the model file `path`; it may import what lies beside it.

    Raises OperatorError if it does not define META and model() as described above. What the file
    itself raises is the author's to see and passes through.
    """
    if not path.is_file():
        raise OperatorError(f"{path}: no such model file")
    spec = importlib.util.spec_from_file_location(f"edgechoir_model_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise OperatorError(f"{path}: not a Python file; a model file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    model = getattr(module, "model", None)
    if not callable(model):
        raise OperatorError(f"{path}: define model(), a function that returns a torch.nn.Module")
    try:
        meta = Meta.model_validate(getattr(module, "META", None))
    except ValidationError as error:
        place, what = first_wrong(error)
        raise OperatorError(f"{path}: META {place}: {what}") from error
    return Recipe(meta, model)
