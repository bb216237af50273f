"""Seeds of the simulation hold, repeat, and fail when something is broken on purpose.

`EDGECHOIR_SIM_SEEDS=500 pytest tests/sim` tries more of them.
"""

import os
from dataclasses import replace
from functools import partial
from typing import Final

import numpy as np
import pytest

from edgechoir.errors import RemoteError
from edgechoir.rounds import aggregator, participant
from edgechoir.rounds.events import Refused, RoundDone, RoundFailed
from edgechoir.secagg.masking import mask
from edgechoir.secagg.sealing import KemKey
from edgechoir.sim import __main__ as command
from edgechoir.sim import world
from edgechoir.sim.process import Process
from edgechoir.sim.world import Post, ViolationError, World
from edgechoir.types import Ring
from edgechoir.wire import Plan, Upload

SEEDS: Final = int(os.environ.get("EDGECHOIR_SIM_SEEDS", "20"))
CALM: Final = 0
WILD: Final = 1
"""A seed with losses, duplicates, crashes and freezes."""


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_seed_holds(seed: int) -> None:
    tried = World(seed)
    tried.run()  # raises ViolationError, which names the seed
    done = [result for result in tried.results if result.total is not None]
    assert len(done) == tried.rounds
    assert all(result.reason for result in tried.results if result.total is None)
    for post in tried.posts:
        assert post.journal.rounds == sorted(set(post.journal.rounds))


@pytest.mark.parametrize("seed", [CALM, WILD, 3])
def test_the_same_seed_gives_the_same_trace(seed: int) -> None:
    first, second = World(seed), World(seed)
    first.run()
    second.run()
    assert first.trace == second.trace
    assert first.fingerprint() == second.fingerprint()


def test_another_seed_gives_another_trace() -> None:
    traces = [World(seed) for seed in (CALM, 4)]
    for tried in traces:
        tried.run()
    assert traces[0].fingerprint() != traces[1].fingerprint()


def test_a_calm_seed_has_no_failed_round_and_refuses_nothing() -> None:
    calm = World(CALM)
    calm.run()
    assert not any(result.reason for result in calm.results)
    assert not [line for line in calm.trace if "refuses" in line]


def test_wild_seeds_have_all_the_faults_there_are() -> None:
    """Else the seeds above would hold for nothing."""
    lines: list[str] = []
    for seed in range(1, 8):
        tried = World(seed)
        tried.run()
        lines += tried.trace
    for fault in ("crashes", "freezes", "failed:", "refuses: replayed", "was lost before"):
        assert any(fault in line for line in lines), fault


# ---- sabotage: the checks can fail


class ForgetfulWorld(World):
    """Remembers a contribution as something else than what was given."""

    def contribute(self, post: Post, round_: int, vector: Ring) -> None:
        wrong = vector.copy()
        wrong[0] += np.uint32(1)
        super().contribute(post, round_, wrong)


def test_a_sum_that_is_not_the_plain_sum_is_a_violation() -> None:
    with pytest.raises(ViolationError, match="is not the plain sum"):
        ForgetfulWorld(CALM).run()


def test_a_sum_corrupted_at_the_aggregator_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step in one coordinate of one upload: the aggregator itself has no way to see it."""
    true = aggregator.open_upload

    def corrupt(kem: KemKey, upload: Upload, member: str, length: int) -> Ring:
        vector = true(kem, upload, member, length).copy()
        vector[0] += np.uint32(member == "node-00")
        return vector

    monkeypatch.setattr(aggregator, "open_upload", corrupt)
    with pytest.raises(ViolationError, match=r"seed 0 at .*edge-0: the sum of round 1 is not"):
        World(CALM).run()


def test_a_member_that_leaves_out_its_masks_stops_every_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The masks of the others do not cancel then: no sum is ever published, and that is seen."""

    def leave_out(vector: Ring, me: str, seeds: dict[str, bytes]) -> Ring:
        return vector.copy() if me == "dev-000" else mask(vector, me, seeds)

    monkeypatch.setattr(participant, "mask", leave_out)
    monkeypatch.setattr(world, "LIMIT_S", 60.0)
    tried = World(CALM)
    with pytest.raises(ViolationError, match="only 0 of 4 rounds in 60 s: it hangs"):
        tried.run()
    assert any("the masks do not cancel" in line for line in tried.trace)


def test_a_cohort_of_one_is_a_violation() -> None:
    tried = World(CALM)
    node = next(post for post in tried.posts if post.address.tier == "node")
    device, voice = node.children[0], Process(tried, node, 1)
    vector = np.zeros(7, np.uint32)
    tried.contribute(device, 1, vector)
    cohort = (str(device.address.member),)
    plan = Plan(1, 1, bytes(32), cohort, 0, bytes(32), 1, 1, 1.0, 1, 1, 1, 1.0, 0, 1.0)
    with pytest.raises(ViolationError, match="has unmasked a single member"):
        tried.check_sum(voice, RoundDone(plan, vector))
    with pytest.raises(ViolationError, match="counts stranger, who gave nothing"):
        tried.check_sum(voice, RoundDone(replace(plan, cohort=("stranger",)), vector))


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
    again = World(0)
    again.run()
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
