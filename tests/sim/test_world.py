"""Seeds of the simulation hold, repeat, and fail when something is broken on purpose.

`EDGECHOIR_SIM_SEEDS=500 pytest tests/sim` tries more of them.
"""

import os
from collections.abc import Mapping
from functools import cache, partial
from typing import Any, Final

import numpy as np
import pytest

from edgechoir.errors import RemoteError
from edgechoir.learning.fixed_point import Encoding
from edgechoir.rounds import aggregator, participant
from edgechoir.rounds.cohort import masked_vector
from edgechoir.rounds.endpoint import Outgoing
from edgechoir.rounds.events import Refused, RoundDone, RoundFailed
from edgechoir.secagg.masking import mask_seeds
from edgechoir.secagg.pads import SignedSeed
from edgechoir.sim import __main__ as command
from edgechoir.sim import world
from edgechoir.sim.process import Process
from edgechoir.sim.world import Post, ViolationError, World
from edgechoir.types import Ring
from edgechoir.wire import Contents, Plan, Reveal

SEEDS: Final = int(os.environ.get("EDGECHOIR_SIM_SEEDS", "20"))
CALM: Final = 0
WILD: Final = 1
"""A seed with losses, duplicates, crashes and freezes."""
Seeds = tuple[SignedSeed, ...]


@cache
def ran(seed: int) -> World:
    """The world of a seed after its run. Raises ViolationError, which names the seed."""
    tried = World(seed)
    tried.run()
    return tried


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_seed_holds(seed: int) -> None:
    tried = ran(seed)
    done = [result for result in tried.results if result.total is not None]
    assert len(done) == tried.rounds
    assert all(result.reason for result in tried.results if result.total is None)
    for post in tried.posts:
        assert post.journal.rounds == sorted(set(post.journal.rounds))


@pytest.mark.parametrize("seed", [CALM, WILD])
def test_the_same_seed_gives_the_same_trace(seed: int) -> None:
    again = World(seed)
    again.run()
    assert again.trace == ran(seed).trace
    assert again.fingerprint() == ran(seed).fingerprint()


def test_another_seed_gives_another_trace() -> None:
    assert ran(CALM).fingerprint() != ran(4).fingerprint()


def test_once_all_have_joined_a_calm_world_fails_no_round_and_refuses_nothing() -> None:
    calm = ran(CALM)
    done = [result.total is not None for result in calm.results]
    assert all(done[done.index(True) :])
    first = next(i for i, line in enumerate(calm.trace) if "cloud/cloud round" in line)
    begun = next(i for i, line in enumerate(calm.trace[first:], first) if "done by" in line)
    assert not [line for line in calm.trace[begun:] if "refuses" in line]


def test_wild_seeds_have_all_the_faults_there_are() -> None:
    """Else the seeds above would hold for nothing."""
    lines = [line for seed in (WILD, 2, 3, 5, 6) for line in ran(seed).trace]
    for fault in ("crashes", "freezes", "failed:", "refuses: replayed"):
        assert any(fault in line for line in lines), fault
    sums = [line.split(" done by ")[1] for line in lines if " done by " in line]
    assert any(there != of for there, of in (one.split(" of ") for one in sums)), "someone missing"


# ---- sabotage: the checks can fail


class ForgetfulWorld(World):
    """Remembers a contribution as something else than what was given."""

    def contribute(self, post: Post, round_: int, vector: Ring) -> None:
        wrong = vector.copy()
        wrong[0] += np.uint16(1)
        super().contribute(post, round_, wrong)


def test_a_sum_that_is_not_the_plain_sum_is_a_violation() -> None:
    with pytest.raises(ViolationError, match="is not the plain sum"):
        ForgetfulWorld(CALM).run()


def test_a_sum_corrupted_at_the_aggregator_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step in one coordinate of one upload: the aggregator itself has no way to see it."""

    def corrupt(contents: Contents, encoding: Encoding, member: str) -> Ring:
        vector = masked_vector(contents, encoding, member).copy()
        vector[0] += np.uint16(member == "node-00")
        return vector

    monkeypatch.setattr(aggregator, "masked_vector", corrupt)
    with pytest.raises(ViolationError, match=r"seed 0 at .*edge-0: the sum of round 1 is not"):
        World(CALM).run()


@pytest.mark.parametrize("left_out", ["its self-mask", "the pad of one pair"])
def test_with_a_member_that_leaves_out_a_pad_its_node_publishes_no_sum(
    monkeypatch: pytest.MonkeyPatch, left_out: str
) -> None:
    """What is taken off the sum was never in it. The rest of the tree goes on."""

    def careless(me: str, b: bytes, leaves: Mapping[str, bytes], context: bytes) -> Seeds:
        seeds = mask_seeds(me, b, leaves, context)
        if me != "dev-000":
            return seeds
        return seeds[1:] if left_out == "its self-mask" else seeds[:-1]

    monkeypatch.setattr(participant, "mask_seeds", careless)
    tried = World(CALM, rounds=3)
    tried.run()
    of_its_node = [line for line in tried.trace if "node/node-00 round" in line]
    assert any("the masks do not come off" in line for line in of_its_node)
    assert not any("done by" in line for line in of_its_node)


def test_rounds_that_never_end_are_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """No member hears who is in the sum, so none answers."""
    true = World.send

    def send(self: World, sender: Process, out: Outgoing) -> None:
        if out.data[3] != Reveal.KIND:
            true(self, sender, out)

    monkeypatch.setattr(World, "send", send)
    monkeypatch.setattr(world, "LIMIT_S", 60.0)
    with pytest.raises(ViolationError, match="only 0 of 8 rounds in 60 s: it hangs"):
        World(CALM).run()


def test_a_cohort_of_one_is_a_violation() -> None:
    tried = World(CALM)
    node = next(post for post in tried.posts if post.address.tier == "node")
    device, voice = node.children[0], Process(tried, node, 1)
    vector = np.zeros(7, np.uint32)
    tried.contribute(device, 1, vector)
    name = str(device.address.member)
    fields: dict[str, Any] = {**dict.fromkeys(Plan.FIELDS, 1), "cohort": (name,)}
    plan = Plan(**fields)
    with pytest.raises(ViolationError, match="has unmasked a single member"):
        tried.check_sum(voice, RoundDone(plan, (name,), vector))
    with pytest.raises(ViolationError, match="counts stranger, who gave nothing"):
        tried.check_sum(voice, RoundDone(plan, ("stranger",), vector))


def test_a_round_used_twice_is_a_violation() -> None:
    """A member whose disk forgets, so that it would sing a round again."""
    tried = World(CALM)

    def forget(post: Post) -> None:
        post.journal.last_round = 100

    for post in tried.posts:
        if not post.children:
            tried.network.after(1.9, partial(forget, post))
    with pytest.raises(ViolationError, match=r"device/.* reuses round 1"):
        tried.run()


def test_a_failure_without_a_reason_is_a_violation() -> None:
    tried = World(CALM)
    voice = Process(tried, tried.posts[0], 1)
    with pytest.raises(ViolationError, match="failed round 3 without a reason"):
        tried.note(voice, RoundFailed(3, ""))
    tried.note(voice, RoundFailed(3, "a reason"))
    tried.note(voice, Refused(RemoteError("?")))


# ---- the command


def test_the_command_replays_a_seed_with_its_whole_trace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["edgechoir.sim", "--seed", "0"])
    assert command.main() == 0
    out = capsys.readouterr().out.splitlines()
    again = ran(0)
    assert out[: len(again.trace)] == again.trace
    assert again.fingerprint()[:16] in out[-2]
    assert out[-1] == "1 passed, 0 failed"


def test_the_command_fails_and_says_how_to_replay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["edgechoir.sim", "--seeds", "2", "--first", "4"])
    monkeypatch.setattr(world, "LIMIT_S", 1.0)
    assert command.main() == 1
    out = capsys.readouterr().out
    assert "(replay: make sim SEED=4)" in out
    assert "(replay: make sim SEED=5)" in out
    assert "0 passed, 2 failed" in out
