"""The generated page on the wire: every message with its bytes, both state tables."""

import inspect
from collections.abc import Mapping

from edgechoir import wire
from edgechoir.codec import Codec, Many, Number, Pair, Raw, Text
from edgechoir.rounds import aggregator, participant

HEAD = """\
Numbers are big-endian. `bytes`, `text` and `list` begin with their length as u32. A reader accepts
exactly what a writer makes: one byte less, one more, a length above its bound or text that is not
UTF-8 is refused whole. Every message is the body of a signed envelope, whose form is in
[protocol.md](protocol.md#the-envelope).
"""

STATES = """\
What may happen in which phase. A message that has no cell is refused and counted as
`out_of_place`; the state stays as it was. A dash is expected there, and nothing is done.
"""


def wire_page(note: str) -> str:
    """All messages, then both state machines."""
    lines = ["# Messages and states", "", note, "", *HEAD.splitlines()]
    for kind, message in sorted(wire.KINDS.items()):
        lines += ["", f"## {kind}: {message.__name__}", "", *_doc(message), *_fields(message)]
    lines += ["", "## What is inside"]
    for inner in (wire.Plan, wire.Contents, wire.Opened):
        lines += ["", f"### {inner.__name__}", "", *_doc(inner), *_fields(inner)]
    lines += ["", "## States", "", *STATES.splitlines()]
    for title, module in (("Participant", participant), ("Aggregator", aggregator)):
        lines += ["", f"### {title}", "", *_table(module.Phase, module.MOVES)]
    return "\n".join(lines) + "\n"


def _doc(message: type) -> list[str]:
    return [*(inspect.getdoc(message) or "").splitlines(), ""]


def _fields(message: type) -> list[str]:
    fields: Mapping[str, Codec] = message.FIELDS  # type: ignore[attr-defined]  # every message has
    lines = ["| field | bytes |", "|---|---|"]
    return [*lines, *(f"| `{name}` | {_codec(codec)} |" for name, codec in fields.items())]


def _codec(codec: Codec) -> str:
    match codec:
        case Number(layout="d"):
            return "f64, finite"
        case Number(layout=layout, low=low):
            word = {"B": "u8", "H": "u16", "I": "u32", "Q": "u64"}[layout]
            return word if not low else f"{word}, from {low:g}"
        case Raw(exact=int(exact)):
            return f"bytes, exactly {exact}"
        case Raw(limit=limit):
            return f"bytes, at most {limit:,}"
        case Text(limit=limit):
            return f"text, at most {limit}"
        case Many(each=each, limit=limit):
            return f"list, at most {limit}, of ({_codec(each)})"
        case Pair(first=first, second=second):
            return f"{_codec(first)}; {_codec(second)}"
        case _:
            raise TypeError(f"{codec} has no description")


def _table(phases: type, moves: Mapping[tuple[object, type], object]) -> list[str]:
    """One row an event, one column a phase; a cell names the function that handles it."""
    columns = list(phases)  # type: ignore[call-overload]  # an Enum
    events = sorted({event for _, event in moves}, key=lambda event: (event.__module__, str(event)))
    lines = [
        "| | " + " | ".join(phase.name for phase in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for event in events:
        cells = []
        for phase in columns:
            move = moves.get((phase, event))
            name = "" if move is None else move.__name__.lstrip("_").replace("_", " ")  # type: ignore[attr-defined]  # a function
            cells.append("-" if name == "rest" else name)
        lines.append(f"| {event.__name__} | " + " | ".join(cells) + " |")
    return lines
