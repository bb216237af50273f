"""What is unsafe or wrong in a mosquitto.conf: one function a subject, pure, over what was read.

Defaults are those of mosquitto 2.0 (mosquitto.conf(5)).
"""

from collections.abc import Iterator

from edgechoir.broker.check_bounds import PACKET, check_bounds
from edgechoir.broker.check_listener import check_listener
from edgechoir.broker.complaint import Complaint
from edgechoir.broker.conf_file import Conf, Section


def check_conf(conf: Conf) -> Iterator[Complaint]:
    """All of it but the access rules and the files that it names."""
    if not conf.listeners:
        yield Complaint(
            "wrong",
            conf.general.head.value,
            "no listener",
            "one with TLS; without any mosquitto is open to all programs of this machine",
            "write `listener 8883` with its certificates",
        )
    for listener in conf.listeners:
        yield from check_listener(conf, listener)
    yield from check_bounds(conf.general)
    yield from _behaviour(conf)
    for bridge in conf.bridges:
        yield from _bridge(bridge)


def _behaviour(conf: Conf) -> Iterator[Complaint]:
    general = conf.general
    if general.get("persistence") != "true":
        option = general.found("persistence")
        yield Complaint(
            "note",
            option.where,
            option.said,
            "true: otherwise retained messages and queues end with the process; members publish "
            "theirs again, a bridge loses what waits",
            "write `persistence true` and `persistence_location`",
        )
    if general.get("retain_available") == "false":
        option = general.found("retain_available")
        yield Complaint(
            "wrong",
            option.where,
            option.said,
            "true: status, plan, roster and model are retained",
            "take the line out",
        )
    if general.get("set_tcp_nodelay") != "true":
        option = general.found("set_tcp_nodelay")
        yield Complaint(
            "note",
            option.where,
            option.said,
            "true: small messages wait for TCP's acknowledgement else, up to 40 ms each",
            "write `set_tcp_nodelay true`",
        )
    if general.get("user") == "root":
        option = general.found("user")
        yield Complaint(
            "note", option.where, "user root", "a user of its own", "write `user mosquitto`"
        )
    for listener in conf.listeners:
        if listener.get("max_qos") == "0":
            option = listener.found("max_qos")
            yield Complaint("wrong", option.where, option.said, "1 at least", "take the line out")


def _bridge(bridge: Section) -> Iterator[Complaint]:
    if not (bridge.get("bridge_cafile") or bridge.get("bridge_capath")):
        yield Complaint(
            "wrong",
            bridge.head.where,
            f"the bridge {bridge.head.value} without TLS",
            "bridge_cafile, bridge_certfile and bridge_keyfile",
            "enrol the bridge (`edgechoir enrol --tier bridge`) and name its files",
        )
    elif not (bridge.get("bridge_certfile") and bridge.get("bridge_keyfile")):
        yield Complaint(
            "wrong",
            bridge.head.where,
            f"the bridge {bridge.head.value} without a certificate of its own",
            "bridge_certfile and bridge_keyfile: the broker above knows it by them",
            "enrol the bridge (`edgechoir enrol --tier bridge`) and name its files",
        )
    if bridge.get("bridge_insecure") == "true":
        option = bridge.found("bridge_insecure")
        yield Complaint(
            "wrong",
            option.where,
            option.said,
            "false: anyone of this fleet could stand in for the broker above",
            "take the line out; put the broker's name into its certificate (`ca broker --host`)",
        )
    for topic in bridge.all("topic"):
        words = topic.value.split()
        if words and words[0].rstrip("/") in ("#", "edgechoir/#", "edgechoir/v1/#"):
            yield Complaint(
                "wrong",
                topic.where,
                f"topic {topic.value}",
                "what the level above needs and nothing else",
                "write the lines that `edgechoir broker generate --for bridge` gives",
            )
        if len(words) > 1 and words[1] == "both":
            yield Complaint(
                "note",
                topic.where,
                f"topic {topic.value}",
                "one direction a topic: each has one writer",
                "write `in` or `out`",
            )
    if bridge.get("cleansession") == "true":
        option = bridge.found("cleansession")
        yield Complaint(
            "note",
            option.where,
            option.said,
            "false: what is said while the bridge is down waits",
            "write `cleansession false`",
        )
    packet = bridge.found("bridge_max_packet_size")
    if 0 < (packet.number or 0) < PACKET:
        yield Complaint(
            "wrong",
            packet.where,
            packet.said,
            f"{PACKET} bytes at least: chunks of 128 KB and their header",
            f"write `bridge_max_packet_size {PACKET}`",
        )
