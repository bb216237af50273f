"""A running device's pipeline, listed, paused, updated and looked into by a command."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgechoir.cli import main
from edgechoir.config import DeviceConfig, parse, template
from edgechoir.tiers.local_calls import request

if TYPE_CHECKING:
    from tests.tiers.conftest import Federation, Running


class Bench:
    """A device with its configuration in a file, as a command finds it."""

    def __init__(self, federation: Federation) -> None:
        self.federation = federation
        self.folder = federation.folder / "dev-1"
        self.path = self.folder / "config.toml"
        samples = federation.folder / "samples.npz"
        x = np.random.default_rng(1).uniform(0, 16, (40, 64)).astype(np.float32)
        np.savez(samples, x=x, y=np.zeros(40, np.int64))
        self._samples = samples

    def write(self, *pipeline: Mapping[str, object], **values: Any) -> DeviceConfig:
        text = template(
            "device",
            federation="alps",
            member="dev-1",
            parent="cloud",
            parent_tier="cloud",
            identity=str(self.federation.identity("device", "dev-1")),
            model={"bundle": str(self.federation.bundle)},
            sensor={"source": "replay", "path": str(self._samples), "rate_hz": 500.0},
            training={"enabled": False},
            pipeline=list(pipeline),
            **values,
        )
        self.folder.mkdir(exist_ok=True)
        self.path.write_text(text)
        config = parse(text, self.folder)
        assert isinstance(config, DeviceConfig)
        return config

    async def command(self, *words: str) -> int:
        action, *rest = words
        return await asyncio.to_thread(main, ["pipeline", action, str(self.path), *rest])

    async def row(self, name: str) -> dict[str, Any]:
        answer = await asyncio.to_thread(
            request, self.folder / "state", {"do": "list"}, 20.0, print
        )
        rows: dict[str, dict[str, Any]] = {row["name"]: row for row in answer["rows"]}
        return rows[name]

    async def until(self, name: str, holds: Callable[[dict[str, Any]], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds(await self.row(name)):  # asking takes its time
                pass


@pytest.fixture
def bench(federation: Federation) -> Bench:
    return Bench(federation)


async def up(running: Running, bench: Bench, config: DeviceConfig) -> None:
    running.start("dev-1", bench.federation.run_device(config))
    await running.until(lambda seen: "dev-1" in seen.statuses, "a status")
    await bench.until("infer", lambda row: row["given"] > 5)


def test_a_pipeline_is_listed_paused_resumed_and_updated(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    async def trial() -> None:
        config = bench.write({"op": "scale", "factor": 1.0})
        async with bench.federation.running() as running:
            await up(running, bench, config)
            assert await bench.command("list") == 0
            head, *rows = capsys.readouterr().out.splitlines()
            assert head.split()[:6] == ["name", "kind", "from", "in", "out", "dead"]
            assert [row.split()[0] for row in rows] == [
                "sensor",
                "scale",
                "infer",
                "publish",
                "recent",
                "store",
            ]

            assert await bench.command("pause", "scale") == 0
            paused = await bench.row("scale")
            assert paused["paused"]
            await bench.until("scale", lambda row: row["taken"] > paused["taken"] + 20)
            assert (await bench.row("scale"))["given"] == paused["given"]
            assert await bench.command("resume", "scale") == 0
            await bench.until("scale", lambda row: row["given"] > paused["given"])

            bench.write(
                {"op": "scale", "factor": 1.0},
                {"op": "window", "count": 2},
                sinks=[{"sink": "file", "path": "answers.jsonl", "input": "sensor"}],
            )
            assert await bench.command("update") == 0
            assert capsys.readouterr().out == "now running: scale, window, infer\n"
            await bench.until("file", lambda row: row["given"] > 5)
            assert (await bench.row("scale"))["given"] > paused["given"]
            await bench.until("infer", lambda row: sum(row["dead"].values()) > 0)
            capsys.readouterr()
            assert await bench.command("letters", "infer") == 0
            assert "WrongShape: the sample is (2, 64)" in capsys.readouterr().out
        said = [json.loads(line) for line in (bench.folder / "answers.jsonl").read_text().split()]
        assert len(said[0]["x"]) == 64

    asyncio.run(trial())


def test_an_update_that_cannot_work_changes_nothing(
    bench: Bench, capsys: pytest.CaptureFixture[str]
) -> None:
    async def trial() -> None:
        config = bench.write({"op": "scale", "factor": 1.0})
        async with bench.federation.running() as running:
            await up(running, bench, config)
            for wrong, said in (
                ({"pipeline": [{"op": "scael"}]}, "unknown op 'scael'"),
                ({"sinks": [{"sink": "file", "path": "no/such/folder"}]}, "create it first"),
                ({"sources": [{"source": "system"}]}, "restart the device"),
                ({"member": "dev-2"}, "not of this device"),
            ):
                text = bench.path.read_text()
                values: dict[str, Any] = dict(wrong)
                if "member" in values:
                    bench.path.write_text(text.replace('"dev-1"', '"dev-2"'))
                else:
                    bench.write(*values.pop("pipeline", ()), **values)
                assert await bench.command("update") in (1, 2)
                assert said in capsys.readouterr().err
                bench.path.write_text(text)
            assert (await bench.row("scale"))["given"] > 0

    asyncio.run(trial())


def test_the_status_names_every_step(bench: Bench) -> None:
    async def trial() -> None:
        config = bench.write({"op": "scale", "name": "to-bar"})
        async with bench.federation.running() as running:
            await up(running, bench, config)
            await running.until(lambda seen: "dev-1" in seen.statuses, "a status")
            steps = running.status("dev-1").pipeline
            assert steps is not None
            assert [step.name for step in steps] == [
                "sensor",
                "to-bar",
                "infer",
                "publish",
                "recent",
                "store",
            ]

    asyncio.run(trial())
