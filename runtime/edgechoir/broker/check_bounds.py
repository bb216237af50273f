"""Which bounds a mosquitto.conf lacks: what one client may send, and what waits for one.

Defaults are those of mosquitto 2.0 (mosquitto.conf(5)).
"""

from collections.abc import Iterator
from typing import Final

from edgechoir.broker.complaint import Complaint
from edgechoir.broker.conf_file import Section
from edgechoir.broker.settings import HEADER_SLACK, PAYLOAD_BYTES

PACKET: Final = PAYLOAD_BYTES + HEADER_SLACK
WINDOW: Final = 8
"""Chunks that a transfer has under way (`docs/transport.md`)."""


def check_bounds(general: Section) -> Iterator[Complaint]:
    """Size of a packet, queues, memory and the life of a session."""
    packet = general.found("max_packet_size")
    size = packet.number or 0
    if size == 0:
        yield Complaint(
            "wrong",
            packet.where,
            packet.said,
            f"a bound; any client may send 256 MB at once, ours send {PACKET} bytes at most",
            f"write `max_packet_size {PACKET}`",
        )
    for option in (packet, general.found("message_size_limit")):
        needed = PACKET if option is packet else PAYLOAD_BYTES
        if 0 < (option.number or 0) < needed:
            yield Complaint(
                "wrong",
                option.where,
                option.said,
                f"{needed} bytes at least: chunks of 128 KB and their header",
                f"write `{option.key} {needed}`",
            )
    yield from _queues(general)
    memory = general.found("memory_limit")
    if not memory.number:
        yield Complaint(
            "note",
            memory.where,
            memory.said,
            "a bound on everything together: the queues' bounds are per client",
            "write `memory_limit` in bytes; who asks for more is disconnected",
        )
    expiry = general.found("persistent_client_expiration")
    if not expiry.value:
        yield Complaint(
            "wrong",
            expiry.where,
            expiry.said,
            "an end: sessions of clients that never come back stay, with their queues",
            "write `persistent_client_expiration 1d`",
        )


def _queues(general: Section) -> Iterator[Complaint]:
    count, size = general.found("max_queued_messages"), general.found("max_queued_bytes")
    if count.value and not count.number:
        yield Complaint(
            "wrong",
            count.where,
            count.said,
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
    if not size.number:
        yield Complaint(
            "wrong",
            size.where,
            size.said,
            "a bound in bytes: a thousand messages of 128 KB are 128 MB for one slow client",
            "write `max_queued_bytes 67108864`",
        )
    inflight = general.found("max_inflight_messages")
    known = inflight.number
    if inflight.value and known == 0:
        yield Complaint(
            "wrong",
            inflight.where,
            inflight.said,
            "a bound on what is under way to one client",
            "write `max_inflight_messages 20`",
        )
    elif known is not None and known < WINDOW:
        yield Complaint(
            "note",
            inflight.where,
            inflight.said,
            f"{WINDOW} or more, the window of a transfer; fewer make it slow",
            "write `max_inflight_messages 20`",
        )
