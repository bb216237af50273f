"""A real mosquitto, a proxy that can cut connections, and certificates for a day."""

import asyncio
import datetime
import ipaddress
import os
import pwd
import select
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from edgechoir.transport.link import Link, Will
from edgechoir.transport.memory import MemoryBroker
from edgechoir.transport.mqtt import MqttLink, MqttSettings, TlsFiles

HOST = "127.0.0.1"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextmanager
def run_mosquitto(folder: Path, port: int, extra: str = "") -> Iterator[None]:
    """mosquitto with an open listener, or one as `extra` says, until the block is left."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    if not os.access(program, os.X_OK):
        pytest.skip("mosquitto is not installed")
    config = folder / f"mosquitto-{port}.conf"
    user = pwd.getpwuid(os.getuid()).pw_name
    config.write_text(f"user {user}\nlistener {port} {HOST}\nallow_anonymous true\n{extra}")
    log = folder / f"mosquitto-{port}.log"
    with (
        log.open("wb") as out,
        subprocess.Popen([program, "-c", str(config)], stderr=out) as broker,
    ):
        try:
            wait_for_listener(port, broker, log)
            yield
        finally:
            broker.terminate()
            broker.wait(10)


def wait_for_listener(port: int, broker: subprocess.Popen[bytes], log: Path) -> None:
    """Try to connect until it works, at most 10 s."""
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection((HOST, port), 1).close()
        except ConnectionRefusedError:
            assert broker.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            select.select([], [], [], 0.02)
        else:
            return


@pytest.fixture
def start_mosquitto(tmp_path: Path) -> Iterator[Callable[[int, str], subprocess.Popen[bytes]]]:
    """(port, configuration) -> a running mosquitto, open to all, to be killed and started anew."""
    program = shutil.which("mosquitto") or "/usr/sbin/mosquitto"
    if not os.access(program, os.X_OK):
        pytest.skip("mosquitto is not installed")
    started: list[subprocess.Popen[bytes]] = []

    def start(port: int, extra: str) -> subprocess.Popen[bytes]:
        config = tmp_path / f"{len(started)}.conf"
        user = pwd.getpwuid(os.getuid()).pw_name
        config.write_text(f"user {user}\nlistener {port} {HOST}\nallow_anonymous true\n{extra}")
        log = config.with_suffix(".log")
        with log.open("wb") as out:
            broker = subprocess.Popen([program, "-c", str(config)], stderr=out)
        started.append(broker)
        wait_for_listener(port, broker, log)
        return broker

    try:
        yield start
    finally:
        for broker in started:
            broker.kill()
            broker.wait(10)


@dataclass(slots=True)
class Proxy:
    """Carries bytes between links and the broker; can cut them and refuse new ones."""

    port: int
    target: int
    refusing: bool = False
    swallowing: bool = False
    """Take all bytes and pass none on: nobody hears of it."""
    _writers: set[asyncio.StreamWriter] | None = None

    def cut(self) -> None:
        """Break every connection and refuse new ones until `mend`."""
        self.refusing = True
        for writer in tuple(self._writers or ()):
            writer.transport.abort()

    def mend(self) -> None:
        self.refusing = self.swallowing = False

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                if not self.swallowing:
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        broker_reader, broker_writer = await asyncio.open_connection(HOST, self.target)
        assert self._writers is not None
        pair = {writer, broker_writer}
        self._writers |= pair
        await asyncio.gather(self._carry(reader, broker_writer), self._carry(broker_reader, writer))
        self._writers -= pair


@asynccontextmanager
async def proxy_to(target: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(0, target, _writers=set())
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(proxy.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(accept, HOST, 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.cut()
        server.close()
        await server.wait_closed()
        if tasks:
            await asyncio.wait(tasks)


@dataclass(frozen=True, slots=True)
class Trial:
    """What the promises of a link are tried on: links to one broker, each can be cut off."""

    link: Callable[..., Link]
    cut: Callable[[str], None]
    mend: Callable[[str], None]


OpenTrial = Callable[[], AbstractAsyncContextManager[Trial]]

ACCESS = "topic readwrite open/#\n"
"""mosquitto's access list for the trials; in memory the same."""


@asynccontextmanager
async def memory_trial() -> AsyncIterator[Trial]:
    broker = MemoryBroker(access=lambda member, want, topic: topic.startswith("open/"))
    yield Trial(broker.link, broker.cut, broker.mend)


def mqtt_trial(port: int) -> OpenTrial:
    @asynccontextmanager
    async def trial() -> AsyncIterator[Trial]:
        proxies: dict[str, Proxy] = {}
        async with proxy_to(port) as one, proxy_to(port) as two, proxy_to(port) as three:
            spare = [one, two, three]

            def link(member: str, will: Will | None = None) -> MqttLink:
                proxies[member] = spare.pop()
                return MqttLink(settings(proxies[member].port, member, will=will))

            yield Trial(link, lambda m: proxies[m].cut(), lambda m: proxies[m].mend())

    return trial


def settings(
    port: int,
    member: str = "a",
    *,
    host: str = HOST,
    will: Will | None = None,
    tls: TlsFiles | None = None,
    keepalive: int = 20,
    inbox_messages: int = 64,
    connect_timeout: float = 5.0,
) -> MqttSettings:
    return MqttSettings(
        host,
        port,
        member,
        os.urandom(8),
        tls=tls,
        will=will,
        keepalive=keepalive,
        connect_timeout=connect_timeout,
        retry_first=0.02,
        retry_last=0.1,
        inbox_messages=inbox_messages,
    )


@pytest.fixture(scope="session")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    folder = tmp_path_factory.mktemp("mosquitto")
    (folder / "acl").write_text(ACCESS)
    folder.chmod(0o755)
    port = free_port()
    with run_mosquitto(folder, port, f"acl_file {folder / 'acl'}\n"):
        yield port


@pytest.fixture(params=["memory", pytest.param("mqtt", marks=pytest.mark.e2e)])
def open_trial(request: pytest.FixtureRequest) -> OpenTrial:
    if request.param == "memory":
        return memory_trial
    return mqtt_trial(request.getfixturevalue("mosquitto"))


class Authority:
    """A certificate authority of the tests; writes PEM files into `folder`."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca = self._write(f"{name}.crt", self._sign(self._name, self._key, days=1, ca=True))

    def issue(self, name: str, *, days: int = 1, begins: int = -1) -> TlsFiles:
        """Files for a holder; negative `days`: expired that long ago. `begins` in days from now."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._write(
            f"{name}.crt", self._sign(subject, key, days=days, ca=False, begins=begins)
        )
        pem = self._folder / f"{name}.key"
        pem.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return TlsFiles(self.ca, certificate, pem)

    def _write(self, name: str, certificate: x509.Certificate) -> Path:
        path = self._folder / name
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        days: int,
        ca: bool,
        begins: int = -1,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        end = now + datetime.timedelta(days=days)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, end) + datetime.timedelta(days=begins))
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )


@dataclass(frozen=True, slots=True)
class TlsTrial:
    """A broker with mutual TLS, and files of members good and bad."""

    port: int
    member: TlsFiles
    stranger: TlsFiles
    expired: TlsFiles
    wrong_ca: TlsFiles
    missing: TlsFiles
    early: TlsFiles


@contextmanager
def tls_trial(folder: Path, server_days: int, server_begins: int = -1) -> Iterator[TlsTrial]:
    ours, other = Authority(folder, "ours"), Authority(folder, "other")
    server = ours.issue("server", days=server_days, begins=server_begins)
    member = ours.issue("member")
    stranger = other.issue("stranger")
    tls = (
        f"cafile {server.ca}\ncertfile {server.certificate}\nkeyfile {server.key}\n"
        "require_certificate true\nuse_identity_as_username true\n"
    )
    port = free_port()
    with run_mosquitto(folder, port, tls):
        yield TlsTrial(
            port,
            member,
            TlsFiles(ours.ca, stranger.certificate, stranger.key),
            ours.issue("expired", days=-1),
            TlsFiles(other.ca, member.certificate, member.key),
            TlsFiles(ours.ca, folder / "none.crt", folder / "none.key"),
            ours.issue("early", days=3, begins=2),
        )


@pytest.fixture(scope="session")
def tls_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsTrial]:
    with tls_trial(tmp_path_factory.mktemp("tls"), 1) as trial:
        yield trial


@pytest.fixture
def expired_broker(tmp_path: Path) -> Iterator[TlsTrial]:
    with tls_trial(tmp_path, -1) as trial:
        yield trial


@pytest.fixture
def early_broker(tmp_path: Path) -> Iterator[TlsTrial]:
    with tls_trial(tmp_path, 3, 2) as trial:
        yield trial


@pytest.fixture
def faulty_way(mosquitto: int) -> Callable[[], AbstractAsyncContextManager[Proxy]]:
    """A proxy to the broker whose faults can be chosen."""
    return lambda: proxy_to(mosquitto)


@pytest.fixture
def free() -> int:
    return free_port()


@pytest.fixture
def broker_at(tmp_path: Path) -> Iterator[Callable[[int], Callable[[], None]]]:
    """port -> start mosquitto there; gives what stops it."""
    with ExitStack() as all_brokers:

        def start(port: int) -> Callable[[], None]:
            stack = ExitStack()
            stack.enter_context(run_mosquitto(tmp_path, port))
            all_brokers.push(stack)
            return stack.close

        yield start
