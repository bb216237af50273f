"""A small fleet on disk, a broker for it, and MQTT clients that wait instead of sleeping."""

import asyncio
import contextlib
import os
import queue
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.reasoncodes import ReasonCode

from edgechoir.broker.run import running_broker
from edgechoir.broker.settings import BrokerSettings, Kind
from edgechoir.fleet.authority_dir import (
    init_authority,
    issue_broker_files,
    revoke,
    sign_request,
)
from edgechoir.fleet.broker_files import BrokerFiles
from edgechoir.fleet.enrolment import MemberPaths, install_certificate, make_request

WAIT_S = 20.0
MEMBERS = (
    ("device", "dev-1"),
    ("device", "dev-2"),
    ("node", "node-1"),
    ("monitor", "eye-1"),
)


@dataclass(frozen=True)
class Message:
    topic: str
    payload: bytes
    retain: bool


class Client:
    """A paho client whose every step waits for its answer, at most WAIT_S."""

    def __init__(
        self,
        port: int,
        ca: Path,
        member: MemberPaths | None,
        client_id: str,
        will: tuple[str, bytes] | None = None,
        version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
        transport: Literal["tcp", "websockets"] = "tcp",
    ) -> None:
        self.port = port
        self.messages: queue.Queue[Message] = queue.Queue(1000)
        self.answers: queue.Queue[str] = queue.Queue(1000)
        self.ended = threading.Event()
        self.client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id,
            protocol=version,
            transport=transport,
            reconnect_on_failure=False,
        )
        if member is None:
            self.client.tls_set(str(ca))
        else:
            self.client.tls_set(str(ca), str(member.certificate), str(member.key))
        if will is not None:
            self.client.will_set(*will, qos=1, retain=True)
        self.client.on_connect = self._on_connect
        self.client.on_connect_fail = lambda *_: self.answers.put("refused")
        self.client.on_disconnect = self._on_disconnect
        self.client.on_subscribe = self._on_subscribe
        self.client.on_publish = lambda *_: self.answers.put("published")
        self.client.on_message = lambda _client, _data, message: self.messages.put(
            Message(message.topic, bytes(message.payload), message.retain)
        )

    def _on_connect(self, _c: mqtt.Client, _d: Any, _f: Any, reason: ReasonCode, _p: Any) -> None:
        self.answers.put("connected" if not reason.is_failure else f"refused: {reason}")

    def _on_disconnect(self, *_: Any) -> None:
        self.ended.set()
        self.answers.put("refused")

    def _on_subscribe(
        self, _c: mqtt.Client, _d: Any, _m: int, reasons: list[ReasonCode], _p: Any
    ) -> None:
        self.answers.put("denied" if reasons[0].is_failure else "subscribed")

    def connect(self) -> str:
        """ "connected", or "refused" with the reason where the broker gave one."""
        # A TLS refusal may come before or after the client's handshake has ended.
        # A timeout is none.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            self.client.connect("127.0.0.1", self.port, keepalive=30)
            self.client.loop_start()
            return self.answers.get(timeout=WAIT_S)
        return "refused"

    def subscribe(self, topic_filter: str) -> str:
        self.client.subscribe(topic_filter, qos=1)
        return self.answers.get(timeout=WAIT_S)

    def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        self.client.publish(topic, payload, qos=1, retain=retain)
        assert self.answers.get(timeout=WAIT_S) == "published"

    def receive(self) -> Message:
        return self.messages.get(timeout=WAIT_S)

    def cut(self) -> None:
        """Break the connection without a goodbye."""
        sock = self.client.socket()
        assert isinstance(sock, ssl.SSLSocket)
        sock.shutdown(socket.SHUT_RDWR)
        assert self.ended.wait(WAIT_S)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


class Connect(Protocol):
    def __call__(
        self,
        member: str | None,
        *,
        home: Path | None = None,
        client_id: str = "",
        will: tuple[str, bytes] | None = None,
        version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
    ) -> Client: ...


@dataclass(frozen=True)
class Fleet:
    """Directories of a CA, its broker and its members, and the settings of a broker for it."""

    root: Path
    settings: BrokerSettings

    @property
    def ca(self) -> Path:
        return self.root / "ca"

    def enrol(self, tier: str, member: str) -> MemberPaths:
        home = self.root / member
        request = make_request(home, "alps", member, tier, os.urandom).read_bytes()
        pem = sign_request(self.ca, request, tier, time.time(), 30, os.urandom, None).pem
        install_certificate(home, pem, (self.ca / "ca.crt").read_bytes(), time.time())
        return MemberPaths(home)

    def revoke(self, member: str) -> None:
        revoke(self.ca, member, time.time(), None)

    def serve(self, kind: Kind, body: Callable[[Connect], None], **changes: Any) -> None:
        """Run `body` in a thread while a broker of that kind answers."""
        settings = replace(self.settings, kind=kind, **changes)

        async def main() -> None:
            async with running_broker(settings):
                await asyncio.to_thread(self._with_clients, settings.port, body)

        asyncio.run(main())

    def _with_clients(self, port: int, body: Callable[[Connect], None]) -> None:
        clients: list[Client] = []

        def connect(
            member: str | None,
            *,
            home: Path | None = None,
            client_id: str = "",
            will: tuple[str, bytes] | None = None,
            version: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv311,
        ) -> Client:
            paths = MemberPaths(home or self.root / member) if member else None
            name = client_id or f"{member}-{len(clients)}"
            clients.append(Client(port, self.ca / "ca.crt", paths, name, will, version))
            return clients[-1]

        try:
            body(connect)
        finally:
            for client in clients:
                client.close()


Transport = Literal["tcp", "websockets"]


class NewClient(Protocol):
    def __call__(
        self,
        fleet: Fleet,
        member: str,
        port: int,
        will: tuple[str, bytes] | None = None,
        transport: Transport = "tcp",
    ) -> Client: ...


@pytest.fixture
def new_client() -> Iterator[NewClient]:
    """Connected clients of any broker, closed when the test ends."""
    clients: list[Client] = []

    def make(
        fleet: Fleet,
        member: str,
        port: int,
        will: tuple[str, bytes] | None = None,
        transport: Transport = "tcp",
    ) -> Client:
        name = f"{member}-{port}-{len(clients)}"
        paths = MemberPaths(fleet.root / member)
        client = Client(port, fleet.ca / "ca.crt", paths, name, will, transport=transport)
        clients.append(client)
        assert client.connect() == "connected"
        return client

    yield make
    for client in clients:
        client.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    now = time.time()
    ca = tmp_path / "ca"
    init_authority(ca, "alps", now, 365, os.urandom, None)
    files = issue_broker_files(ca, ["127.0.0.1", "localhost"], now, 30, os.urandom, None)
    fleet = Fleet(tmp_path, settings_of(files, tmp_path))
    for tier, member in MEMBERS:
        fleet.enrol(tier, member)
    return fleet


@pytest.fixture
def port() -> int:
    return free_port()


def settings_of(files: BrokerFiles, root: Path) -> BrokerSettings:
    return BrokerSettings(
        files=files, state=root / "state", address="127.0.0.1", port=free_port(), poll_s=0.05
    )
