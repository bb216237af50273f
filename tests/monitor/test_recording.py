"""A recording keeps what a monitor may read, within its bound, whatever comes."""

import asyncio
import stat
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from edgechoir.errors import OperatorError
from edgechoir.monitor.recording import Recording, older, read_message, read_recording, recorded
from edgechoir.monitor.records import Metrics
from edgechoir.transport.link import Message

BOUND = 10_000


def metrics(number: int, member: str = "cloud") -> Metrics:
    return Metrics(
        federation="alps", tier="cloud", member=member, round=number, at=1e9, outcome="done"
    )


def message(document: Metrics, member: str = "cloud", channel: str = "metrics") -> Message:
    return Message(f"edgechoir/v1/alps/cloud/{member}/{channel}", document.to_json(), False)


def test_what_was_written_is_read_back_in_order(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "recording.jsonl"
    for numbers in (range(3), range(3, 5)):
        with closing(Recording(path, 1_000_000)) as recording:
            for number in numbers:
                recording.write(float(number), metrics(number))
    assert list(read_recording(path)) == [(float(n), metrics(n)) for n in range(5)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_newest_half_is_there_and_the_bound_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    with closing(Recording(path, BOUND)) as recording:
        for number in range(500):
            recording.write(1.0, metrics(number))
            assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= BOUND
    assert older(path).exists()
    rounds = [seen.round for _, seen in read_recording(path) if isinstance(seen, Metrics)]
    assert rounds == list(range(500 - len(rounds), 500))
    assert len(rounds) > 20


def test_lines_that_are_none_of_ours_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    with closing(Recording(path, BOUND)) as recording:
        recording.write(1.0, metrics(1))
    with path.open("ab") as file:
        file.write(b'\n[]\n{"at":1,"channel":"up","document":{}}\n\xff\xfe\n' + b"[" * 50_000)
        file.write(b'\n{"at":2,"channel":"metrics","docum')
    assert list(read_recording(path)) == [(1.0, metrics(1))]


def test_only_documents_of_whoever_may_write_there_are_taken() -> None:
    assert read_message(message(metrics(1)), "alps") == metrics(1)
    assert read_message(message(metrics(1)), "dunes") is None
    assert read_message(message(metrics(1), member="other"), "alps") is None
    assert read_message(message(metrics(1), channel="predictions"), "alps") is None
    assert read_message(Message("edgechoir/v1/alps/cloud/cloud/status", b"", True), "alps") is None
    assert read_message(Message("nothing", b"{}", True), "alps") is None


@pytest.mark.parametrize("keep_metrics", [True, False])
def test_messages_go_on_to_who_shows_them(tmp_path: Path, keep_metrics: bool) -> None:
    odd = Message("edgechoir/v1/alps/cloud/cloud/status", b"{", True)
    given = [message(metrics(1)), odd]

    async def stream() -> AsyncIterator[Message]:
        for each in given:
            yield each

    async def trial(recording: Recording) -> list[Message]:
        passing = recorded(stream(), "alps", recording, lambda: 5.0, metrics=keep_metrics)
        return [each async for each in passing]

    with closing(Recording(tmp_path / "r.jsonl", BOUND)) as recording:
        assert asyncio.run(trial(recording)) == (given if keep_metrics else [odd])
    assert list(read_recording(tmp_path / "r.jsonl")) == [(5.0, metrics(1))]


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match="cannot be made"):
        Recording(tmp_path / "file" / "r.jsonl", BOUND)
    with pytest.raises(OperatorError, match="cannot be read"):
        list(read_recording(tmp_path / "nothing"))
