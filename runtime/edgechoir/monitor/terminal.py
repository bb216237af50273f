"""The terminal view: the tree of a federation, drawn anew as status documents come in.

On a terminal it is a live table, elsewhere plain lines without control codes. Only status topics
feed it; anything else that arrives is counted as refused.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Final, TextIO

from edgechoir.errors import OutOfPlace, RemoteError
from edgechoir.monitor.status import Status, parse_at
from edgechoir.monitor.summary import COLUMNS
from edgechoir.monitor.tree import Entry, Fleet, Row, View, count, fold, forget, rows
from edgechoir.transport.link import Message
from edgechoir.transport.topics import parse

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESH_S: Final = 0.5
CHILDREN_SHOWN: Final = 40
STYLES: Final = {View.LOST: "red", View.STALE: "yellow", View.STOPPED: "dim", View.ONLINE: "green"}

Clock = Callable[[], float]


def render(fleet: Fleet, now: float) -> "RenderableType":
    """The tree as a rich table."""
    from rich.table import Table
    from rich.text import Text

    shown = list(rows(fleet, now, CHILDREN_SHOWN))
    lines = [cells(row, now) for row in shown]
    titles = ("member", "state", *COLUMNS)
    used = [i for i, _ in enumerate(titles) if i < 2 or any(line[i] for line in lines)]
    table = Table(caption=headline(fleet, now), box=None, pad_edge=False)
    for i in used:
        table.add_column(titles[i], no_wrap=i < 2, overflow="fold")
    for row, line in zip(shown, lines, strict=True):
        # As Text, what a member says is never read as rich's markup.
        texts = [Text(line[i]) for i in used]
        texts[1].stylize(STYLES[row.entry.view(now)] if row.entry else "dim")
        table.add_row(*texts)
    return table


def plain(fleet: Fleet, now: float) -> list[str]:
    """The tree as lines of text."""
    return [headline(fleet, now), *(_line(row, now) for row in rows(fleet, now))]


def headline(fleet: Fleet, now: float) -> str:
    """The federation in one line: how many members look how, and what was refused."""
    if not fleet.members:
        return f"{fleet.federation}: no member has published a status"
    counts = ", ".join(f"{n} {view.value}" for view, n in count(fleet, now).items() if n)
    refused = f"; {fleet.refused.total()} documents refused" if fleet.refused else ""
    unlisted = f"; {fleet.unlisted} documents of members beyond the bound" if fleet.unlisted else ""
    return f"{fleet.federation}: {counts}{refused}{unlisted}"


def cells(row: Row, now: float) -> list[str]:
    """The texts of one line: member, state, and the columns of a summary."""
    indent = "  " * min(row.depth, 8)
    entry = row.entry
    if entry is None:
        return [f"{indent}... {row.more} more", "", *("" for _ in COLUMNS)]
    view = entry.view(now)
    age = "" if view is View.ONLINE else f" {_age(now - entry.heard)}"
    orphan = f" (parent {entry.parent} not seen)" if row.orphan else ""
    return [f"{indent}{entry.address}{orphan}", view.value + age, *entry.summary.texts()]


async def watch(
    messages: AsyncIterator[Message],
    fleet: Fleet,
    out: TextIO,
    clock: Clock,
    *,
    as_json: bool = False,
    once: bool = False,
    settle_s: float = 1.0,
    deadline_s: float = 15.0,
) -> None:
    """Show what the status topics say, until `messages` end.

    `as_json` writes each status document as it comes, one a line. `once` ends when
    nothing came for `settle_s`, at the latest after `deadline_s`, and shows what there is.
    """
    lines = as_json or not (once or out.isatty())

    def take(message: Message) -> None:
        now = clock()
        status, changed = _take(fleet, message, now)
        if status is not None and as_json:
            print(status.to_json().decode(), file=out, flush=True)
        elif changed is not None and lines:
            print(_line(Row(0, changed), now), file=out, flush=True)

    if once:
        await _settled(messages, take, settle_s, deadline_s)
        if not as_json:
            _draw(fleet, out, clock())
    elif lines:
        async for message in messages:
            take(message)
    else:
        await _live(messages, take, fleet, out, clock)


def _take(fleet: Fleet, message: Message, now: float) -> tuple[Status | None, Entry | None]:
    """Fold a message into the fleet.

    Gives the document where it was taken, and the entry where there is news in it; the figures
    that always move, answers and load, are none.
    """
    try:
        topic = parse(message.topic)
        if topic.channel != "status" or topic.federation != fleet.federation:
            raise OutOfPlace(f"a message on {topic}, expected the status of {fleet.federation}")
        if not message.payload:
            forget(fleet, topic.sender)  # a retained document is deleted with an empty one
            return None, None
        status = parse_at(topic, message.payload)
    except RemoteError as error:
        fleet.refused[error.reason] += 1
        return None, None
    before = fleet.members.get(topic.sender)
    if not fold(fleet, status, now, retained=message.retained):
        return None, None
    after = fleet.members[topic.sender]
    return status, None if before is not None and _news(before) == _news(after) else after


def _news(entry: Entry) -> tuple[object, ...]:
    texts = entry.summary
    said = (texts.model, texts.round, texts.training, texts.notes)
    return (entry.state, entry.parent, entry.instance, *said)


def _line(row: Row, now: float) -> str:
    name, *texts = cells(row, now)
    return f"{name:<24} {'  '.join(filter(None, texts))}".rstrip()


def _draw(fleet: Fleet, out: TextIO, now: float) -> None:
    if out.isatty():
        from rich.console import Console

        Console(file=out).print(render(fleet, now))
    else:
        print("\n".join(plain(fleet, now)), file=out, flush=True)


async def _settled(
    messages: AsyncIterator[Message],
    take: Callable[[Message], None],
    settle_s: float,
    deadline_s: float,
) -> None:
    # MQTT does not say which retained message is the last one: silence has to.
    try:
        async with asyncio.timeout(deadline_s):
            while True:
                async with asyncio.timeout(settle_s):
                    message = await anext(messages)
                take(message)
    except (TimeoutError, StopAsyncIteration):
        return


async def _live(
    messages: AsyncIterator[Message],
    take: Callable[[Message], None],
    fleet: Fleet,
    out: TextIO,
    clock: Clock,
) -> None:
    from rich.console import Console
    from rich.live import Live

    ended = asyncio.Event()

    async def read() -> None:
        try:
            async for message in messages:
                take(message)
        finally:
            ended.set()

    console = Console(file=out)
    with Live(render(fleet, clock()), console=console, auto_refresh=False, screen=True) as live:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(read())
            while not ended.is_set():
                live.update(render(fleet, clock()), refresh=True)
                try:
                    async with asyncio.timeout(REFRESH_S):
                        await ended.wait()
                except TimeoutError:
                    continue
    console.print(render(fleet, clock()))


def _age(seconds: float) -> str:
    """A duration in its largest unit: 42 s, 3 min, 5 h, 2 d."""
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
