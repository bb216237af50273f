"""Many seeds on all cores, each in a world of its own."""

import signal
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from multiprocessing import get_context

from edgechoir.errors import EdgechoirError
from edgechoir.sim.ledger import ViolationError
from edgechoir.sim.world import World

CHUNK = 2
"""Seeds handed to a worker at once."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a seed; `wrong` says what did not hold."""

    seed: int
    done: int
    failed: int
    seconds: float
    fingerprint: str
    wrong: str = ""

    def __str__(self) -> str:
        verdict = f"VIOLATION: {self.wrong} (replay: make sim SEED={self.seed})"
        return (
            f"seed {self.seed}: {self.done} rounds done, {self.failed} failed, "
            f"{self.seconds:.0f} s, trace {self.fingerprint}: {verdict if self.wrong else 'ok'}"
        )


def try_seed(seed: int) -> Outcome:
    """Run one seed to its end."""
    return try_world(World(seed))


def try_world(world: World) -> Outcome:
    """Run a world to its end, whatever that is."""
    wrong = ""
    try:
        world.run()
    except ViolationError as error:
        wrong = str(error)
    except (EdgechoirError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        wrong = (
            f"{type(error).__name__}: {error}"  # a step broke: the seed is to be told all the same
        )
    done = sum(result.total is not None for result in world.results)
    return Outcome(
        seed=world.seed,
        done=done,
        failed=len(world.results) - done,
        seconds=world.network.elapsed,
        fingerprint=world.fingerprint()[:16],
        wrong=wrong,
    )


def try_seeds(seeds: Iterable[int], jobs: int) -> Generator[Outcome, None, None]:
    """The outcomes in the order of the seeds. Closing the iterator ends the workers."""
    if jobs == 1:
        yield from map(try_seed, seeds)
        return
    with get_context("spawn").Pool(jobs, signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        yield from pool.imap(try_seed, seeds, CHUNK)
