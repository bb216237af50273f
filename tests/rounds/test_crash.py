"""A process may be killed before anything it does, and nothing worse than a lost turn follows.

Small fleets are run again and again, and each time one process ends before one step that had an
effect: a message not sent, a round not written down or just written down, work not begun. The
ledger of the simulation watches that no pad is used twice and that nobody speaks twice in a turn.
"""

from collections import Counter
from typing import Final

import pytest

from edgechoir.rounds.endpoint import Outcome, Outgoing
from edgechoir.rounds.events import ExpandMask
from edgechoir.rounds.joint import Joint
from edgechoir.rounds.schedule import Result
from edgechoir.sim.faults import Faults
from edgechoir.sim.ledger import ViolationError
from edgechoir.sim.process import Process
from edgechoir.sim.world import Post, Shape, World

TRIO: Final = ((3, 3),)
TREE: Final = ((2, 2), (2, 2))
RESTART_S: Final = 5.0
FAULTLESS: Final = Faults()


class Killed(World):
    """Whoever is about to have the `fatal`-th effect of all is killed before it, once."""

    def __init__(self, shape: Shape, fatal: int, faults: Faults = FAULTLESS, seed: int = 0) -> None:
        super().__init__(seed, shape=shape, rounds=2, dimension=4, faults=faults)
        self.fatal = fatal
        self.effects = 0
        self.victim: Post | None = None
        self.missed = ""
        self.killed_at = 0.0

    def dies(self, process: Process, outcome: Outcome) -> bool:
        self.effects += 1
        if self.effects != self.fatal:
            return False
        self.victim = process.post
        self.killed_at = self.network.elapsed
        channel = f" {outcome.channel}" if isinstance(outcome, Outgoing) else ""
        self.missed = type(outcome).__name__ + channel
        return True

    def result(self, result: Result) -> None:
        super().result(result)
        if self.victim is None or self.network.elapsed < self.killed_at + RESTART_S:
            self.done_after = min(
                self.done_after, self.rounds - 1
            )  # the death is to be lived through


def effects_of(shape: Shape) -> int:
    """How many effects two rounds have, set-up included."""
    calm = World(0, shape=shape, rounds=2, dimension=4, faults=FAULTLESS)
    calm.run()
    return sum(" starts " not in line for line in calm.trace)


def kill_everywhere(shape: Shape, faults: Faults = FAULTLESS, step: int = 1) -> Counter[str]:
    """One run for each effect; what was not done, by kind."""
    missed: Counter[str] = Counter()
    for fatal in range(1, effects_of(shape) + 1, step):
        world = Killed(shape, fatal, faults)
        world.run()  # raises ViolationError
        assert world.victim is not None
        assert world.finished
        missed[world.missed] += 1
        for post in world.posts:
            assert post.journal.rounds == sorted(set(post.journal.rounds))
    return missed


MEMBERS: Final = {"Outgoing up", "Record", "Work", "ExpandMask"}
TIERS: Final = {"Outgoing down", "Outgoing roster", "Outgoing plan", "Membership", "RoundDone"}


@pytest.mark.timeout(600)
def test_three_members_and_their_cloud_survive_a_death_at_every_step() -> None:
    missed = kill_everywhere(TRIO)
    assert missed.keys() >= MEMBERS | TIERS
    assert missed["Record"] >= 3


@pytest.mark.timeout(600)
def test_a_tree_survives_a_death_at_every_step() -> None:
    missed = kill_everywhere(TREE)
    assert missed.keys() >= MEMBERS | TIERS
    assert missed["Record"] >= 6


@pytest.mark.timeout(600)
def test_a_process_restored_from_an_older_image_uses_nothing_again() -> None:
    """It believes that rounds are unspent which it has sung in: its keys are new all the same."""
    rolled_back = 0
    total = effects_of(TRIO)
    for fatal in range(total // 2, total + 1):  # from the first round on
        world = Killed(TRIO, fatal, Faults(rollbacks=1.0))
        world.run()
        assert world.finished
        if any("older image" in line for line in world.trace):
            rolled_back += 1
            assert world.victim is not None
            assert world.victim.process is not None
            assert world.victim.generations == 2
    assert rolled_back >= 5


def test_dying_right_after_the_record_spends_the_round_without_an_upload() -> None:
    """The pads may be out: the round is not sung in again, not even with fresh keys."""
    total = effects_of(TRIO)
    seen = 0
    for fatal in range(1, total + 1):
        world = Killed(TRIO, fatal)
        world.run()
        if world.missed != "Outgoing up" or world.victim is None:
            continue
        name, at = str(world.victim), f"{world.killed_at:10.4f}"
        recorded = [line for line in world.trace if line.startswith(f"{at} {name} records round")]
        if recorded:
            seen += 1
            round_ = recorded[0].split()[-1]
            sung = [line for line in world.trace if line.endswith(f"{name} records round {round_}")]
            assert len(sung) == 1
            assert not any(line == f"{at} {name} -> up " for line in world.trace)
    assert seen >= 3


class OnDisk(Killed):
    """What must not be: the secrets of the epoch lie on the disk, and a restart takes them up."""

    def __init__(self, shape: Shape, fatal: int, faults: Faults) -> None:
        super().__init__(shape, fatal, faults)
        self.disk: dict[Post, tuple[Joint, ExpandMask]] = {}

    def note(self, process: Process, outcome: Outcome) -> None:
        super().note(process, outcome)
        if isinstance(outcome, ExpandMask) and process.endpoint.joint.down is None:
            self.disk[process.post] = (process.endpoint.joint, outcome)

    def boot(self, post: Post) -> None:
        before = post.process
        super().boot(post)
        if before is not None and post.process is not None and post in self.disk:
            joint, mask = self.disk[post]
            assert joint.up is not None
            assert joint.up.turn is not None
            post.process.endpoint.joint = joint
            post.process.seeds[mask.round] = mask.seeds
            post.process.train(joint.up.turn.plan)


@pytest.mark.parametrize("protected", [True, False])
def test_with_the_secrets_of_an_epoch_on_disk_an_older_image_would_use_pads_twice(
    protected: bool,
) -> None:
    """The journal is an older image too, so that it does not know of the round. What stops it: all
    secrets of an epoch live in memory alone."""
    said: list[str] = []
    for fatal in range(effects_of(TRIO) // 2, effects_of(TRIO) + 1):
        kind = Killed if protected else OnDisk
        world = kind(TRIO, fatal, Faults(rollbacks=1.0))
        try:
            world.run()
        except ViolationError as error:
            said.append(str(error))
    assert bool(said) is not protected
    assert all("uses a pad on a second vector" in one for one in said)
