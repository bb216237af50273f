"""A TCP or TLS connection on the event loop, and one clear line for each way it can fail.

Connecting uses no thread but one short-lived one to resolve a name, since getaddrinfo cannot be
cancelled; it is a daemon, so a dead name server never holds up the exit of the process.
"""

import asyncio
import contextlib
import errno
import ipaddress
import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from edgechoir.errors import LinkError, OperatorError
from edgechoir.transport.link import Counters

UNSENT: Final = 1 << 19
"""Bytes in the kernel that are not on the wire yet, beyond which it takes no more: what is given to
it can be overtaken by nothing. With a quarter of it, a transfer over the loopback takes twice as
long, for want of something to send whenever the loop comes round."""
READ_AHEAD: Final = 1 << 17
"""Bytes taken from the kernel per wake-up: paho asks for a packet's first bytes one by one."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files: the fleet's CA, this member's certificate and its private key."""

    ca: Path
    certificate: Path
    key: Path
    server_name: str | None = None
    """The name in the broker's certificate, where it is not the host connected to."""

    def context(self) -> ssl.SSLContext:
        """Mutual TLS 1.2 or newer, the server's name checked. Raises OperatorError.

        Read anew for each connection, so that a renewed certificate is used.
        """
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_verify_locations(cafile=self.ca)
            context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            raise OperatorError(
                f"cannot use the TLS files {self.ca}, {self.certificate}, {self.key}: "
                f"{error.strerror or error}"
            ) from error
        return context


class Stream:
    """A connected non-blocking socket with read-ahead, in the shape that paho asks for.

    `close` only marks it: its owner calls `abort` after the last bytes went out.
    """

    __slots__ = ("_buffer", "_end", "_limit", "_sock", "_start", "counters", "eof", "error")

    def __init__(self, sock: socket.socket, counters: Counters, max_packet: int) -> None:
        self._sock = sock
        self._buffer = bytearray(READ_AHEAD)
        self._start = self._end = 0
        self._limit = max_packet
        self.counters = counters
        self.eof = False
        self.error: OSError | None = None

    @property
    def pending(self) -> bool:
        """Is there input that the loop's selector cannot see?"""
        return self._start < self._end or (
            isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0
        )

    @property
    def cipher(self) -> str:
        """ "TLSv1.3", or "" for plain TCP."""
        return (self._sock.version() or "") if isinstance(self._sock, ssl.SSLSocket) else ""

    def recv(self, size: int) -> bytes:
        """At most `size` bytes, b"" at the end. Raises BlockingIOError when there are none yet."""
        if size > self._limit:
            self.error = ConnectionAbortedError(
                errno.ECONNABORTED, f"a packet of {size} bytes, at most {self._limit} are taken"
            )
            raise self.error
        if self._start == self._end:
            self._fill()
        start, self._start = self._start, min(self._end, self._start + size)
        return bytes(memoryview(self._buffer)[start : self._start])

    def _fill(self) -> None:
        """Read until the buffer is full or nothing more is there: TLS gives one record a call."""
        self._start = self._end = 0
        self._acknowledge_at_once()
        view = memoryview(self._buffer)
        while self._end < READ_AHEAD and not self.eof:
            try:
                count = self._sock.recv_into(view[self._end :])
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                if self._end == 0:
                    raise BlockingIOError from None
                return
            except OSError as error:
                self.error = error
                if self._end == 0:
                    raise
                return
            self.eof = count == 0
            self._end += count
            self.counters.bytes_down += count

    def _acknowledge_at_once(self) -> None:
        """A broker that lets small packets wait for TCP's acknowledgement (Nagle's algorithm, which
        mosquitto uses unless told) would wait 40 ms for ours each time. Linux forgets the wish."""
        if hasattr(socket, "TCP_QUICKACK"):
            with contextlib.suppress(OSError):  # the connection is gone, and reading will tell
                self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def send(self, data: bytes | bytearray) -> int:
        """Send as much as goes. Raises BlockingIOError when nothing goes now."""
        view = memoryview(data)
        sent = 0
        try:
            while sent < len(view):
                sent += self._sock.send(view[sent:])
        except (BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
            if sent == 0:
                raise BlockingIOError from None
        except OSError as error:
            self.error = self._last_words() or error
            raise
        finally:
            self.counters.bytes_up += sent
        return sent

    def _last_words(self) -> OSError | None:
        """Why the other side hung up on what we send: with TLS 1.3 it judges our certificate after
        our handshake is over, and its alert may wait unread."""
        try:
            while self._sock.recv(READ_AHEAD):
                pass
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except OSError as error:
            return error
        return None

    def fileno(self) -> int:
        return self._sock.fileno()

    def setblocking(self, flag: bool) -> None:
        """paho asks for non-blocking, which it is; nothing else is offered."""

    def close(self) -> None:
        """Nothing more is read or written by the codec."""

    async def drain_and_close(self, timeout: float) -> None:
        """Close after the other side has: closing earlier with input unread would reset the
        connection, and the reset may overtake our DISCONNECT, so that the will is sent."""
        try:
            self._sock.shutdown(socket.SHUT_WR)
            async with asyncio.timeout(timeout):
                while not self.eof:
                    self._start = self._end
                    try:
                        self._fill()
                        await asyncio.sleep(0)  # the deadline's turn
                    except BlockingIOError:
                        await _ready(self._sock, write=False)
        except (OSError, TimeoutError):
            return  # the other side is gone or slow; there is nothing left to save
        finally:
            self.abort()

    def abort(self) -> None:
        """Close the socket now."""
        self._sock.close()


async def open_stream(
    host: str,
    port: int,
    tls: TlsFiles | None,
    counters: Counters,
    *,
    keepalive: float,
    max_packet: int,
) -> Stream:
    """Connect, with TLS where files are given. Raises LinkError; the caller sets the deadline."""
    context = tls.context() if tls else None
    sock: socket.socket | None = None
    try:
        sock = await _connect(host, port)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            # A half-open connection with data under way fails after one keep-alive, not minutes.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(keepalive * 1000))
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
        if context:
            name = tls.server_name if tls and tls.server_name else host
            sock = context.wrap_socket(sock, server_hostname=name, do_handshake_on_connect=False)
            await _handshake(sock)
    except BaseException as error:
        if sock is not None:
            sock.close()
        if isinstance(error, OSError):
            text = explain(error, tls=tls is not None)
            raise LinkError(f"broker {host}:{port}: {text}") from error
        raise
    return Stream(sock, counters, max_packet)


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    failure: OSError = OSError(errno.EADDRNOTAVAIL, "the name has no address")
    for family, address in await _resolve(host, port):
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure


SocketAddress = tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
"""What getaddrinfo gives, by family."""
Resolved = list[tuple[int, SocketAddress]]


async def _resolve(host: str, port: int) -> Resolved:
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        pass
    else:
        return [(socket.AF_INET if version == 4 else socket.AF_INET6, (host, port))]
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Resolved] = loop.create_future()

    def deliver(found: Resolved, error: OSError | None) -> None:
        if answer.done():
            return
        if error:
            answer.set_exception(error)
        else:
            answer.set_result(found)

    def ask() -> None:
        found: Resolved = []
        failure: OSError | None = None
        try:
            for family, _, _, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
                found.append((family, (str(address[0]), port, *address[2:])))
        except OSError as error:
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(deliver, found, failure)

    threading.Thread(target=ask, name="resolve", daemon=True).start()
    return await answer


async def _handshake(sock: ssl.SSLSocket) -> None:
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            await _ready(sock, write=False)
        except ssl.SSLWantWriteError:
            await _ready(sock, write=True)
        else:
            return


async def _ready(sock: socket.socket, *, write: bool) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def fire() -> None:
        if not ready.done():
            ready.set_result(None)

    add, remove = (
        (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    )
    add(sock.fileno(), fire)
    try:
        await ready
    finally:
        remove(sock.fileno())


def explain(error: OSError, *, tls: bool) -> str:
    """What "it", the broker, did, and what to look at: one line for an operator."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _VERIFY.get(error.verify_code, f"its certificate: {error.verify_message}")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        return _TLS.get(reason, f"TLS failed with {reason}")
    if isinstance(error, socket.gaierror):
        return f"the name has no address ({error.strerror}): check it"
    if isinstance(error, ConnectionRefusedError):
        return "it refused the connection: is the broker running, and is the port right?"
    if isinstance(error, ConnectionResetError | BrokenPipeError):
        hint = "refused our certificate" if tls else "expect TLS on this port"
        return f"it reset the connection: it may have restarted, or {hint}"
    return error.strerror or str(error) or type(error).__name__


_VERIFY: Final = {
    9: "its certificate is not valid yet: set our clock, or the one of its CA",
    10: "its certificate has expired: renew it, or set our clock if that is wrong",
    18: "its certificate is signed by itself, not by our CA: check the CA file",
    19: "its certificate is of a CA that we do not know: check the CA file",
    20: "its certificate is of a CA that we do not know: check the CA file",
    62: "its certificate is for another name: use the name that it was issued for",
    64: "its certificate is for another address: use the one that it was issued for",
}
"""OpenSSL's X509_V_ERR codes, <openssl/x509_vfy.h>."""

_TLS: Final = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS on this port: is this its plain port?",
    "RECORD_LAYER_FAILURE": "it does not speak TLS on this port: is this its plain port?",
    "UNSUPPORTED_PROTOCOL": "it offers no TLS 1.2 or newer",
    "UNEXPECTED_EOF_WHILE_READING": "it closed the connection within TLS",
    "TLSV1_ALERT_PROTOCOL_VERSION": "it accepts no TLS version that we offer",
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the CA of our certificate",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "it wants a certificate of ours and got none",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "it refused our certificate as expired: renew it, or set "
    "its clock",
    "SSLV3_ALERT_CERTIFICATE_REVOKED": "it refused our certificate as revoked",
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": "it refused our certificate",
    "SSLV3_ALERT_BAD_CERTIFICATE": "it refused our certificate",
    "TLSV1_ALERT_ACCESS_DENIED": "it refused our certificate",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "no common cipher, or it wants a certificate of ours",
}
