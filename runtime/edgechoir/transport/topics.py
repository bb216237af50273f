"""The topics of a federation: built, parsed and subscribed to in one place.

    edgechoir/v1/<federation>/<tier>/<member>/<channel>[/<rest>]

The member named in a topic is the one that may write there; a broker's access list says so.
`rest` is the other end for `up` and `down`, the chunk's index for bulk (`model/17`), and which half
of a shadow it is. Seven levels at most: AWS IoT Core allows no more.
"""

import re
from dataclasses import dataclass
from typing import Final

from edgechoir.errors import LocalError, Malformed
from edgechoir.types import NAME, Address, MemberId

ROOT: Final = "edgechoir/v1"
TIERS: Final = frozenset({"device", "node", "edge-cloud", "cloud", "monitor"})
JSON_CHANNELS: Final = ("status", "metrics", "predictions")
BULK_CHANNELS: Final = ("plan", "roster", "model", "revoked")
PAIR_CHANNELS: Final = ("up", "down")
SHADOW: Final = "shadow"
MAX_LENGTH: Final = 144
"""Bytes of the longest topic: root, two names of 32, the longest words, and a rest of 32."""

_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class Topic:
    """One topic. `str()` gives what goes to the broker.

    Raises LocalError where a part does not fit the scheme; `parse` is for topics from outside.
    """

    federation: str
    tier: str
    member: MemberId
    channel: str
    rest: str = ""

    def __post_init__(self) -> None:
        if fault := _fault(self):
            raise LocalError(f"cannot build a topic: {fault}")

    def __str__(self) -> str:
        head = f"{ROOT}/{self.federation}/{self.tier}/{self.member}/{self.channel}"
        return f"{head}/{self.rest}" if self.rest else head

    @property
    def sender(self) -> Address:
        """The member that may write to this topic."""
        return Address(self.tier, self.member)

    @property
    def stream(self) -> str:
        """The topic without a chunk's index: the key under which its chunks belong together."""
        head = f"{ROOT}/{self.federation}/{self.tier}/{self.member}/{self.channel}"
        return head if self.channel in BULK_CHANNELS or not self.rest else f"{head}/{self.rest}"


def topic(federation: str, sender: Address, channel: str, rest: str = "") -> Topic:
    """The topic on which `sender` writes `channel`."""
    return Topic(federation, sender.tier, sender.member, channel, rest)


def parse(text: str) -> Topic:
    """Read a topic that came from the broker. Raises Malformed."""
    if len(text) > MAX_LENGTH:
        raise Malformed(f"topic of {len(text)} characters, at most {MAX_LENGTH} expected")
    levels = text.split("/")
    if len(levels) not in (6, 7) or levels[:2] != ROOT.split("/"):
        raise Malformed(
            f"topic {text!r}, expected {ROOT}/<federation>/<tier>/<member>/<channel>[/<rest>]"
        )
    if len(levels) == 7 and not levels[6]:
        raise Malformed(f"topic {text!r} ends in an empty level")
    try:
        return Topic(levels[2], levels[3], MemberId(levels[4]), levels[5], "/".join(levels[6:]))
    except LocalError as error:
        raise Malformed(f"topic {text!r}: {error}") from None


def _fault(topic: Topic) -> str:
    """What is wrong with the parts, or "" when nothing is."""
    if not NAME.fullmatch(topic.federation):
        return f"federation {topic.federation!r} is not a name"
    if topic.tier not in TIERS:
        return f"tier {topic.tier!r}, expected one of {', '.join(sorted(TIERS))}"
    if not NAME.fullmatch(topic.member):
        return f"member {topic.member!r} is not a name"
    channel, rest = topic.channel, topic.rest
    if channel in JSON_CHANNELS:
        return f"{channel} takes no further level, got {rest!r}" if rest else ""
    if channel in BULK_CHANNELS:
        return (
            ""
            if not rest or _INDEX.fullmatch(rest)
            else f"{channel}/{rest!r}, expected a chunk's index"
        )
    if channel in PAIR_CHANNELS:
        return "" if NAME.fullmatch(rest) else f"{channel}/{rest!r}, expected a member"
    if channel == SHADOW:
        return (
            ""
            if rest in ("desired", "reported")
            else f"shadow/{rest!r}, expected desired or reported"
        )
    return f"channel {channel!r} is not one of ours"


def answering(asked: Topic, me: Address) -> Topic:
    """The topic on which `me` answers its peer: `up` what came `down`, and the other way.

    >>> node = Address("node", MemberId("n"))
    >>> str(answering(Topic("f", "device", MemberId("d"), "up", "n"), node))
    'edgechoir/v1/f/node/n/down/d'
    """
    channel = {"up": "down", "down": "up"}[asked.channel]
    return Topic(asked.federation, me.tier, me.member, channel, str(asked.member))


def up_filter(federation: str, member: str) -> str:
    """What children send to their parent `member`."""
    return f"{ROOT}/{federation}/+/+/up/{member}"


def down_filter(federation: str, member: str) -> str:
    """What any parent sends to the child `member`."""
    return f"{ROOT}/{federation}/+/+/down/{member}"


def channel_filter(federation: str, channel: str, sender: Address | None = None) -> str:
    """One channel of one sender, or of all: bulk channels and shadows with all that is below."""
    who = f"{sender.tier}/{sender.member}" if sender else "+/+"
    tail = "" if channel in JSON_CHANNELS else "/#"
    return f"{ROOT}/{federation}/{who}/{channel}{tail}"


def monitor_filters(federation: str = "+") -> tuple[str, ...]:
    """The channels made for people, of one federation or of all on the broker."""
    return tuple(channel_filter(federation, channel) for channel in JSON_CHANNELS)


def matches(pattern: str, text: str) -> bool:
    """Does an MQTT filter cover a topic? MQTT 5, section 4.7, without the `$` rule.

    >>> matches("a/+/c/#", "a/b/c"), matches("a/+", "a/b/c")
    (True, False)
    """
    wanted, levels = pattern.split("/"), text.split("/")
    for position, level in enumerate(wanted):
        if level == "#":
            return True
        if position >= len(levels) or level not in ("+", levels[position]):
            return False
    return len(levels) == len(wanted)
