"""Which rules there are, and one of them by its name and options."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from edgechoir.errors import OperatorError
from edgechoir.learning.rules.distil import Distil
from edgechoir.learning.rules.ditto import ditto
from edgechoir.learning.rules.fedadagrad import fedadagrad
from edgechoir.learning.rules.fedadam import fedadam
from edgechoir.learning.rules.fedavg import FedAvg
from edgechoir.learning.rules.fedavgm import FedAvgM
from edgechoir.learning.rules.fednova import FedNova
from edgechoir.learning.rules.fedprox import fedprox
from edgechoir.learning.rules.fedyogi import fedyogi
from edgechoir.learning.rules.rule import Rule
from edgechoir.learning.rules.scaffold import Scaffold
from edgechoir.learning.rules.trees import Trees

MEMORY: Final = "rule:"
"""Begins the names of what a rule remembers, where it is stored beside the model."""
RULES: Final[dict[str, Callable[..., Rule]]] = {
    "fedavg": FedAvg,
    "fedavgm": FedAvgM,
    "fedadam": fedadam,
    "fedyogi": fedyogi,
    "fedadagrad": fedadagrad,
    "fedprox": fedprox,
    "scaffold": Scaffold,
    "fednova": FedNova,
    "ditto": ditto,
    "distil": Distil,
    "trees": Trees,
}


def make_rule(name: str, options: Mapping[str, Any]) -> Rule:
    """A rule by its name. Raises OperatorError for a name or an option that is not known."""
    if name not in RULES:
        raise OperatorError(f"rule {name!r} is not known; there are {', '.join(sorted(RULES))}")
    try:
        return RULES[name](**options)
    except (TypeError, ValueError) as error:
        raise OperatorError(f"rule {name!r}: {error}") from None
