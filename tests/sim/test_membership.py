"""Members come, go, stay away and renew their keys while rounds go on."""

from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from edgechoir import wire
from edgechoir.rounds.aggregator import Aggregator
from edgechoir.rounds.endpoint import Outcome, Outgoing
from edgechoir.rounds.events import RoundDone, Withdraw
from edgechoir.rounds.participant import Participant
from edgechoir.sim.faults import Faults
from edgechoir.sim.ledger import read_message
from edgechoir.sim.process import Process
from edgechoir.sim.world import WILL_S, Post, World

FIVE: Final = ((5, 5),)


class Watched(World):
    """A calm cloud with five devices; remembers what was ordered, sung and published when."""

    def __init__(self, *, late: int = 0, rounds: int = 8) -> None:
        super().__init__(8, shape=FIVE, rounds=rounds, dimension=4, faults=Faults())
        self.devices = [post for post in self.posts if post.parent is not None]
        self.late = self.devices[5 - late :]
        self.cohorts: dict[int, tuple[str, ...]] = {}
        self.rosters: list[wire.Roster] = []

    def boot(self, post: Post) -> None:
        if post in self.late and self.network.elapsed < 5:
            return
        super().boot(post)

    def note(self, process: Process, outcome: Outcome) -> None:
        super().note(process, outcome)
        match outcome:
            case RoundDone(plan, survivors):
                self.cohorts[plan.round] = survivors
            case Outgoing("roster", _, data):
                message = read_message(data)
                assert isinstance(message, wire.Roster)
                self.rosters.append(message)
            case _:
                pass

    @property
    def cloud(self) -> Process:
        process = self.posts[0].process
        assert process is not None
        return process

    @property
    def down(self) -> Aggregator:
        down = self.cloud.endpoint.joint.down
        assert down is not None
        return down

    def up(self, post: Post) -> Participant:
        assert post.process is not None
        up = post.process.endpoint.joint.up
        assert up is not None
        return up

    @property
    def last_round(self) -> int:
        return self.down.last_round

    def at(self, seconds: float, action: Callable[[], None]) -> None:
        self.network.after(seconds, action)

    def names(self, posts: list[Post]) -> list[str]:
        return [str(post.address.member) for post in posts]


def test_newcomers_are_let_in_together_and_sing_in_their_second_round_at_the_latest() -> None:
    world = Watched(late=3)
    begun: list[int] = []

    def arrive() -> None:
        begun.append(world.last_round)
        for post in world.late:
            world.boot(post)

    world.at(8.0, arrive)
    world.run()
    first = {
        name: min(round_ for round_, cohort in world.cohorts.items() if name in cohort)
        for name in world.names(world.late)
    }
    # One round may have been under way, and one was perhaps ordered for fewer devices.
    later = sorted(round_ for round_ in world.cohorts if round_ > begun[0])
    assert all(round_ in later[:2] for round_ in first.values())
    assert len(world.rosters) == 2  # all three in one epoch


def test_each_epoch_has_keys_of_its_own() -> None:
    world = Watched(late=1)
    world.at(8.0, lambda: world.boot(world.late[0]))
    world.run()
    first, second = ({_kem(join) for join in roster.joins} for roster in world.rosters[:2])
    assert (len(first), len(second)) == (4, 5)
    assert not first & second
    assert world.rosters[0].kem != world.rosters[1].kem


def _kem(join: bytes) -> bytes:
    message = read_message(join)
    assert isinstance(message, wire.Join)
    return message.kem


def test_who_leaves_is_missed_by_no_round() -> None:
    """The turn that was under way does without it, and no new epoch is needed."""
    world = Watched()
    gone = world.devices[0]
    left: list[int] = []

    def leave() -> None:
        left.append(world.last_round)
        assert gone.process is not None
        gone.process.happen(Withdraw("sold"))

    world.at(8.0, leave)
    world.run()
    assert not [result for result in world.results if result.reason]
    later = [cohort for round_, cohort in world.cohorts.items() if round_ > left[0]]
    assert len(later) > 2
    assert all(len(cohort) == 4 for cohort in later)
    assert len(world.rosters) == 1


@pytest.mark.parametrize("seconds", [WILL_S - 0.5, WILL_S + 4.0])
def test_who_was_cut_off_goes_on_in_the_same_epoch(seconds: float) -> None:
    """Whether or not its parent was told: it is the same process, with all its secrets."""
    world = Watched(rounds=12)
    absent = world.devices[0]
    name = str(absent.address.member)
    epochs: list[int] = []
    world.at(8.0, lambda: epochs.append(world.up(absent).epoch))
    world.at(8.0, partial(world.cut, absent, seconds))
    world.run()
    without = [round_ for round_, cohort in world.cohorts.items() if name not in cohort]
    assert without
    assert max(world.cohorts) > max(without) + 1  # it sings again
    assert name in world.cohorts[max(world.cohorts)]
    assert world.up(absent).epoch == epochs[0]
    assert len(world.rosters) == 1


def test_too_few_after_departures_found_an_epoch_with_a_lower_threshold() -> None:
    world = Watched()
    thresholds: list[int] = []
    world.at(7.9, lambda: thresholds.append(world.down.threshold))
    for post in world.devices[:2]:
        world.at(8.0, partial(world.depart, post, 1e6))
    world.run()
    assert thresholds == [4]
    assert world.down.threshold == 2
    assert len(world.rosters) == 2
    assert all(len(cohort) == 3 for round_, cohort in world.cohorts.items() if round_ > 12)
