"""Sources that read files of the kernel: IIO, GPIO, the machine's own state, a serial port."""

import asyncio
import os
import pty
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from edgechoir.errors import OperatorError, SourceError
from edgechoir.pipeline.sample import Sample
from edgechoir.pipeline.sources.iio import GpioReading, IioReading
from edgechoir.pipeline.sources.serial import SerialSource, speeds
from edgechoir.pipeline.sources.system import SystemMetrics


def write(root: Path, **files: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name).write_text(text + "\n")


def test_iio_channels_are_raw_plus_offset_times_scale(tmp_path: Path) -> None:
    write(tmp_path / "iio:device0", name="adc", in_voltage0_raw="7")
    write(
        tmp_path / "iio:device1",
        name="bme280",
        in_temp_raw="2100",
        in_temp_offset="-100",
        in_temp_scale="0.01",
        in_accel_x_raw="10",
        in_accel_scale="0.5",
        in_voltage3_raw="4",
        in_voltage_scale="2",
        in_humidityrelative_input="43.5",
        in_humidityrelative_raw="1",
    )
    channels = ["temp", "accel_x", "voltage3", "humidityrelative"]
    for device in ("bme280", "iio:device1"):
        assert IioReading(device, channels, tmp_path)() == [20, 5, 8, 43.5]
    assert IioReading("adc", ["voltage0"], tmp_path)() == [7]


def test_iio_device_may_be_plugged_in_later(tmp_path: Path) -> None:
    read = IioReading("bme280", ["temp"], tmp_path)
    with pytest.raises(FileNotFoundError, match="bme280"):
        read()
    write(tmp_path / "iio:device0", name="bme280", in_temp_raw="5")
    assert read() == [5]
    with pytest.raises(OperatorError, match="no channel"):
        IioReading("bme280", ["../../etc"], tmp_path)


def test_gpio_lines_are_read_in_order(tmp_path: Path) -> None:
    write(tmp_path / "gpio17", value="1")
    write(tmp_path / "gpio4", value="0")
    assert GpioReading([17, 4], tmp_path)() == [1, 0]
    with pytest.raises(OSError, match="gpio5"):
        GpioReading([5], tmp_path)()
    with pytest.raises(OperatorError):
        GpioReading([-1], tmp_path)


DEV = """Inter-|   Receive
 face |bytes packets
    lo: 999 0 0 0 0 0 0 0 999 0
  eth0: {received} 0 0 0 0 0 0 0 {sent} 0"""


def test_system_metrics_are_shares_rates_and_degrees(tmp_path: Path) -> None:
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    write(proc, stat="cpu 10 0 10 70 10 0 0 0 0 0", loadavg="0.42 0.3 0.2 1/100 99")
    write(proc, meminfo="MemTotal: 1000 kB\nMemFree: 1 kB\nMemAvailable: 250 kB")
    write(proc / "net", dev=DEV.format(received=100, sent=50))
    write(sys / "class/thermal/thermal_zone0", temp="41500")
    write(sys / "class/thermal/thermal_zone1", temp="47250")
    write(sys / "class/power_supply/BAT0", capacity="80")
    now = 100.0
    names = ["cpu", "load", "memory", "temperature", "network", "battery"]
    read = SystemMetrics(names, tmp_path, lambda: now)
    first = read()
    assert np.isnan([first[0], first[4]]).all()
    now = 102.0
    write(proc, stat="cpu 30 0 10 140 20 0 0 0 0 0")
    write(proc / "net", dev=DEV.format(received=300, sent=250))
    assert read() == pytest.approx([0.2, 0.42, 0.75, 47.25, 200, 0.8])


def test_metric_that_the_machine_lacks_or_garbles_is_missing(tmp_path: Path) -> None:
    write(tmp_path / "proc", stat="cpu x", loadavg="")
    values = SystemMetrics(["cpu", "load", "memory", "battery", "temperature"], tmp_path)()
    assert np.isnan(values).all()
    with pytest.raises(OperatorError, match="use cpu, load"):
        SystemMetrics(["cpus"])


def test_system_metrics_of_this_machine_can_be_read() -> None:
    load, memory, disk = SystemMetrics(["load", "memory", "disk"])()
    assert load >= 0
    assert 0 < memory < 1
    assert 0 <= disk <= 1


@asynccontextmanager
async def port(**settings: float) -> AsyncIterator[tuple[SerialSource, int]]:
    """A serial source, and the other end of its line."""
    ours, theirs = pty.openpty()
    name = Path(os.ttyname(theirs))
    os.close(theirs)
    source = SerialSource(name, silence=settings.get("silence", 20.0))
    try:
        async with source:
            yield source, ours
    finally:
        os.close(ours)


async def first(source: SerialSource, n: int) -> list[Sample]:
    samples: list[Sample] = []
    async for sample in source:
        samples.append(sample)
        if len(samples) == n:
            break
    return samples


def test_serial_lines_are_numbers_or_json_and_others_are_counted() -> None:
    async def run() -> None:
        async with port() as (source, other):
            os.write(other, b"1.5, 2,\r\n3 4\nERROR 7\n\n")
            os.write(other, b'{"x": [9], "key": "probe", "y": 1}\n{"x": 9}\n5\n')
            samples = await first(source, 4)
            assert [s.x.tolist() for s in samples[1:]] == [[3, 4], [9], [5]]
            assert samples[0].x[:2].tolist() == [1.5, 2]
            assert np.isnan(samples[0].x[2])
            assert [(s.key, s.y) for s in samples[1:3]] == [("serial", None), ("probe", 1)]
            assert source.counts == {"malformed": 2}

    asyncio.run(run())


def test_serial_line_without_an_end_costs_itself_alone() -> None:
    async def run() -> None:
        async with port() as (source, other):
            flood = b"9" * 70_000 + b"\n" + b"1\n"
            loop = asyncio.get_running_loop()
            writing = loop.run_in_executor(None, os.write, other, flood[:60_000])
            taking = asyncio.create_task(first(source, 1))
            sent = await writing
            while sent < len(flood):
                sent += await loop.run_in_executor(None, os.write, other, flood[sent:])
            samples = await asyncio.wait_for(taking, 20)
            assert samples[0].x.tolist() == [1]
            assert source.counts == {"malformed": 1}

    asyncio.run(run())


def test_serial_port_that_is_not_there_silent_or_gone_can_be_tried_again(tmp_path: Path) -> None:
    async def run() -> None:
        with pytest.raises(SourceError, match="cannot be opened"):
            async with SerialSource(tmp_path / "ttyUSB0"):
                pass
        (tmp_path / "file").write_text("1\n")
        with pytest.raises(SourceError, match="cannot be opened"):
            async with SerialSource(tmp_path / "file"):
                pass
        async with port(silence=0.01) as (source, _):
            with pytest.raises(SourceError, match="said nothing"):
                await first(source, 1)
        ours, theirs = pty.openpty()
        async with SerialSource(Path(os.ttyname(theirs))) as source:
            os.close(theirs)
            os.close(ours)
            with pytest.raises(SourceError, match=r"cannot be read|was closed"):
                await first(source, 1)

    asyncio.run(run())


def test_speed_that_no_port_has_is_refused() -> None:
    assert {9600, 115_200} <= set(speeds())
    with pytest.raises(OperatorError, match="use one of"):
        SerialSource(Path("/dev/ttyS0"), 12_345)
