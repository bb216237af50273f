"""What the demo writes is what an operator would: it loads, and it belongs together."""

import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from edgechoir.config.reading import load
from edgechoir.config.tiers import CloudConfig, DeviceConfig, EdgeCloudConfig, NodeConfig
from edgechoir.demo.layout import (
    DEVICES,
    FEDERATION,
    POLICY,
    TRACED,
    TRACED_NODE,
    Seat,
    lay_out,
    seats,
)
from edgechoir.demo.split import Rows
from edgechoir.fleet.enrolment import load_member
from edgechoir.tiers.process import check_identity, parent_of


def rows(count: int) -> Rows:
    return Rows(np.zeros((count, 64), np.float32), np.zeros(count, np.int64))


def test_the_tree_has_one_root_and_every_aggregator_enough_children(tmp_path: Path) -> None:
    found = seats(tmp_path)
    tiers = {seat.member: seat.tier for seat in found}
    assert len(tiers) == len(found)
    above = {"device": "node", "node": "edge-cloud", "edge-cloud": "cloud"}
    for seat in found:
        if seat.tier in above:
            assert seat.parent is not None
            assert tiers[seat.parent] == above[seat.tier]
        else:
            assert seat.parent is None
    children = Counter(seat.parent for seat in found if seat.parent is not None)
    for seat in found:
        if seat.tier not in ("device", "monitor"):
            assert children[seat.member] >= POLICY.min_members
    assert Counter(seat.tier for seat in found)["device"] == DEVICES
    assert tiers[TRACED] == "device"
    assert next(seat.parent for seat in found if seat.member == TRACED) == TRACED_NODE


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Seat]]:
    """A small tree: a device that belongs to the cloud beside a node with two."""
    folder = tmp_path_factory.mktemp("demo")
    places: tuple[tuple[str, str, str | None], ...] = (
        ("cloud", "cloud", None),
        ("node", TRACED_NODE, "cloud"),
        ("device", TRACED, TRACED_NODE),
        ("device", "dev-02", TRACED_NODE),
        ("device", "dev-03", "cloud"),
        ("monitor", "monitor", None),
    )
    members = [Seat(*place, folder / "members" / place[1]) for place in places]
    parts = [rows(30), rows(40), rows(50)]
    lay_out(folder, members, folder / "bundle", parts, 7, 18883, "auto")
    return folder, members


def test_every_member_can_load_what_is_its_own(laid_out: tuple[Path, list[Seat]]) -> None:
    for seat in laid_out[1]:
        config = load(seat.config)
        assert (config.tier, config.member, config.federation) == (
            seat.tier,
            seat.member,
            FEDERATION,
        )
        assert config.broker.port == 18883
        member = load_member(config.identity, time.time())
        check_identity(config, member)
        assert member.policy == POLICY


def test_each_member_knows_its_parent_and_how_many_children_to_wait_for(
    laid_out: tuple[Path, list[Seat]],
) -> None:
    tiers = {seat.member: seat.tier for seat in laid_out[1]}
    for seat in laid_out[1]:
        config = load(seat.config)
        if isinstance(config, DeviceConfig | NodeConfig | EdgeCloudConfig):
            parent = parent_of(config)
            assert parent is not None
            assert (parent.tier, parent.member) == (tiers[str(seat.parent)], seat.parent)
        if isinstance(config, NodeConfig | CloudConfig):
            assert config.rounds.expected_members == 2
        if isinstance(config, CloudConfig):
            assert config.rounds.rounds == 7


def test_each_device_has_its_own_samples(laid_out: tuple[Path, list[Seat]]) -> None:
    counts = []
    for seat in laid_out[1]:
        config = load(seat.config)
        if isinstance(config, DeviceConfig):
            assert config.sensor.source == "replay"
            with np.load(config.sensor.path) as arrays:
                counts.append(len(arrays["y"]))
    assert counts == [30, 40, 50]


def test_one_device_and_its_node_alone_write_a_trace(laid_out: tuple[Path, list[Seat]]) -> None:
    traced = {
        seat.member for seat in laid_out[1] if getattr(load(seat.config), "trace", None) is not None
    }
    assert traced == {TRACED, TRACED_NODE}
