"""mosquitto's ACL file read into rules, and two questions about topic filters.

topic [read|write|readwrite|deny] FILTER     for everybody without a name, or the user above
user NAME                                    whose lines follow
pattern [read|write|readwrite|deny] FILTER   for everybody; %u is the user name, %c the client id
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgechoir.errors import OperatorError

_WORDS: Final = frozenset({"read", "write", "readwrite", "deny"})


@dataclass(frozen=True, slots=True)
class Rule:
    """`user` is None for clients without a name, "%u" for a pattern."""

    user: str | None
    access: str
    topic: str
    where: str

    @property
    def reads(self) -> bool:
        return self.access in ("read", "readwrite")

    @property
    def writes(self) -> bool:
        return self.access in ("write", "readwrite")


def read_acl(path: Path) -> list[Rule]:
    """Raises OperatorError: it cannot be read, or a line of it is none of the three kinds."""
    try:
        text = path.read_text(errors="replace")
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror or error}") from None
    rules, user = [], None
    for number, line in enumerate(text.splitlines(), 1):
        kind, _, rest = line.strip().partition(" ")
        where = f"{path}:{number}"
        if not kind or kind.startswith("#"):
            continue
        if kind == "user":
            user = rest.strip()
        elif kind in ("topic", "pattern"):
            word, _, topic = rest.strip().partition(" ")
            access = word if word in _WORDS and topic else "readwrite"
            chosen = topic.strip() if word in _WORDS and topic else rest.strip()
            rules.append(Rule("%u" if kind == "pattern" else user, access, chosen, where))
        else:
            raise OperatorError(f"{where}: {kind!r}, expected topic, user or pattern")
    return rules


def overlap(one: str, other: str) -> bool:
    """Is there a topic that both filters match? MQTT 5, section 4.7.1.

    >>> overlap("a/+/c", "a/b/#"), overlap("a/b", "a/c")
    (True, False)
    """
    ours, theirs = one.split("/"), other.split("/")
    for position in range(max(len(ours), len(theirs))):
        mine = ours[position] if position < len(ours) else None
        its = theirs[position] if position < len(theirs) else None
        if mine == "#" or its == "#":
            return True
        if mine is None or its is None:
            return False
        if mine != its and "+" not in (mine, its):
            return False
    return True
