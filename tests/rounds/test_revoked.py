"""A member whose certificate is revoked holds nobody up and is not heard again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgechoir import wire
from edgechoir.rounds.events import Begin

if TYPE_CHECKING:
    from tests.rounds.conftest import Stage


def revoke(stage: Stage, name: str, *at: str) -> None:
    """A list that names this member reaches some, or all but itself."""
    serial = stage.identities[name].certificate.serial
    for where in at or tuple(who for who in stage.voices if who != name):
        endpoint = stage.voices[where].endpoint
        stage.did(where, endpoint.revoke(frozenset({serial}), stage.now))
    stage.run()


def test_a_round_does_not_wait_for_a_member_revoked_in_it(trio: Stage) -> None:
    trio.idle.add("dev-2")
    trio.order("cloud", 1)
    assert trio.sums("cloud") == []
    revoke(trio, "dev-2")
    (done,) = trio.sums("cloud")
    assert done.survivors == ("dev-1", "dev-3")
    assert (done.total == trio.plain_sum(done)).all()


def test_the_next_round_is_without_the_revoked_one(trio: Stage) -> None:
    trio.order("cloud", 1)
    revoke(trio, "dev-2")
    trio.order("cloud", 2)
    first, second = trio.sums("cloud")
    assert first.survivors == ("dev-1", "dev-2", "dev-3")
    assert second.survivors == ("dev-1", "dev-3")


def test_a_revoked_member_is_neither_let_in_again_nor_called_back(trio: Stage) -> None:
    revoke(trio, "dev-2")
    voice, cloud = trio.voices["dev-2"], trio.voices["cloud"].endpoint
    cloud.reclaim(voice.identity.address, voice.instance)
    down = cloud.joint.down
    assert down is not None
    assert "dev-2" not in {**down.members, **down.pending}
    trio.device("dev-2", "cloud")
    trio.happen("dev-2", Begin(1))
    trio.run()
    assert cloud.drops["revoked"] == 1
    assert cloud.joint.down is not None
    assert "dev-2" not in {**cloud.joint.down.members, **cloud.joint.down.pending}


def test_members_refuse_a_roster_with_a_revoked_member_in_it(stage: Stage) -> None:
    from edgechoir.rounds.aggregator import Limits

    stage.add("cloud", "cloud", limits=Limits(expected=3))
    for name in ("dev-1", "dev-2", "dev-3"):
        stage.device(name, "cloud")
    revoke(stage, "dev-2", "dev-1")
    stage.begin()
    assert stage.voices["dev-1"].endpoint.drops["revoked"] == 1
    assert stage.letters(wire.Bundles, sender="dev-1") == []
    assert len(stage.letters(wire.Bundles, sender="dev-3")) == 1


def test_a_model_of_a_revoked_cloud_is_not_taken(trio: Stage) -> None:
    model = wire.Model(1, 1, bytes(32), bytes(48), (), 3, 30, 0)
    revoke(trio, "cloud", "dev-1")
    before = trio.voices["dev-1"].endpoint.drops["revoked"]
    trio.receive("dev-1", trio.sign("cloud", model))
    assert trio.voices["dev-1"].endpoint.drops["revoked"] == before + 1
