"""The front door of the Python broker: everything that must be right before MQTT begins.

A connection passes, in this order: TLS with a certificate of the fleet's CA; the roster (enrolled,
not revoked); the first packet, a CONNECT of MQTT 3.1.1, within a deadline; a client id that no
other member holds. A client that comes back under its own id replaces its old connection, whose
last will goes out first. What passes is handed on, with the CONNECT rewritten: a clean session,
and no keep-alive, which the door watches over itself (1.5 times what the client asked for, MQTT
3.1.1 section 3.1.2.10). Packets above the limit end the connection before they are read.

Clean sessions because the runtime needs no others: what must arrive waits in the sender's outbox,
and a queue for the absent has no bound in amqtt.
"""

import asyncio
import logging
import secrets
import ssl
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from edgechoir.broker.packets import (
    CONNECT,
    MQTT_311,
    REFUSED_IDENTIFIER,
    REFUSED_VERSION,
    REFUSED_VERSION_5,
    plain_connect,
    read_connect,
)
from edgechoir.broker.roster import Roster
from edgechoir.broker.settings import BrokerSettings
from edgechoir.errors import BadCertificate, Malformed, OperatorError, RemoteError

log = logging.getLogger(__name__)

CONNECT_S: Final = 10.0
"""How long a client may take for its CONNECT, and an old connection to give way."""


@dataclass(eq=False, slots=True)
class Connection:
    """A client behind the door."""

    user: str
    client_id: str
    writer: asyncio.StreamWriter
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def drop(self) -> None:
        self.writer.transport.abort()


class PacketReader:
    """Reads for the MQTT side: what was read already, then the socket, within the door's bounds.

    Once anything is wrong it gives nothing but b"", which is an end of stream.
    """

    def __init__(
        self, first: bytes, reader: asyncio.StreamReader, limit: int, idle_s: float | None
    ) -> None:
        self._first = first
        self._reader = reader
        self._limit = limit
        self._idle_s = idle_s
        self._ended = False

    async def read(self, n: int) -> bytes:
        """Exactly `n` bytes, or b"" for the end."""
        if not 0 < n <= self._limit:
            self._ended = self._ended or n != 0
            return b""
        taken, self._first = self._first[:n], self._first[n:]
        parts = [taken]
        missing = n - len(taken)
        while missing and not self._ended:
            part = await self._some(missing)
            missing -= len(part)
            parts.append(part)
        return b"" if self._ended else b"".join(parts)

    async def _some(self, n: int) -> bytes:
        try:
            async with asyncio.timeout(self._idle_s):
                part = await self._reader.read(n)
        except OSError:  # TimeoutError and ssl.SSLError are among them
            part = b""
        self._ended = not part
        return part

    def feed_eof(self) -> None:
        self._ended = True


Serve = Callable[[PacketReader, Connection], Awaitable[None]]


class Door:
    """`start`, then `update` on each new roster, then `close`."""

    def __init__(self, settings: BrokerSettings, roster: Roster, serve: Serve) -> None:
        self._settings = settings
        self._serve = serve
        self.roster = roster
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._accepted = 0

    async def start(self) -> None:
        """Raises OperatorError: unusable certificate files, or a port that cannot be had."""
        settings = self._settings
        try:
            self._server = await asyncio.start_server(
                self._accept,
                settings.address,
                settings.port,
                ssl=_tls(settings),
                ssl_handshake_timeout=CONNECT_S,
                ssl_shutdown_timeout=1.0,
            )
        except OSError as error:
            raise OperatorError(
                f"cannot listen on {settings.address}:{settings.port}: {error.strerror or error}"
            ) from None

    def update(self, roster: Roster) -> None:
        """Go by another roster; whoever it does not admit is dropped. Raises nothing."""
        self.roster = roster
        for connection in tuple(self._connections):
            try:
                _holder(connection.writer, roster)
            except RemoteError as error:
                log.warning("dropped %s: %s", connection.user, error)
                connection.drop()

    def connection(self, client_id: str) -> Connection | None:
        return next((c for c in self._connections if c.client_id == client_id), None)

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        ended = [connection.ended.wait() for connection in self._connections]
        for connection in self._connections:
            connection.drop()
        try:
            async with asyncio.timeout(CONNECT_S):
                await asyncio.gather(*ended, self._server.wait_closed())
        except TimeoutError:
            log.warning("%d connections did not end in time", len(self._connections))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = writer.get_extra_info("peername")
        if self._accepted >= self._settings.max_connections:
            log.warning("refused %s: %d connections are open", peer, self._accepted)
            writer.transport.abort()
            return
        self._accepted += 1
        try:
            await self._let_in(reader, writer)
        except (RemoteError, OSError, EOFError) as error:
            log.warning("refused %s: %s", peer, error or type(error).__name__)
        except Exception:  # the edge of this connection's task: one client must not end the others
            log.exception("the connection of %s failed", peer)
        finally:
            self._accepted -= 1
            writer.close()

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        user = _holder(writer, self.roster)
        async with asyncio.timeout(CONNECT_S):
            body = await _first_packet(reader, self._settings.max_packet)
        connect = read_connect(body)
        if connect.level != MQTT_311:
            await _answer(writer, REFUSED_VERSION_5 if connect.level == 5 else REFUSED_VERSION)
            return
        if not connect.client_id and not connect.clean:
            await _answer(writer, REFUSED_IDENTIFIER)
            raise Malformed(f"{user} asks for a lasting session without a client id")
        client_id = connect.client_id or f"{user}-{secrets.token_hex(8)}"
        old = self.connection(client_id)
        if old is not None:
            if old.user != user:
                await _answer(writer, REFUSED_IDENTIFIER)
                raise BadCertificate(f"{user} gave the client id of {old.user}")
            old.drop()
            async with asyncio.timeout(CONNECT_S):
                await old.ended.wait()
            if self.connection(client_id) is not None:
                raise Malformed(f"{user} connects twice at once as {client_id!r}")
        connection = Connection(user, client_id, writer)
        self._connections.add(connection)
        idle_s = 1.5 * connect.keep_alive_s if connect.keep_alive_s else None
        try:
            first, limit = plain_connect(body, client_id), self._settings.max_packet
            await self._serve(PacketReader(first, reader, limit, idle_s), connection)
        finally:
            self._connections.discard(connection)
            connection.ended.set()


def _tls(settings: BrokerSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = (
        ssl.TLSVersion.TLSv1_3 if settings.minimum_tls == "1.3" else ssl.TLSVersion.TLSv1_2
    )
    context.verify_mode = ssl.CERT_REQUIRED
    files = settings.files
    try:
        context.load_verify_locations(cafile=files.ca)
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ssl.SSLError) as error:
        raise OperatorError(
            f"{files.certificate} and {files.key} cannot be used: {error}"
        ) from None
    return context


def _holder(writer: asyncio.StreamWriter, roster: Roster) -> str:
    tls = writer.get_extra_info("ssl_object")
    der = tls.getpeercert(binary_form=True) if tls is not None else None
    if not der:
        raise BadCertificate("no client certificate")
    return roster.admit(der, time.time()).address.member


async def _first_packet(reader: asyncio.StreamReader, limit: int) -> bytes:
    """The body of a CONNECT. Raises Malformed, or EOFError where the stream ends."""
    if await reader.readexactly(1) != bytes((CONNECT,)):
        raise Malformed("the first packet is not a CONNECT")
    length = 0
    for shift in (0, 7, 14, 21):
        (byte,) = await reader.readexactly(1)
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
    else:
        raise Malformed("a packet length of more than four bytes")
    if length > limit:
        raise Malformed(f"a CONNECT of {length} bytes, the limit is {limit}")
    return await reader.readexactly(length)


async def _answer(writer: asyncio.StreamWriter, packet: bytes) -> None:
    writer.write(packet)
    async with asyncio.timeout(CONNECT_S):
        await writer.drain()
