"""mosquitto for a benchmark: one listener without TLS, one with, open to all who hold a certificate
of its CA."""

import os
import pwd
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.fleet import HOST, free_port
from edgechoir.broker.mosquitto_process import find_mosquitto
from edgechoir.errors import OperatorError
from edgechoir.fleet.authority_dir import init_authority, issue_broker_files, sign_request
from edgechoir.fleet.enrolment import MemberPaths, install_certificate, make_request
from edgechoir.transport.mqtt import MqttSettings, TlsFiles

WAIT_S: Final = 60.0
BOUNDS: Final = """
max_packet_size 268435455
max_inflight_messages 20
max_queued_messages 2048
max_queued_bytes 67108864
set_tcp_nodelay true
"""
"""As in the configuration that is shipped, but for the largest packet: paho sends whole blobs."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where it listens, and what a client needs for TLS."""

    plain: int
    secure: int
    tls: TlsFiles
    pid: int

    def settings(self, member: str, *, tls: bool = False) -> MqttSettings:
        """For one of our links."""
        port, files = (self.secure, self.tls) if tls else (self.plain, None)
        return MqttSettings(
            HOST, port, member, os.urandom(8), mqtt5=True, tls=files, connect_timeout=WAIT_S
        )


@contextmanager
def broker(folder: Path) -> Iterator[Broker]:
    """A mosquitto until the end of the block."""
    program = find_mosquitto()
    if program is None:
        raise OperatorError("this benchmark needs mosquitto")
    server, tls = _certificates(folder)
    plain, secure = free_port(), free_port()
    config = folder / "mosquitto.conf"
    config.write_text(
        f"user {pwd.getpwuid(os.getuid()).pw_name}\nallow_anonymous true\n{BOUNDS}"
        f"listener {plain} {HOST}\n"
        f"listener {secure} {HOST}\ntls_version tlsv1.3\nrequire_certificate true\n"
        f"cafile {server / 'ca.crt'}\ncertfile {server / 'server.crt'}\n"
        f"keyfile {server / 'server.key'}\n"
    )
    with subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            until(lambda: _listens(plain) and _listens(secure))
            yield Broker(plain, secure, tls, process.pid)
        finally:
            process.terminate()


def _certificates(folder: Path) -> tuple[Path, TlsFiles]:
    """The folder of the broker's files, and those of one member that all clients use."""
    now, authority, home = time.time(), folder / "ca", folder / "member"
    init_authority(authority, "bench", now, 1, os.urandom, None)
    server = issue_broker_files(authority, ["localhost", HOST], now, 1, os.urandom, None)
    request = make_request(home, "bench", "member", "device", os.urandom).read_bytes()
    issued = sign_request(authority, request, "device", now, 1, os.urandom, None)
    install_certificate(home, issued.pem, (authority / "ca.crt").read_bytes(), now)
    paths = MemberPaths(home)
    return Path(str(server)), TlsFiles(paths.ca, paths.certificate, paths.key)


def until(holds: Callable[[], bool]) -> None:
    """Wait for something outside of this process. Raises OperatorError."""
    deadline = time.monotonic() + WAIT_S
    while not holds():
        if time.monotonic() > deadline:
            raise OperatorError(f"waited for {WAIT_S:g} s in vain")
        time.sleep(0.02)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True
