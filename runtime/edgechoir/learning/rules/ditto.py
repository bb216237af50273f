"""Ditto: FedAvg, and beside it a model of each device's own that is pulled to the global one
(Li et al. 2021, ICML, "Ditto: Fair and Robust Federated Learning Through Personalization",
algorithm 1):

    v_i <- v_i - eta (gradient of F_i at v_i + pull * (v_i - w))

v_i never leaves its device, so what the root sees is FedAvg's. pull = 0 would be training alone,
pull -> infinity the global model.
"""

from typing import Final

from edgechoir.learning.rules.fedavg import FedAvg

DITTO: Final = "ditto"
"""The option of a task that asks for it, and the device's name for v_i."""


def ditto(pull: float = 0.1, rate: float = 1.0) -> FedAvg:
    """FedAvg whose devices train a model of their own as well."""
    return FedAvg(rate, local={DITTO: pull})
