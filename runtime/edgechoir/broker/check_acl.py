"""What is unsafe in mosquitto's access rules, by what a filter overlaps.

A member writes below its own `edgechoir/v1/<federation>/<tier>/<id>/` and nowhere else, and reads
no `up` or `down` of another. A bridge speaks for the members behind it and is in `bridges`.
"""

from collections.abc import Collection, Iterator, Sequence

from edgechoir.broker.acl_file import Rule, overlap
from edgechoir.broker.complaint import Complaint

EVERY = "edgechoir/v1/+/+/+"


def check_acl(
    rules: Sequence[Rule],
    where: str,
    *,
    bridges: Collection[str] = (),
    members: Collection[str] | None = None,
) -> Iterator[Complaint]:
    """`members`: who is in the registry and not revoked, where it is known."""
    if not rules:
        yield Complaint(
            "wrong",
            where,
            "no rule",
            "one section for each member; as it is nobody may do anything",
            "let `edgechoir broker generate` write it",
        )
    for rule in rules:
        if rule.access == "deny":
            continue
        if rule.user is None:
            yield from _nobody(rule)
        elif rule.user in bridges:
            yield from _carry(rule)
        else:
            yield from _write(rule)
            yield from _read(rule)
    if members is not None:
        yield from _registry(rules, where, members, bridges)


def _nobody(rule: Rule) -> Iterator[Complaint]:
    if overlap(rule.topic, "edgechoir/#"):
        yield Complaint(
            "wrong",
            rule.where,
            f"topic {rule.access} {rule.topic} before any user",
            "no rule for clients without a name",
            "take the line out",
        )


def _write(rule: Rule) -> Iterator[Complaint]:
    if not rule.writes or not overlap(rule.topic, "edgechoir/#"):
        return
    levels = rule.topic.split("/")
    own = len(levels) > 5 and levels[:2] == ["edgechoir", "v1"] and levels[4] == rule.user
    if not own:
        yield Complaint(
            "wrong",
            rule.where,
            f"{rule.user} may write {rule.topic}",
            f"edgechoir/v1/<federation>/<tier>/{rule.user}/#: as it is, one member can write in "
            "another's name",
            "narrow it to the member's own topics",
        )


def _carry(rule: Rule) -> Iterator[Complaint]:
    """A bridge speaks for some members, each by its name."""
    levels = rule.topic.split("/")
    if rule.writes and overlap(rule.topic, "edgechoir/#"):
        named = len(levels) > 5 and not {"+", "#"} & set(levels)
        if not named:
            yield Complaint(
                "wrong",
                rule.where,
                f"the bridge {rule.user} may write {rule.topic}",
                "one topic of one member behind it: as it is, a site can speak for others",
                "name who is behind it in bridges.toml and write the file anew",
            )
    elif rule.reads and (len(levels) < 6 or {"+", "#"} & set(levels[:6])):
        yield Complaint(
            "wrong",
            rule.where,
            f"the bridge {rule.user} may read {rule.topic}",
            "what a parent of members behind it says: as it is, a site sees all",
            "name who is behind it in bridges.toml and write the file anew",
        )


def _read(rule: Rule) -> Iterator[Complaint]:
    if not rule.reads:
        return
    if overlap(rule.topic, "$SYS/broker/x") and rule.topic.startswith("$"):
        return
    for channel in ("up", "down"):
        if not overlap(rule.topic, f"{EVERY}/{channel}/+"):
            continue
        levels = rule.topic.split("/")
        if len(levels) == 7 and levels[5] == channel and levels[6] == rule.user:
            continue
        if len(levels) > 4 and levels[4] == rule.user:
            continue
        yield Complaint(
            "wrong",
            rule.where,
            f"{rule.user} may read {rule.topic}",
            f"{EVERY}/{channel}/{rule.user}: as it is, it sees what is meant for others",
            "narrow it to what is meant for the member",
        )
        return


def _registry(
    rules: Sequence[Rule], where: str, members: Collection[str], bridges: Collection[str]
) -> Iterator[Complaint]:
    """A bridge may do without rules: it has none until it is in bridges.toml."""
    named = {rule.user for rule in rules if rule.user is not None}
    if "%u" in named:
        yield Complaint(
            "note",
            where,
            "patterns for every user name",
            "a section for each member: a revoked one that is connected, or comes by websockets, "
            "keeps its rights under a pattern",
            "let `edgechoir broker generate` write the sections, where the fleet is small enough",
        )
        return
    for stranger in sorted(named - set(members)):
        yield Complaint(
            "wrong",
            where,
            f"rules for {stranger}",
            "a member that is in the registry and not revoked",
            "write the file anew (`edgechoir broker generate`), and send mosquitto SIGHUP",
        )
    if missing := sorted(set(members) - named - set(bridges)):
        yield Complaint(
            "wrong",
            where,
            f"no rule for {', '.join(missing[:5])}{' and others' if len(missing) > 5 else ''}",
            "a section for each member of the registry",
            "write the file anew (`edgechoir broker generate`), and send mosquitto SIGHUP",
        )
