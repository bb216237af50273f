"""FedProx: FedAvg whose devices minimise F_i(w) + mu/2 ||w - w_t||^2 (Li et al. 2020, MLSys,
"Federated Optimization in Heterogeneous Networks", algorithm 2).

The term keeps long local training from running to a device's own optimum.
"""

from edgechoir.learning.rules.fedavg import FedAvg


def fedprox(mu: float = 0.01, rate: float = 1.0) -> FedAvg:
    """FedAvg with the proximal term in every device's objective."""
    return FedAvg(rate, local={"proximal": mu})
