"""What is unsafe or wrong in a mosquitto.conf: one function a subject, pure, over what was read.

Defaults are those of mosquitto 2.0 (mosquitto.conf(5)).
"""

from collections.abc import Iterator
from typing import Final

from edgechoir.broker.complaint import Complaint
from edgechoir.broker.conf_file import Conf, Option, Section
from edgechoir.broker.settings import HEADER_SLACK, PAYLOAD_BYTES

PACKET: Final = PAYLOAD_BYTES + HEADER_SLACK
WINDOW: Final = 8
"""Chunks that a transfer has under way (`docs/transport.md`)."""


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
        yield from _door(conf, listener)
        if listener.get("certfile") or listener.get("keyfile"):
            yield from _certificates(listener)
        else:
            yield _clear_text(listener)
    yield from _bounds(conf.general)
    yield from _behaviour(conf)
    for bridge in conf.bridges:
        yield from _bridge(bridge)


def _found(section: Section, key: str) -> Option:
    """The option, or its absence at the section's own line."""
    return section.find(key) or Option(key, "", section.head.where or section.head.value)


def _say(option: Option) -> str:
    return f"{option.key} {option.value}" if option.value else f"no {option.key}"


def _door(conf: Conf, listener: Section) -> Iterator[Complaint]:
    anonymous = conf.of_listener(listener, "allow_anonymous")
    if anonymous is not None and anonymous.value == "true":
        yield Complaint(
            "wrong",
            anonymous.where,
            "allow_anonymous true",
            "false",
            "write `allow_anonymous false`",
        )
    rules = conf.of_listener(listener, "acl_file")
    plugin = conf.of_listener(listener, "plugin") or conf.of_listener(listener, "auth_plugin")
    if rules is None and plugin is None:
        yield Complaint(
            "wrong",
            listener.head.where,
            "no acl_file",
            "access rules; without them everyone in may read and write everything",
            "name the ACL that `edgechoir broker generate` writes",
        )
    if plugin is not None:
        yield Complaint(
            "note",
            plugin.where,
            f"{plugin.key} {plugin.value}",
            "rules that can be read here",
            "look at the plugin's own rules; this check cannot",
        )
    if listener.get("use_username_as_clientid") == "true":
        yield Complaint(
            "wrong",
            _found(listener, "use_username_as_clientid").where,
            "use_username_as_clientid true",
            "false: a member's process and its check-up connect side by side",
            "take the line out",
        )
    connections = _found(listener, "max_connections")
    if connections.value in ("", "-1", "0"):
        yield Complaint(
            "note",
            connections.where,
            _say(connections),
            "a bound on the connections",
            "write `max_connections` for the number of members and some",
        )


def _clear_text(listener: Section) -> Complaint:
    local = listener.head.value.partition(" ")[2].strip() in ("127.0.0.1", "::1", "localhost")
    return Complaint(
        "note" if local else "wrong",
        listener.head.where,
        f"listener {listener.head.value} without TLS",
        "certfile, keyfile and cafile",
        "name the files of the folder that `edgechoir ca broker` made",
    )


def _certificates(listener: Section) -> Iterator[Complaint]:
    by_websockets = listener.get("protocol") == "websockets"
    for key, expected in (
        ("certfile", "the broker's certificate"),
        ("keyfile", "the certificate's key"),
        ("crlfile", "the list of revoked certificates; without it they stay good"),
        ("cafile", "the fleet's CA alone"),
    ):
        option = _found(listener, key)
        if not option.value and not (key == "crlfile" and by_websockets):
            yield Complaint(
                "wrong", option.where, f"no {key}", expected, f"name it in a `{key}` line"
            )
    if (path := listener.find("capath")) is not None:
        yield Complaint(
            "wrong",
            path.where,
            f"capath {path.value}",
            "the fleet's CA alone: whoever has a certificate of another in there comes in",
            "use `cafile` with the fleet's ca.crt",
        )
    for key in ("require_certificate", "use_identity_as_username"):
        option = _found(listener, key)
        if option.value != "true":
            yield Complaint(
                "wrong",
                option.where,
                _say(option),
                {
                    "require_certificate": "true: only members get as far as MQTT",
                    "use_identity_as_username": "true: the certificate says who a client is",
                }[key],
                f"write `{key} true`",
            )
    version = _found(listener, "tls_version")
    if version.value != "tlsv1.3":
        yield Complaint(
            "note" if version.value in ("", "tlsv1.2") else "wrong",
            version.where,
            _say(version),
            "tlsv1.3, which every edgechoir client speaks",
            "write `tls_version tlsv1.3`",
        )
    if by_websockets:
        yield from _websockets(listener)


def _websockets(listener: Section) -> Iterator[Complaint]:
    yield Complaint(
        "note",
        _found(listener, "protocol").where,
        "a websockets listener",
        "help from outside: mosquitto 2.0.11 takes no notice there of tls_version and address",
        "give it an ACL of monitors alone (per_listener_settings true), set OPENSSL_CONF to a file "
        "with MinProtocol = TLSv1.3, and bound the port with a firewall",
    )
    if (revoked := listener.find("crlfile")) is not None:
        yield Complaint(
            "wrong",
            revoked.where,
            "crlfile in a websockets listener",
            "none: after a SIGHUP mosquitto 2.0.11 crashes at the next client that comes by it",
            "take the line out; the ACL keeps revoked members from everything",
        )


def _number(option: Option) -> int | None:
    try:
        return int(option.value)
    except ValueError:
        return None


def _bounds(general: Section) -> Iterator[Complaint]:
    packet = _found(general, "max_packet_size")
    size = _number(packet) or 0
    if size == 0:
        yield Complaint(
            "wrong",
            packet.where,
            _say(packet),
            f"a bound; any client may send 256 MB at once, ours send {PACKET} bytes at most",
            f"write `max_packet_size {PACKET}`",
        )
    for option in (packet, _found(general, "message_size_limit")):
        needed = PACKET if option is packet else PAYLOAD_BYTES
        if 0 < (_number(option) or 0) < needed:
            yield Complaint(
                "wrong",
                option.where,
                _say(option),
                f"{needed} bytes at least: chunks of 128 KB and their header",
                f"write `{option.key} {needed}`",
            )
    yield from _queues(general)
    memory = _found(general, "memory_limit")
    if not _number(memory):
        yield Complaint(
            "note",
            memory.where,
            _say(memory),
            "a bound on everything together: the queues' bounds are per client",
            "write `memory_limit` in bytes; who asks for more is disconnected",
        )
    expiry = _found(general, "persistent_client_expiration")
    if not expiry.value:
        yield Complaint(
            "wrong",
            expiry.where,
            _say(expiry),
            "an end: sessions of clients that never come back stay, with their queues",
            "write `persistent_client_expiration 1d`",
        )


def _queues(general: Section) -> Iterator[Complaint]:
    count, size = _found(general, "max_queued_messages"), _found(general, "max_queued_bytes")
    if count.value and not _number(count):
        yield Complaint(
            "wrong",
            count.where,
            _say(count),
            "a bound: one slow client takes up the broker's memory",
            "write `max_queued_messages 2048` and `max_queued_bytes 67108864`",
        )
    elif not count.value:
        yield Complaint(
            "note",
            count.where,
            "no max_queued_messages (1000)",
            "2048: a shorter queue drops sooner, and what it drops is sent again",
            "write `max_queued_messages 2048`",
        )
    if not _number(size):
        yield Complaint(
            "wrong",
            size.where,
            _say(size),
            "a bound in bytes: a thousand messages of 128 KB are 128 MB for one slow client",
            "write `max_queued_bytes 67108864`",
        )
    inflight = _found(general, "max_inflight_messages")
    known = _number(inflight)
    if inflight.value and known == 0:
        yield Complaint(
            "wrong",
            inflight.where,
            _say(inflight),
            "a bound on what is under way to one client",
            "write `max_inflight_messages 20`",
        )
    elif known is not None and known < WINDOW:
        yield Complaint(
            "note",
            inflight.where,
            _say(inflight),
            f"{WINDOW} or more, the window of a transfer; fewer make it slow",
            "write `max_inflight_messages 20`",
        )


def _behaviour(conf: Conf) -> Iterator[Complaint]:
    general = conf.general
    if general.get("persistence") != "true":
        option = _found(general, "persistence")
        yield Complaint(
            "note",
            option.where,
            _say(option),
            "true: otherwise retained messages and queues end with the process; members publish "
            "theirs again, a bridge loses what waits",
            "write `persistence true` and `persistence_location`",
        )
    if general.get("retain_available") == "false":
        option = _found(general, "retain_available")
        yield Complaint(
            "wrong",
            option.where,
            _say(option),
            "true: status, plan, roster and model are retained",
            "take the line out",
        )
    if general.get("set_tcp_nodelay") != "true":
        option = _found(general, "set_tcp_nodelay")
        yield Complaint(
            "note",
            option.where,
            _say(option),
            "true: small messages wait for TCP's acknowledgement else, up to 40 ms each",
            "write `set_tcp_nodelay true`",
        )
    if general.get("user") == "root":
        option = _found(general, "user")
        yield Complaint(
            "note", option.where, "user root", "a user of its own", "write `user mosquitto`"
        )
    for listener in conf.listeners:
        if listener.get("max_qos") == "0":
            option = _found(listener, "max_qos")
            yield Complaint("wrong", option.where, _say(option), "1 at least", "take the line out")


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
        option = _found(bridge, "bridge_insecure")
        yield Complaint(
            "wrong",
            option.where,
            _say(option),
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
        option = _found(bridge, "cleansession")
        yield Complaint(
            "note",
            option.where,
            _say(option),
            "false: what is said while the bridge is down waits",
            "write `cleansession false`",
        )
    packet = _found(bridge, "bridge_max_packet_size")
    if 0 < (_number(packet) or 0) < PACKET:
        yield Complaint(
            "wrong",
            packet.where,
            _say(packet),
            f"{PACKET} bytes at least: chunks of 128 KB and their header",
            f"write `bridge_max_packet_size {PACKET}`",
        )
