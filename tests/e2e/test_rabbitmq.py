"""The same fleet on RabbitMQ's MQTT plugin, which speaks MQTT 3.1.1 alone and has its own rules.

Needs Debian's rabbitmq-server (3.10) or a later one, which the tests do not install themselves.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgechoir.broker.rabbitmq import rabbitmq_files
from edgechoir.broker.roster import read_roster
from edgechoir.broker.settings import BrokerSettings
from edgechoir.fleet.broker_files import BrokerFiles
from edgechoir.transport.mqtt import MqttLink, MqttSettings
from edgechoir.transport.receiver import Receiver
from edgechoir.transport.sender import Outcome, Sender
from edgechoir.transport.stream import TlsFiles
from edgechoir.transport.topics import Topic, answering, parse
from edgechoir.transport.transfer import Transfers
from edgechoir.types import Address, MemberId

if TYPE_CHECKING:
    from tests.e2e.conftest import Fleet, FleetOf

PROGRAMS = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.torch,
    pytest.mark.timeout(240),
    pytest.mark.skipif(not PROGRAMS, reason="RabbitMQ is not installed (Debian: rabbitmq-server)"),
    pytest.mark.skipif(shutil.which("mosquitto_sub") is None, reason="no mosquitto-clients"),
]
TREE = (
    ("cloud", "cloud", None),
    ("node", "node-1", "cloud"),
    ("device", "dev-1", "node-1"),
    ("device", "dev-2", "node-1"),
    ("device", "dev-3", "cloud"),
)
ROOT = "edgechoir/v1/digits"
START_S = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Rabbit:
    """A fleet whose broker is RabbitMQ."""

    fleet: Fleet

    def client(self, program: str, member: str, *options: str) -> subprocess.CompletedProcess[str]:
        """mosquitto_pub or mosquitto_sub; the client id starts with the member's."""
        command = self.fleet.mosquitto_client(
            program, self.fleet.identity(member), "-V", "311", "-i", f"{member}.x", *options
        )
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    def link(self, member: str) -> MqttLink:
        files = self.fleet.identity(member)
        tls = TlsFiles(files.ca, files.certificate, files.key)
        return MqttLink(MqttSettings("localhost", self.fleet.port, member, os.urandom(8), tls=tls))


@pytest.fixture(scope="module")
def rabbit(make_fleet: FleetOf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rabbit]:
    folder = tmp_path_factory.mktemp("rabbit")
    with make_fleet(folder, TREE, 500) as fleet:
        fleet.stop("broker")  # it was mosquitto
        files = BrokerFiles(folder / "ca" / "broker")
        settings = BrokerSettings(files, folder, address="127.0.0.1", port=fleet.port)
        home = folder / "rabbitmq"
        home.mkdir()
        for name, text in rabbitmq_files(settings, read_roster(files).federation, home).items():
            (home / name).write_text(text)
        epmd = str(free_port())
        environment = {
            **os.environ,
            "HOME": str(home),
            "RABBITMQ_NODENAME": f"test{os.getpid()}@localhost",
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "log"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "ERL_EPMD_PORT": epmd,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }
        log = folder / "rabbitmq.log"
        with (
            log.open("wb") as output,
            subprocess.Popen(
                [PROGRAMS[-1]],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
            ) as process,
        ):
            try:
                wait_for(fleet.port, process, log)
                yield Rabbit(fleet)
            finally:
                fleet.kill_all()
                os.killpg(process.pid, signal.SIGKILL)
                subprocess.run(
                    ["epmd", "-port", epmd, "-kill"], capture_output=True, check=False, timeout=10
                )


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except ConnectionRefusedError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        else:
            return


def test_members_get_in_by_their_certificate_and_keep_to_their_own_topics(rabbit: Rabbit) -> None:
    publish = partial(rabbit.client, "mosquitto_pub", "dev-1", "-q", "1", "-m", "said", "-r", "-t")
    read = partial(rabbit.client, "mosquitto_sub", "monitor", "-q", "1", "-W", "2", "-C", "1", "-t")
    assert publish(f"{ROOT}/device/dev-1/status").returncode == 0
    assert read(f"{ROOT}/device/dev-1/status").stdout == "said\n"
    assert publish(f"{ROOT}/device/dev-2/status").returncode != 0
    assert read(f"{ROOT}/device/dev-2/status").stdout == ""
    assert rabbit.client(
        *("mosquitto_pub", "monitor", "-q", "1", "-m", "x", "-t", f"{ROOT}/monitor/monitor/status")
    ).returncode
    for forbidden in (f"{ROOT}/+/+/down/dev-1", f"{ROOT}/#", f"{ROOT}/+/+/plan/#"):
        assert read(forbidden).stdout == ""
    stranger = ("-h", "127.0.0.1", "-p", str(rabbit.fleet.port), "-t", "a", "-m", "b")
    ca = ("--cafile", str(rabbit.fleet.identity("dev-1").ca))
    for options in (stranger, (*stranger, *ca)):
        assert subprocess.run(
            ["mosquitto_pub", *options], capture_output=True, check=False
        ).returncode


def test_a_retained_message_reaches_who_asks_for_its_very_topic(rabbit: Rabbit) -> None:
    topic = f"{ROOT}/node/node-1/model/0"
    command = ("mosquitto_pub", "node-1", "-q", "1", "-r", "-m", "model", "-t", topic)
    assert rabbit.client(*command).returncode == 0
    late = partial(rabbit.client, "mosquitto_sub", "dev-1", "-q", "1", "-W", "2", "-C", "1", "-t")
    assert late(topic).stdout == "model\n"
    assert late(topic[:-1] + "+").stdout == "", "the note in broker/rabbitmq.py is out of date"
    assert rabbit.client(*command[:5], "-n", "-t", topic).returncode == 0


def test_a_blob_of_several_megabytes_arrives_whole_over_mqtt_3_1_1(rabbit: Rabbit) -> None:
    blob = os.urandom(6 << 20)
    node = Address("node", MemberId("node-1"))
    device = Address("device", MemberId("dev-1"))

    def transfers(link: MqttLink, me: Address) -> Transfers:
        def answer(text: str) -> str:
            return str(answering(parse(text), me))

        return Transfers(
            link, Sender(1.0, 4.0), Receiver(os.urandom(8), 64 << 20), answer, time.monotonic
        )

    async def trial() -> None:
        async with (
            rabbit.link("node-1") as above,
            rabbit.link("dev-1") as below,
            asyncio.TaskGroup() as group,
        ):
            up, down = transfers(above, node), transfers(below, device)
            got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

            async def take(link: MqttLink, ours: Transfers) -> None:
                async for message in link.messages():
                    for whole in ours.take(message.topic, message.payload):
                        got.set_result(whole)

            tasks = [
                group.create_task(work)
                for work in (up.run(), down.run(), take(above, up), take(below, down))
            ]
            await above.subscribe(f"{ROOT}/+/+/up/node-1")
            await below.subscribe(f"{ROOT}/+/+/down/dev-1")
            assert "MQTT 3.1.1 over TLSv1.3" in above.state.reason
            where = str(Topic("digits", "device", device.member, "up", "node-1"))
            async with asyncio.timeout(60):
                sent = await down.start(where, blob, 60)
                assert (sent, await got == blob) == (Outcome.DELIVERED, True)
            for task in tasks:
                task.cancel()

    asyncio.run(trial())


def test_rounds_are_done_over_rabbitmq(rabbit: Rabbit) -> None:
    async def trial() -> None:
        async with rabbit.fleet.view() as view:
            rabbit.fleet.start("cloud", "node-1", "dev-1", "dev-2", "dev-3")
            await view.rounds(3, devices=3)
            rabbit.fleet.kill("dev-2")
            rabbit.fleet.start("dev-2")
            await view.rounds(2, devices=3)

    asyncio.run(trial())
