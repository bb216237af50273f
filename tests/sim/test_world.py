"""Seeds of the simulation hold, repeat, and fail when something is broken on purpose.

`EDGECHOIR_SIM_SEEDS=2000 pytest tests/sim` tries more of them.
"""

import os
import subprocess
import sys
from functools import partial
from typing import Any, Final

import numpy as np
import pytest

from edgechoir import wire
from edgechoir.errors import RemoteError
from edgechoir.identity.gate import Gate
from edgechoir.rounds import aggregator, endpoint, participant
from edgechoir.rounds.events import Contribution, Refused, RoundDone, RoundFailed
from edgechoir.rounds.joint import Joint
from edgechoir.rounds.participant import Phase
from edgechoir.secagg import masking
from edgechoir.secagg.pads import SignedSeed
from edgechoir.sim import __main__ as command
from edgechoir.sim import world
from edgechoir.sim.faults import Faults
from edgechoir.sim.ledger import Ledger, ViolationError
from edgechoir.sim.process import Process
from edgechoir.sim.soak import Outcome, try_seeds
from edgechoir.sim.world import World
from edgechoir.types import Ring

SEEDS: Final = int(os.environ.get("EDGECHOIR_SIM_SEEDS", "200"))
CALM: Final = 0
TRIO: Final = ((3, 3),)


@pytest.mark.timeout(max(600, 3 * SEEDS))
def test_all_seeds_hold() -> None:
    outcomes = list(try_seeds(range(SEEDS), os.cpu_count() or 1))
    assert len(outcomes) == SEEDS
    wrong = [str(outcome) for outcome in outcomes if outcome.wrong]
    assert not wrong, "\n".join(wrong)
    # They would hold for nothing, did rounds neither come off nor fail.
    assert sum(outcome.done for outcome in outcomes) > 4 * SEEDS
    assert sum(outcome.failed for outcome in outcomes) > SEEDS


@pytest.mark.parametrize("seed", [CALM, 1, 3])
def test_the_same_seed_gives_the_same_trace(seed: int) -> None:
    first, second = World(seed), World(seed)
    first.run()
    second.run()
    assert first.trace == second.trace
    assert first.fingerprint() == second.fingerprint()


def test_a_trace_depends_on_no_order_of_hashes() -> None:
    """Nor on anything else of the process it is made in."""
    command_line = [sys.executable, "-m", "edgechoir.sim", "--seeds", "2", "--first", "9"]
    said = {
        subprocess.run(
            [*command_line, "--jobs", "1"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1


def test_another_seed_gives_another_trace() -> None:
    traces = [World(seed) for seed in (CALM, 8)]
    for tried in traces:
        tried.run()
    assert traces[0].fingerprint() != traces[1].fingerprint()


def test_rings_keystreams_and_shapes_differ_from_seed_to_seed() -> None:
    worlds = [World(seed) for seed in range(24)]
    assert {w.bits for w in worlds} == {16, 32}
    assert len({w.keystream for w in worlds}) == 2
    assert len({len({p.address.tier for p in w.posts}) for w in worlds}) == 3


def test_a_calm_seed_refuses_nothing_and_fails_no_round_but_for_newcomers() -> None:
    """A round that was ordered before a newcomer joined is for too few devices, and is given up."""
    for seed in (0, 8, 16, 24):
        calm = World(seed)
        calm.run()
        reasons = [result.reason for result in calm.results if result.reason]
        assert all("devices are beneath, the order is for" in reason for reason in reasons)
        assert len(reasons) <= 1
        assert not [line for line in calm.trace if "refuses" in line]


def test_wild_seeds_have_all_the_faults_there_are() -> None:
    """Else the seeds above would hold for nothing."""
    lines: list[str] = []
    for seed in range(1, 24):
        tried = World(seed)
        tried.run()
        lines += tried.trace
    for fault in (
        "crashes",
        "is restored from an older image",
        "freezes",
        "is cut off",
        "is back",
        "leaves for",
        "sets its clock by -",
        "sets its clock by +",
        "failed:",
        "refuses: replayed",
        "refuses: malformed",
        "refuses: bad_signature",
        "refuses: bad_certificate",
    ):
        assert any(fault in line for line in lines), fault
    sums = [line.split() for line in lines if " done by " in line]
    assert any(words[-1] != words[-3] for words in sums), "no sum had to do without somebody"


# ---- sabotage: the checks can fail


class ForgetfulWorld(World):
    """Remembers a contribution as something else than what was given."""

    def contribute(self, process: Process, round_: int, vector: Ring) -> None:
        wrong = vector.copy()
        wrong[0] += np.uint32(1).astype(wrong.dtype)
        super().contribute(process, round_, wrong)
        process.vectors[round_] = vector


def test_a_sum_that_is_not_the_plain_sum_is_a_violation() -> None:
    with pytest.raises(ViolationError, match="is not the plain sum"):
        ForgetfulWorld(CALM).run()


def test_a_sum_corrupted_at_the_aggregator_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """One step in one coordinate of one upload: the aggregator itself has no way to see it."""
    true = aggregator.masked_vector  # type: ignore[attr-defined]  # what it calls, whoever made it

    def corrupt(contents: wire.Contents, encoding: Any, member: str, slots: int) -> Ring:
        vector: Ring = true(contents, encoding, member, slots).copy()
        vector[0] += np.uint32(member == "dev-0").astype(vector.dtype)
        return vector

    monkeypatch.setattr(aggregator, "masked_vector", corrupt)
    with pytest.raises(ViolationError, match=r"seed 0 at .*cloud: the sum of round 1 is not"):
        World(CALM, shape=TRIO).run()


def test_a_member_that_leaves_out_a_pad_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pads do not cancel then: no sum is ever published, and that is seen."""

    def leave_out(me: str, *args: Any) -> tuple[SignedSeed, ...]:
        seeds = masking.mask_seeds(me, *args)
        return seeds[:-1] if me == "dev-0" else seeds

    monkeypatch.setattr(participant, "mask_seeds", leave_out)
    with pytest.raises(ViolationError, match="failed round 1: the masks do not come off"):
        World(CALM, shape=TRIO).run()


def test_a_pad_used_twice_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pads that no longer depend on the turn."""
    monkeypatch.setattr(masking, "pad_seed", lambda leaf, context: bytes(32))
    with pytest.raises(ViolationError, match=r"device/dev-. uses a pad on a second vector"):
        World(CALM, shape=TRIO).run()


def test_a_round_used_twice_is_a_violation() -> None:
    """A member whose disk says that it is further than its process knows."""
    tried = World(CALM)

    def forget(post: world.Post) -> None:
        post.journal.last_round = 100

    for post in tried.posts:
        if not post.children:
            tried.network.after(1.9, partial(forget, post))
    with pytest.raises(ViolationError, match=r"device/.* reuses round 1"):
        tried.run()


def test_a_member_that_forgets_its_answer_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes back to where it was before, so that a reveal that comes twice is answered twice."""
    true = participant._reveal

    def forget(s: Any, *args: Any) -> Any:
        _, effects = true(s, *args)
        return s, effects

    for phase in participant._KEYED:
        monkeypatch.setitem(participant.MOVES, (phase, wire.Reveal), forget)
    faults = Faults(duplication=1.0, until=20.0)
    monkeypatch.setattr(Gate, "admit", lambda *args, **kwargs: None)
    with pytest.raises(ViolationError, match="sends two Answers in a turn"):
        World(CALM, shape=TRIO, faults=faults).run()


def test_what_the_ledger_will_not_have() -> None:
    ledger = Ledger(lambda: "now")
    total = np.ones(3, np.uint32)
    plan: Any = wire.Plan(
        **dict.fromkeys(wire.Plan.FIELDS, 1) | {"cohort": ("a", "b")}  # type: ignore[arg-type]
    )
    with pytest.raises(ViolationError, match="now: n counts a, who gave nothing"):
        ledger.done("n", RoundDone(plan, ("a",), total), 2)
    ledger.contribute("n", "a", 1, total)
    with pytest.raises(ViolationError, match="n has unmasked 1 members, the least is 2"):
        ledger.done("n", RoundDone(plan, ("a",), total), 2)
    with pytest.raises(ViolationError, match="failed round 3 without a reason"):
        ledger.failed("n", RoundFailed(3, ""))
    ledger.failed("n", RoundFailed(3, "a reason"))
    ledger.speak("a", wire.Consent(1, 1, bytes(32), bytes(64)))
    ledger.speak("a", wire.Consent(1, 1, bytes(32), bytes(64)))
    with pytest.raises(ViolationError, match="a sends two Consents in a turn"):
        ledger.speak("a", wire.Consent(1, 1, bytes(32), bytes(63) + b"x"))
    with pytest.raises(ViolationError, match="a uploads in turn 1 after it answered"):
        ledger.speak("a", wire.Upload(1, 1, bytes(32), bytes(64), b""))


def test_a_step_that_raises_is_a_violation(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any) -> Any:
        raise RemoteError("out of a core")

    monkeypatch.setitem(participant.MOVES, (Phase.WORKING, Contribution), broken)
    with pytest.raises(ViolationError, match="RemoteError out of a step: out of a core"):
        World(CALM, shape=TRIO).run()


# ---- clocks


def with_clocks_set(hours: float) -> World:
    """All clocks are set when a device has stopped, so that everybody waits for a deadline."""
    tried = World(CALM, shape=((2, 2), (4, 4)), rounds=6)
    device = next(post for post in tried.posts if post.address.tier == "device")
    tried.network.after(6.0, partial(tried.freeze, device, 1e6))
    for post in tried.posts:
        tried.network.after(7.5, partial(tried.set_clock, post, hours * 3600))
    return tried


@pytest.mark.parametrize("hours", [-7, 7])
def test_nothing_waits_for_a_clock_to_come_round_again(hours: float) -> None:
    tried = with_clocks_set(hours)
    tried.run()
    assert tried.network.elapsed < 60


def test_without_following_the_clock_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    def stay(joint: Joint, seconds: float) -> Joint:
        return joint

    monkeypatch.setattr(endpoint, "shift", stay)
    with pytest.raises(ViolationError, match="it hangs"):
        with_clocks_set(-7).run()


# ---- the command


def test_the_command_replays_a_seed_with_its_whole_trace(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["edgechoir.sim", "--seed", "0"])
    assert command.main() == 0
    out = capsys.readouterr().out.splitlines()
    again = World(0)
    again.run()
    assert out[:-1] == again.trace
    assert again.fingerprint()[:16] in out[-1]
    assert out[-1].endswith(": ok")


def test_the_command_fails_and_says_how_to_replay(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["sim", "--seeds", "2", "--first", "4", "--jobs", "1"])
    monkeypatch.setattr(world, "LIMIT_S", 1.0)
    assert command.main() == 1
    out = capsys.readouterr().out
    assert "(replay: make sim SEED=4)" in out
    assert "(replay: make sim SEED=5)" in out
    assert "0 passed, 2 failed" in out


def test_two_processes_find_what_one_does() -> None:
    one, two = (list(try_seeds(range(4), jobs)) for jobs in (1, 2))
    assert one == two
    assert [outcome.seed for outcome in one] == [0, 1, 2, 3]


def test_an_interrupted_run_says_how_far_it_came(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*args: object) -> Any:
        yield Outcome(0, 1, 0, 1.0, "00")
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "try_seeds", interrupt)
    monkeypatch.setattr("sys.argv", ["sim", "--seeds", "2"])
    assert command.main() == command.INTERRUPTED
    said = capsys.readouterr()
    assert "interrupted after 1 of 2" in said.err
    assert "1 passed, 0 failed" in said.out


def test_refusals_are_part_of_the_trace() -> None:
    tried = World(CALM)
    tried.note(Process(tried, tried.posts[0], 1), Refused(RemoteError("?")))
    assert tried.trace == ["    0.0000 cloud/cloud refuses: refused"]
