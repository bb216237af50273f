"""The virtual network keeps virtual time and loses, doubles and delays as its faults say."""

import itertools
import random
from dataclasses import fields
from functools import partial

import pytest

from edgechoir.sim.chance import chance_of, entropy_of
from edgechoir.sim.faults import Faults, faults_of
from edgechoir.sim.network import RECONNECT_S, Network

CALM = Faults()
HALF = (0.5, 0.5)


def network(faults: Faults) -> Network:
    return Network(faults, random.Random(1))


def test_actions_run_in_the_order_of_their_time_and_ties_in_the_order_asked_for() -> None:
    net, ran = network(CALM), list[tuple[float, str]]()

    def action(name: str) -> None:
        ran.append((net.elapsed, name))

    net.after(2.0, lambda: action("late"))
    net.after(1.0, lambda: action("first"))
    net.after(1.0, lambda: action("second"))
    net.run(10, lambda: False)
    assert ran == [(1.0, "first"), (1.0, "second"), (2.0, "late")]


def test_nothing_runs_beyond_the_end_or_after_it_is_finished() -> None:
    net, ran = network(CALM), list[float]()
    for delay in (1.0, 2.0, 3.0, 11.0):
        net.after(delay, lambda: ran.append(net.elapsed))
    net.run(10, lambda: len(ran) == 2)
    assert ran == [1.0, 2.0]
    net.run(10, lambda: False)
    assert ran == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("retained", [True, False])
def test_a_lost_message_comes_again_only_if_it_was_retained(retained: bool) -> None:
    net, arrived = network(Faults(loss=1.0, delay=HALF, until=60.0)), list[float]()
    net.carry(lambda: arrived.append(net.elapsed), retained=retained)
    net.run(60, lambda: False)
    assert arrived == ([RECONNECT_S] if retained else [])


def test_a_message_may_arrive_twice() -> None:
    net, arrived = network(Faults(duplication=1.0, delay=(0.1, 3.0), until=60.0)), list[float]()
    net.carry(lambda: arrived.append(net.elapsed))
    net.run(60, lambda: False)
    assert len(arrived) == 2


def test_faults_end_when_they_are_to() -> None:
    net, arrived = (
        network(Faults(loss=1.0, duplication=1.0, delay=(3.0, 3.0), until=10.0)),
        list[float](),
    )
    net.after(10.0, lambda: net.carry(lambda: arrived.append(net.elapsed)))
    net.run(60, lambda: False)
    assert len(arrived) == 1
    assert 10.0 < arrived[0] < 10.1


def test_faults_begin_when_they_are_to() -> None:
    net, arrived = network(Faults(loss=1.0, since=5.0, until=10.0)), list[float]()
    net.carry(lambda: arrived.append(net.elapsed))
    net.after(6.0, lambda: net.carry(lambda: arrived.append(net.elapsed)))
    net.run(60, lambda: False)
    assert len(arrived) == 1


def test_a_stray_message_is_overtaken_by_those_sent_after_it() -> None:
    net, arrived = network(Faults(stray=0.3, delay=(0.01, 0.02), until=60.0)), list[int]()

    def send(i: int) -> None:
        net.carry(lambda: arrived.append(i))

    for i in range(20):
        net.after(i * 0.1, partial(send, i))
    net.run(60, lambda: False)
    assert sorted(arrived) == list(range(20))
    assert sum(a > b for a, b in itertools.pairwise(arrived)) >= 2


def test_every_eighth_seed_is_calm_and_the_others_are_not_all_alike() -> None:
    faults = [faults_of(seed, 60.0) for seed in range(80)]
    assert all(f == Faults() for f in faults[::8])
    wild = {f for i, f in enumerate(faults) if i % 8}
    assert len(wild) > 60
    names = [f.name for f in fields(Faults) if f.type == "float"]
    assert all(any(getattr(f, name) for f in wild) for name in names)


def test_chance_and_entropy_follow_from_seed_and_name_alone() -> None:
    assert chance_of(3, "a").random() == chance_of(3, "a").random()
    assert chance_of(3, "a").random() != chance_of(3, "b").random()
    assert chance_of(3, "a").random() != chance_of(4, "a").random()
    first, second = entropy_of(3, "a"), entropy_of(3, "a")
    assert [first(n) for n in (8, 32, 64)] == [second(n) for n in (8, 32, 64)]
    assert first(32) != first(32)
    assert entropy_of(3, "a")(32) != entropy_of(3, "b")(32)
    assert entropy_of(3, "a")(32) != entropy_of(4, "a")(32)
