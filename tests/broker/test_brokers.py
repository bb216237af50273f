"""Both brokers, seen by clients over TLS: who gets in, who may write and read what."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from edgechoir.fleet.authority_dir import init_authority, sign_request
from edgechoir.fleet.enrolment import install_certificate, make_request

if TYPE_CHECKING:
    from tests.broker.conftest import Connect, Fleet, Message

    from edgechoir.broker.settings import Kind

pytestmark = pytest.mark.e2e

ROOT = "edgechoir/v1/alps"
DEADLINE_S = 20.0


@pytest.fixture(params=["mosquitto", "python"])
def kind(request: pytest.FixtureRequest) -> Kind:
    if request.param == "python":
        pytest.importorskip("amqtt")
    chosen: Kind = request.param
    return chosen


def test_a_device_writes_only_below_its_own_name(fleet: Fleet, kind: Kind) -> None:
    def body(connect: Connect) -> None:
        node, device = connect("node-1"), connect("dev-2")
        assert node.connect() == device.connect() == "connected"
        assert node.subscribe(f"{ROOT}/+/+/up/node-1") == "subscribed"
        assert node.subscribe(f"{ROOT}/+/+/status") == "subscribed"
        for topic in (
            f"{ROOT}/device/dev-1/up/node-1",
            f"{ROOT}/device/dev-1/status",
            f"{ROOT}/node/dev-2/status",
            f"{ROOT}/device/dev-2-b/status",
        ):
            device.publish(topic, b"forged", retain=True)
        device.publish(f"{ROOT}/device/dev-2/up/node-1", b"true")
        assert node.receive().payload == b"true"
        late = connect("node-1")
        late.connect()
        late.subscribe(f"{ROOT}/+/+/status")
        device.publish(f"{ROOT}/device/dev-2/status", b"nothing was retained before")
        assert late.receive().payload == b"nothing was retained before"

    fleet.serve(kind, body)


def test_a_device_reads_only_what_is_meant_for_it(fleet: Fleet, kind: Kind) -> None:
    def body(connect: Connect) -> None:
        node, device = connect("node-1"), connect("dev-2")
        node.connect()
        device.connect()
        for forbidden in ("down/dev-1", "down/+", "up/#", "metrics", "predictions"):
            topic = f"{ROOT}/node/node-1/{forbidden}".replace("+", "dev-1").replace("#", "cloud-1")
            node.publish(topic, b"secret", retain=True)
            device.subscribe(f"{ROOT}/+/+/{forbidden}")
        assert device.subscribe(f"{ROOT}/+/+/down/dev-2") == "subscribed"
        assert device.subscribe(f"{ROOT}/+/+/plan/#") == "subscribed"
        node.publish(f"{ROOT}/node/node-1/down/dev-1", b"secret")
        node.publish(f"{ROOT}/node/node-1/metrics", b"secret")
        node.publish(f"{ROOT}/node/node-1/plan/0", b"plan", retain=True)
        node.publish(f"{ROOT}/node/node-1/down/dev-2", b"for you")
        assert {device.receive().payload, device.receive().payload} == {b"plan", b"for you"}

    fleet.serve(kind, body)


def test_a_monitor_reads_what_is_for_people_and_writes_nothing(fleet: Fleet, kind: Kind) -> None:
    def body(connect: Connect) -> None:
        eye, device, node = connect("eye-1"), connect("dev-1"), connect("node-1")
        for client in (eye, device, node):
            assert client.connect() == "connected"
        device.publish(f"{ROOT}/device/dev-1/status", b"online", retain=True)
        assert eye.subscribe("edgechoir/v1/+/+/+/status") == "subscribed"
        assert eye.subscribe(f"{ROOT}/+/+/metrics") == "subscribed"
        eye.subscribe(f"{ROOT}/+/+/plan/#")
        seen: list[Message] = [eye.receive()]
        assert (seen[0].payload, seen[0].retain) == (b"online", True)

        node.subscribe(f"{ROOT}/+/+/status")
        assert node.receive().payload == b"online"
        eye.publish(f"{ROOT}/monitor/eye-1/status", b"a monitor's")
        eye.publish(f"{ROOT}/device/dev-1/status", b"forged", retain=True)
        node.publish(f"{ROOT}/node/node-1/plan/0", b"binary")
        device.publish(f"{ROOT}/device/dev-1/metrics", b"{}")
        assert eye.receive().payload == b"{}"
        device.publish(f"{ROOT}/device/dev-1/status", b"still online", retain=True)
        assert node.receive().payload == b"still online"

    fleet.serve(kind, body)


def test_who_has_no_certificate_of_this_fleet_is_refused(fleet: Fleet, kind: Kind) -> None:
    """Nobody without one, and nobody with one of another CA that uses the same names."""
    now = time.time()
    other, home = fleet.root / "other-ca", fleet.root / "impostor"
    init_authority(other, "alps", now, 30, os.urandom, None)
    request = make_request(home, "alps", "dev-1", "device", os.urandom).read_bytes()
    pem = sign_request(other, request, "device", now, 30, os.urandom, None).pem
    install_certificate(home, pem, (other / "ca.crt").read_bytes(), now)

    def body(connect: Connect) -> None:
        assert connect("dev-1").connect() == "connected"
        assert connect(None).connect() == "refused"
        assert connect("dev-1", home=home).connect() == "refused"

    fleet.serve(kind, body)


def test_a_revoked_device_is_shut_out_while_the_broker_runs(fleet: Fleet, kind: Kind) -> None:
    def body(connect: Connect) -> None:
        device, node = connect("dev-1"), connect("node-1")
        device.connect()
        node.connect()
        assert device.subscribe(f"{ROOT}/+/+/down/dev-1") == "subscribed"
        fleet.revoke("dev-1")
        deadline = time.monotonic() + DEADLINE_S
        while connect("dev-1").connect() == "connected":
            assert time.monotonic() < deadline, "the revoked device still gets in"
        node.publish(f"{ROOT}/node/node-1/down/dev-1", b"secret")
        assert connect("dev-2").connect() == "connected"
        assert device.messages.empty()

    fleet.serve(kind, body)


def test_the_old_certificate_of_a_device_that_got_a_new_key_is_refused(
    fleet: Fleet, kind: Kind
) -> None:
    now, home = time.time(), fleet.root / "replacement"
    request = make_request(home, "alps", "dev-1", "device", os.urandom).read_bytes()
    issued = sign_request(fleet.ca, request, "device", now, 30, os.urandom, None, renew=True)
    install_certificate(home, issued.pem, (fleet.ca / "ca.crt").read_bytes(), now)

    def body(connect: Connect) -> None:
        assert connect("dev-1").connect() == "refused"
        assert connect("dev-1", home=home).connect() == "connected"

    fleet.serve(kind, body)


def test_a_newly_enrolled_device_is_let_in_while_the_broker_runs(fleet: Fleet, kind: Kind) -> None:
    def body(connect: Connect) -> None:
        node = connect("node-1")
        node.connect()
        node.subscribe(f"{ROOT}/+/+/status")
        fleet.enrol("device", "dev-3")
        deadline = time.monotonic() + DEADLINE_S
        while node.messages.empty():
            assert time.monotonic() < deadline, "the new device may not write"
            device = connect("dev-3")
            if device.connect() == "connected":
                device.publish(f"{ROOT}/device/dev-3/status", b"hello")
            device.close()
        assert node.receive().payload == b"hello"

    fleet.serve(kind, body)


def test_chunks_of_full_size_arrive_in_order(fleet: Fleet, kind: Kind) -> None:
    chunks = [bytes([i]) * 131_072 for i in range(40)]

    def body(connect: Connect) -> None:
        node, device = connect("node-1"), connect("dev-1")
        node.connect()
        device.connect()
        assert device.subscribe(f"{ROOT}/+/+/down/dev-1") == "subscribed"
        for chunk in chunks:
            node.publish(f"{ROOT}/node/node-1/down/dev-1", chunk)
        assert [device.receive().payload for _ in chunks] == chunks

    fleet.serve(kind, body)


def test_retained_messages_wait_for_a_late_subscriber_and_can_be_taken_back(
    fleet: Fleet, kind: Kind
) -> None:
    def body(connect: Connect) -> None:
        node = connect("node-1")
        node.connect()
        for i in range(5):
            node.publish(f"{ROOT}/node/node-1/model/{i}", bytes([i]) * 100_000, retain=True)
        node.publish(f"{ROOT}/node/node-1/model/4", b"", retain=True)
        device = connect("dev-1")
        device.connect()
        device.subscribe(f"{ROOT}/+/+/model/#")
        got = [device.receive() for _ in range(4)]
        assert {m.topic[-1]: m.payload[:1] for m in got} == {str(i): bytes([i]) for i in range(4)}
        assert all(message.retain and len(message.payload) == 100_000 for message in got)

    fleet.serve(kind, body)


def test_the_last_will_of_a_client_that_breaks_off_is_delivered(fleet: Fleet, kind: Kind) -> None:
    topic = f"{ROOT}/device/dev-1/status"

    def body(connect: Connect) -> None:
        eye, device = connect("eye-1"), connect("dev-1", will=(topic, b"lost"))
        eye.connect()
        eye.subscribe(f"{ROOT}/+/+/status")
        device.connect()
        device.publish(topic, b"online", retain=True)
        assert eye.receive().payload == b"online"
        device.cut()
        assert eye.receive().payload == b"lost"
        late = connect("node-1")
        late.connect()
        late.subscribe(f"{ROOT}/+/+/status")
        assert late.receive().payload == b"lost"

    fleet.serve(kind, body)


def test_a_last_will_in_another_name_is_not_delivered(fleet: Fleet, kind: Kind) -> None:
    def body(connect: Connect) -> None:
        eye = connect("eye-1")
        eye.connect()
        eye.subscribe(f"{ROOT}/+/+/status")
        liar = connect("dev-2", will=(f"{ROOT}/device/dev-1/status", b"lost"))
        if liar.connect() == "connected":
            liar.cut()
        device = connect("dev-1")
        device.connect()
        device.publish(f"{ROOT}/device/dev-1/status", b"online")
        assert eye.receive().payload == b"online"

    fleet.serve(kind, body)


def test_a_packet_above_the_limit_ends_the_connection(fleet: Fleet, kind: Kind) -> None:
    def body(connect: Connect) -> None:
        device = connect("dev-1")
        device.connect()
        device.client.publish(f"{ROOT}/device/dev-1/up/node-1", bytes(200_000), qos=1)
        assert device.ended.wait(DEADLINE_S)
        assert connect("dev-1").connect() == "connected"

    fleet.serve(kind, body)


def test_a_persistent_mosquitto_keeps_retained_messages_over_a_restart(fleet: Fleet) -> None:
    topic = f"{ROOT}/node/node-1/plan/0"

    def before(connect: Connect) -> None:
        node = connect("node-1")
        node.connect()
        node.publish(topic, b"plan", retain=True)

    def after(connect: Connect) -> None:
        device = connect("dev-1")
        device.connect()
        device.subscribe(f"{ROOT}/+/+/plan/#")
        assert device.receive().payload == b"plan"

    fleet.serve("mosquitto", before, persistent=True)
    fleet.serve("mosquitto", after, persistent=True)
