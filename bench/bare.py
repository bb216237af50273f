"""What ours is compared with: paho as it is usually run, and nothing but sockets."""

import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from bench.fleet import HOST
from edgechoir.errors import OperatorError
from edgechoir.transport.mqtt import TlsFiles

WAIT_S: Final = 60.0
TOPIC: Final = b"bare"


def paho_client(port: int) -> paho.Client:
    """A connected client on a thread of its own."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    client.connect(HOST, port)
    client.loop_start()
    return client


def paho_stop(client: paho.Client) -> None:
    client.disconnect()
    client.loop_stop()


class PahoPair:
    """Two paho clients in this process."""

    def __init__(self, port: int) -> None:
        self._arrived = threading.Event()
        ready = threading.Event()
        self._sender, self._receiver = paho_client(port), paho_client(port)
        self._receiver.on_message = lambda *_: self._arrived.set()
        self._receiver.on_subscribe = lambda *_: ready.set()
        self._receiver.subscribe("theirs", 1)
        if not ready.wait(WAIT_S):
            raise OperatorError("paho did not get its subscription")

    def seconds(self, payload: bytes) -> float:
        self._arrived.clear()
        began = time.perf_counter()
        self._sender.publish("theirs", payload, qos=1)
        if not self._arrived.wait(WAIT_S):
            raise OperatorError("a message of paho did not arrive")
        return time.perf_counter() - began

    def close(self) -> None:
        paho_stop(self._sender)
        paho_stop(self._receiver)


class SocketPair:
    """Two connections that speak just enough MQTT 3.1.1 for one message, without a thread: what
    the broker and the kernel take."""

    def __init__(self, port: int) -> None:
        self._sender, self._receiver = self._connect(port, b"one"), self._connect(port, b"two")
        self._receiver.sendall(b"\x82\x09\x00\x01\x00\x04" + TOPIC + b"\x01")
        self._read(self._receiver, 5)

    def _connect(self, port: int, name: bytes) -> socket.socket:
        sock = socket.create_connection((HOST, port), WAIT_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = b"\x00\x04MQTT\x04\x02\x00\x3c" + struct.pack(">H", len(name)) + name
        sock.sendall(bytes([0x10, len(body)]) + body)
        self._read(sock, 4)
        return sock

    def seconds(self, payload: bytes) -> float:
        """Of one message with QoS 1, from the call to its last byte at the other end."""
        body = struct.pack(">H", len(TOPIC)) + TOPIC + b"\x00\x07" + payload
        packet = bytes([0x32, len(body) & 127 | 128, len(body) >> 7]) + body
        began = time.perf_counter()
        self._sender.sendall(packet)
        arrived = self._read(self._receiver, len(packet))
        seconds = time.perf_counter() - began
        identifier = arrived[len(packet) - len(payload) - 2 : len(packet) - len(payload)]
        self._receiver.sendall(b"\x40\x02" + identifier)
        self._read(self._sender, 4)
        return seconds

    def _read(self, sock: socket.socket, size: int) -> bytes:
        data = b""
        while len(data) < size:
            got = sock.recv(65536)
            if not got:
                raise OperatorError("the broker closed a bare connection")
            data += got
        return data

    def close(self) -> None:
        self._sender.close()
        self._receiver.close()


@contextmanager
def closing(pair: PahoPair | SocketPair) -> Iterator[None]:
    try:
        yield
    finally:
        pair.close()


def stream_context(tls: TlsFiles, *, server: bool) -> ssl.SSLContext:
    """TLS 1.3 with both sides' certificates unchecked: only the bytes matter here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if server:
        context.load_cert_chain(tls.certificate, tls.key)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def stream_seconds(sock: socket.socket, payload: bytes) -> float:
    """Of a payload over a bare connection until the other side says that it has it."""
    began = time.perf_counter()
    sock.sendall(payload)
    if sock.recv(1) != b"!":
        raise OperatorError("the bare connection was closed")
    return time.perf_counter() - began
