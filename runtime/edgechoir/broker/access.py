"""Who may read and write which topic, derived from the registry; nobody configures it by hand.

Every member may write below its own `<tier>/<member>/` and nowhere else. It reads what is meant
for it (`up/<own id>`, `down/<own id>`), what parents hand out (`plan`, `roster`, `model`,
`revoked`) and every `status`. A monitor reads `status`, `metrics` and `predictions`, and writes
nothing. A bridge speaks for the members behind it. Who is not in the list may do nothing.

The rules keep honest members apart and a broken one from flooding its neighbours. They are not
what secrecy or authenticity rest on: those are in the payloads.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from edgechoir.broker.bridges import HANDED_OUT, Bridge
from edgechoir.identity.naming import BRIDGE, MONITOR, SERVERS
from edgechoir.types import Address, MemberId

ROOT: Final = "edgechoir/v1"
Action = Literal["read", "write", "subscribe"]

_FOR_PEOPLE: Final = ("status", "metrics", "predictions")


@dataclass(frozen=True, slots=True)
class Grant:
    """Topic filters of one user."""

    read: tuple[str, ...]
    write: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """The rules of one federation's broker. The user name is the member id."""

    federation: str
    grants: Mapping[MemberId, Grant]

    def allows(self, user: str, action: Action, topic: str) -> bool:
        """Whether a user may write to or read from a topic, or subscribe to a filter.

        To subscribe, the whole filter must lie within what the user may read. Nothing is ever
        written outside `edgechoir/v1/<federation>/`, so a `+` in these levels asks for no more.
        """
        grant = self.grants.get(MemberId(user))
        if grant is None or "\0" in topic:
            return False
        if action == "subscribe":
            asked = _within(self.federation, topic)
            return any(covers(allowed, asked) for allowed in grant.read)
        if "+" in topic or "#" in topic:
            return False
        return any(covers(allowed, topic) for allowed in getattr(grant, action))


def access(
    federation: str,
    members: Iterable[Address],
    bridges: Mapping[MemberId, Bridge] = MappingProxyType({}),
) -> Access:
    """The rules for a list of members. Servers in it get none: a broker is not its own client.

    A bridge without an entry in `bridges` may do nothing.
    """
    grants = {
        holder.member: _grant(f"{ROOT}/{federation}", holder)
        for holder in members
        if holder.tier not in (BRIDGE, *SERVERS)
    }
    for member, bridge in bridges.items():
        grants[member] = Grant(bridge.down(federation), bridge.up(federation))
    return Access(federation, grants)


def _grant(prefix: str, holder: Address) -> Grant:
    if holder.tier == MONITOR:
        return Grant(tuple(f"{prefix}/+/+/{channel}" for channel in _FOR_PEOPLE), ())
    meant_for_it = (f"up/{holder.member}", f"down/{holder.member}")
    handed_out = (f"{channel}/#" for channel in HANDED_OUT)
    readable = (*meant_for_it, *handed_out, "status")
    return Grant(
        tuple(f"{prefix}/+/+/{channel}" for channel in readable), (f"{prefix}/{holder}/#",)
    )


def only(rules: Access, members: Iterable[MemberId]) -> Access:
    """The rules of these members alone."""
    return Access(rules.federation, {m: rules.grants[m] for m in members if m in rules.grants})


def render_acl(rules: Access) -> str:
    """mosquitto's ACL file. Whoever has no section is denied everything."""
    lines = [
        f"# Access rules of the federation {rules.federation}, written by edgechoir from",
        "# registry.json. Changes made here are lost.",
    ]
    for user, grant in sorted(rules.grants.items()):
        lines += ["", f"user {user}"]
        lines += [f"topic write {topic}" for topic in grant.write]
        lines += [f"topic read {topic}" for topic in grant.read]
    return "\n".join(lines) + "\n"


def covers(allowed: str, asked: str) -> bool:
    """Whether every topic that `asked` (a topic or a filter) matches is matched by `allowed`.

    MQTT 5, section 4.7.1: `+` is one level, a final `#` is the level before it and all below.
    """
    allowed_levels, asked_levels = allowed.split("/"), asked.split("/")
    for position, level in enumerate(allowed_levels):
        if level == "#":
            return True
        if position >= len(asked_levels):
            return False
        wanted = asked_levels[position]
        if wanted == "#" or (level != wanted and level != "+"):
            return False
    return len(allowed_levels) == len(asked_levels)


def _within(federation: str, topic_filter: str) -> str:
    """The filter with every `+` in the levels of the root and federation made plain."""
    prefix = f"{ROOT}/{federation}".split("/")
    levels = topic_filter.split("/")
    for position, plain in enumerate(prefix[: len(levels)]):
        if levels[position] == "+":
            levels[position] = plain
    return "/".join(levels)
