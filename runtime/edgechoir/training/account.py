"""What DP-SGD's steps have cost: Google's dp-accounting, for Poisson-sampled Gaussians.

Runs in the worker, since the library brings SciPy; a device without example-level privacy never
loads it.
"""

from collections.abc import Sequence
from importlib.util import find_spec

from edgechoir.errors import TrainingError
from edgechoir.learning.privacy.examples import Steps

MISSING = "example-level privacy needs dp-accounting: pip install 'edgechoir[privacy]'"


def available() -> bool:
    """Is the library installed?"""
    return find_spec("dp_accounting") is not None


def epsilon_of(steps: Sequence[Steps], delta: float) -> float:
    """epsilon at `delta` of all these steps together (RDP; Mironov, Talwar, Zhang 2019).

    Raises TrainingError without dp-accounting.
    """
    if not steps:
        return 0.0
    try:
        import dp_accounting as dp
        from dp_accounting import rdp
    except ImportError as error:
        raise TrainingError(f"{MISSING} ({error})") from error
    accountant = rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.ADD_OR_REMOVE_ONE)
    for one in steps:
        event = dp.PoissonSampledDpEvent(one.share, dp.GaussianDpEvent(one.noise))
        accountant.compose(event, one.count)
    return float(accountant.get_epsilon(delta))
