"""The far end of a benchmark of the way: a process of its own, that says a line for each blob.

`python -m bench.receiver KIND PORT SIZE [CA CERTIFICATE KEY]`, KIND one of transfer, paho, stream.
"""

import asyncio
import gc
import os
import socket
import sys
import time
from pathlib import Path
from typing import Final

from bench.bare import paho_client, paho_stop, stream_context
from bench.fleet import HOST
from edgechoir.transport.mqtt import MqttLink, MqttSettings, TlsFiles
from edgechoir.transport.receiver import Receiver
from edgechoir.transport.sender import Sender
from edgechoir.transport.transfer import Transfers

LARGEST: Final = 256 << 20
READ: Final = 1 << 18


def answering(topic: str) -> str:
    """The topic of the answers to `topic`, `up/<key>` or `down/<key>`."""
    way, _, key = topic.partition("/")
    return f"{'down' if way == 'up' else 'up'}/{key}"


def transfers_of(link: MqttLink) -> Transfers:
    return Transfers(link, Sender(), Receiver(os.urandom(8), LARGEST), answering, time.monotonic)


async def receive(settings: MqttSettings) -> None:
    """Take blobs until told to end."""
    async with MqttLink(settings) as link, asyncio.TaskGroup() as group:
        transfers = transfers_of(link)
        group.create_task(transfers.run())
        await link.subscribe("up/+")
        say("ready")
        gc.freeze()
        async for message in link.messages():
            for _ in transfers.take(message.topic, message.payload):
                say("whole")


def receive_with_paho(port: int) -> None:
    client = paho_client(port)
    client.on_subscribe = lambda *_: say("ready")
    client.on_message = lambda *_: say("whole")
    client.subscribe("paho", 1)
    sys.stdin.read()
    paho_stop(client)


def receive_stream(size: int, tls: TlsFiles | None) -> None:
    """Listens itself; says its port."""
    with socket.create_server((HOST, 0)) as listener:
        say(str(listener.getsockname()[1]))
        sock, _ = listener.accept()
        if tls is not None:
            sock = stream_context(tls, server=True).wrap_socket(sock, server_side=True)
        buffer, got = bytearray(READ), 0
        while count := sock.recv_into(buffer):
            got += count
            if got == size:
                got = 0
                sock.sendall(b"!")


def say(line: str) -> None:
    print(line, flush=True)


def main() -> None:
    kind, port, size, *files = sys.argv[1:]
    tls = TlsFiles(Path(files[0]), Path(files[1]), Path(files[2])) if files else None
    match kind:
        case "transfer":
            settings = MqttSettings(HOST, int(port), "far", os.urandom(8), mqtt5=True, tls=tls)
            asyncio.run(receive(settings))
        case "paho":
            receive_with_paho(int(port))
        case _:
            receive_stream(int(size), tls)


if __name__ == "__main__":
    main()
