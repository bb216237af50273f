"""The terminal view is fed by status topics alone and never passes control codes on."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from rich.console import Console

from edgechoir.monitor.status import (
    InferenceStatus,
    MemberState,
    ModelStatus,
    RoundStatus,
    Status,
)
from edgechoir.monitor.terminal import plain, render, watch
from edgechoir.monitor.tree import Fleet
from edgechoir.transport.link import Message


def status(member: str, tier: Any = "device", **more: Any) -> Status:
    fields: dict[str, Any] = {
        "parent": "cloud" if tier == "device" else None,
        "state": MemberState.ONLINE,
        "updated": 100.0,
        **more,
    }
    return Status(federation="digits", tier=tier, member=member, instance="aa", since=1.0, **fields)


def message(document: Status, channel: str = "status", retained: bool = True) -> Message:
    topic = f"edgechoir/v1/{document.federation}/{document.tier}/{document.member}/{channel}"
    return Message(topic, document.to_json(), retained)


async def given_out(
    messages: list[Message], then: Callable[[], Any] | None = None
) -> AsyncIterator[Message]:
    for each in messages:
        yield each
    if then is not None:
        await then()


def watched(
    messages: list[Message], out: io.StringIO | None = None, **options: Any
) -> tuple[Fleet, str]:
    out = out or io.StringIO()
    fleet = Fleet("digits")
    asyncio.run(watch(given_out(messages), fleet, out, lambda: 100.0, **options))
    return fleet, out.getvalue()


CLOUD = status("cloud", "cloud", model=ModelStatus(version=3, accuracy=0.971))
DEVICE = status(
    "dev-01",
    round=RoundStatus(number=7, phase="collecting", members=3, expected=5),
    inference=InferenceStatus(answered=10, missed=2, p50_ms=0.4),
    drops={"malformed": 2},
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_once_shows_the_tree_and_ends() -> None:
    _, text = watched([message(DEVICE), message(CLOUD)], once=True)
    assert [line.split() for line in text.splitlines()] == [
        ["digits:", "2", "online"],
        ["cloud/cloud", "online", "v3", "97.1%"],
        [
            "device/dev-01",
            "online",
            *["7", "collecting", "3/5"],
            *["10,", "2", "missed,", "p50", "0.40", "ms"],
            *["refused", "2", "malformed"],
        ],
    ]
    assert text.splitlines()[2].startswith("  device")


def test_once_ends_when_nothing_more_comes() -> None:
    async def run() -> str:
        out = io.StringIO()
        never = asyncio.Event().wait
        stream = given_out([message(CLOUD)], never)
        await watch(stream, Fleet("digits"), out, lambda: 100.0, once=True, settle_s=0.01)
        return out.getvalue()

    assert "cloud/cloud" in asyncio.run(run())


def test_once_without_members_says_so() -> None:
    _, text = watched([], once=True)
    assert text == "digits: no member has published a status\n"


def test_json_has_one_document_a_line() -> None:
    _, text = watched([message(CLOUD), message(DEVICE)], as_json=True)
    assert [json.loads(line)["member"] for line in text.splitlines()] == ["cloud", "dev-01"]
    assert Status.from_json(text.splitlines()[1].encode()) == DEVICE


def test_without_a_terminal_only_news_makes_a_line() -> None:
    moved = status("cloud", "cloud", model=ModelStatus(version=4))
    busy = status("cloud", "cloud", model=ModelStatus(version=4), updated=105.0)
    _, text = watched([message(CLOUD), message(CLOUD), message(moved), message(busy)])
    assert [line.split()[1:] for line in text.splitlines()] == [
        ["online", "v3", "97.1%"],
        ["online", "v4"],
    ]


def test_what_is_not_a_status_is_counted_and_not_shown() -> None:
    other = DEVICE.model_copy(update={"federation": "other"})
    stolen = Message(message(CLOUD).topic, DEVICE.to_json(), True)
    fleet, text = watched(
        [
            message(DEVICE, "metrics"),
            message(other),
            stolen,
            Message("nonsense", b"{}", False),
            Message(message(DEVICE).topic, b"{", False),
        ],
        once=True,
    )
    assert fleet.members == {}
    assert fleet.refused == {"out_of_place": 2, "malformed": 3}
    assert text == "digits: no member has published a status\n"


def test_a_deleted_status_takes_its_member_away() -> None:
    fleet, _ = watched([message(DEVICE), Message(message(DEVICE).topic, b"", False)], once=True)
    assert fleet.members == {}


@pytest.mark.parametrize("options", [{"once": True}, {}, {"as_json": True}])
def test_no_control_code_reaches_what_is_not_a_terminal(options: dict[str, Any]) -> None:
    raw = json.loads(DEVICE.to_json())
    raw["round"]["phase"] = "\x1b[2Jgone\r\x9b"
    payload = json.dumps(raw).encode()
    _, text = watched([Message(message(DEVICE).topic, payload, True)], **options)
    assert "gone" in text
    assert not set(text) & {"\x1b", "\r", "\x9b"}


def test_a_terminal_gets_a_table_that_ends_with_the_last_state() -> None:
    lost = status("dev-02", state=MemberState.LOST, updated=40.0)
    out = Terminal()
    watched([message(CLOUD), message(DEVICE), message(lost)], out)
    final = out.getvalue()
    assert "lost 1 min" in final
    assert "dev-01" in final


def test_words_of_members_are_not_markup() -> None:
    odd = status("dev-01", round=RoundStatus(number=1, phase="[bold]x[/bold]"))
    fleet, _ = watched([message(odd)], once=True)
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as capture:
        console.print(render(fleet, 100.0))
    assert "[bold]x[/bold]" in capture.get()


def test_a_stale_member_shows_its_age() -> None:
    fleet, _ = watched([message(DEVICE)], once=True)
    assert "stale 2 h" in plain(fleet, 100.0 + 7200)[1]


def test_a_member_beyond_the_screen_is_counted() -> None:
    devices = [message(status(f"dev-{n:02}")) for n in range(60)]
    fleet, _ = watched([message(CLOUD), *devices], once=True)
    console = Console(file=io.StringIO(), width=200)
    with console.capture() as capture:
        console.print(render(fleet, 100.0))
    assert "... 20 more" in capture.get()
    assert len(plain(fleet, 100.0)) == 62
