"""The enrolment endpoint: HTTPS with a certificate of the fleet's own CA.

    GET  /v1/ca.crt   the CA's certificate: a machine with a token knows its fingerprint
    GET  /v1/ca.crl   the list of revoked certificates
    POST /v1/enrol    {"token", "secret", "request"} -> {"certificate", "ca", "crl", "policy"}
    POST /v1/renew    {"request"}, over mutual TLS -> the same

It holds the CA's key in memory while it runs. One request a connection; connections, their time,
what is read and how often one address may ask are bounded before any signature is made. Requests
that sign stand in one line.
"""

import asyncio
import json
import logging
import os
import ssl
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from edgechoir.errors import (
    BadCertificate,
    EdgechoirError,
    InUse,
    Malformed,
    OperatorError,
    RemoteError,
)
from edgechoir.fleet.audit import Audit
from edgechoir.fleet.audit_files import DIRECTORY, AuditFiles, Bounds
from edgechoir.fleet.authority_dir import split_hosts
from edgechoir.fleet.budget import Budget
from edgechoir.fleet.files import PRIVATE, PUBLIC, make_directory, read_file, write_atomic
from edgechoir.fleet.http import HttpMessage, read_message, write_answer
from edgechoir.fleet.online import Granted, enrol_by_token, renew_by_certificate
from edgechoir.fleet.policy_file import NAME as POLICY
from edgechoir.identity.authority import DAY_S, Authority, issue_server
from edgechoir.identity.certificate import Certified, read_certificate, to_pem
from edgechoir.identity.keys import key_to_pem, new_key
from edgechoir.identity.naming import ENROLMENT

log: Final = logging.getLogger(__name__)
T = TypeVar("T")

HANDSHAKE_S: Final = 10.0
REQUEST_S: Final = 10.0
GOODBYE_S: Final = 2.0
LOCK_S: Final = 10.0
"""How long a request waits for a command that works on the CA's directory."""
MAX_CONNECTIONS: Final = 64
MAX_BODY: Final = 16_384
PER_ADDRESS: Final = (30, 2.0)
"""Requests of one address: at once, and the seconds in which one more may follow."""
MAX_ADDRESSES: Final = 4096
SERVER_DAYS: Final = 90


@dataclass(frozen=True, slots=True)
class EnrolmentSettings:
    """`directory` is the CA's. Clients reach the endpoint as one of `hosts`."""

    directory: Path
    hosts: tuple[str, ...]
    address: str = "0.0.0.0"  # noqa: S104
    port: int = 8884


class _Busy(EdgechoirError):
    """Asked too often, or too much at once."""


class EnrolmentServer:
    """Answers requests. `changed` is called whenever the registry has."""

    def __init__(
        self,
        settings: EnrolmentSettings,
        authority: Authority,
        changed: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._authority = authority
        self._changed = changed
        self._clock = clock
        self._signing = asyncio.Lock()
        self._open: set[asyncio.Task[None]] = set()
        self._budgets: OrderedDict[str, Budget] = OrderedDict()
        self._certificate = self._certify()
        self.context = self._context()
        now = clock()
        self.audit = Audit(
            AuditFiles(settings.directory / DIRECTORY, self._key, self._certificate, Bounds(), now),
            clock,
        )

    # ---- its own certificate

    def _certify(self) -> Certified:
        """A fresh key and certificate for this process."""
        names, ips = split_hosts(self._settings.hosts)
        self._key = new_key(os.urandom)
        certificate = issue_server(
            self._authority,
            self._key.public_key(),
            ENROLMENT,
            names,
            ips,
            self._clock(),
            SERVER_DAYS,
            os.urandom,
            role=ENROLMENT,
        )
        make_directory(self._folder)
        write_atomic(self._folder / "server.key", key_to_pem(self._key, None), PRIVATE)
        write_atomic(self._folder / "server.crt", to_pem(certificate.der), PUBLIC)
        return certificate

    @property
    def _folder(self) -> Path:
        return self._settings.directory / ENROLMENT

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cafile=self._settings.directory / "ca.crt")
        context.load_cert_chain(self._folder / "server.crt", self._folder / "server.key")
        return context

    async def keep_certified(self) -> None:
        """Have a new certificate made in time, for ever."""
        while True:
            await asyncio.sleep(SERVER_DAYS * DAY_S / 2)
            self._certificate = self._certify()
            self.context.load_cert_chain(self._folder / "server.crt", self._folder / "server.key")
            self.audit.change_signer(self._key, self._certificate)

    # ---- connections

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, in plain TCP so far: nobody gets a handshake who has asked too often."""
        peer = str((writer.get_extra_info("peername") or ("?",))[0])
        task = asyncio.current_task()
        if task is None or len(self._open) >= MAX_CONNECTIONS or not self._may_ask(peer):
            writer.transport.abort()
            return
        self._open.add(task)
        try:
            await writer.start_tls(self.context, ssl_handshake_timeout=HANDSHAKE_S)
            await self._serve(reader, writer, peer)
        except (OSError, TimeoutError) as error:  # ssl.SSLError among them
            log.info("%s: %s", peer, error or type(error).__name__)
        except Exception:  # the edge of this connection's task
            log.exception("the connection of %s failed", peer)
        finally:
            self._open.discard(task)
            await _close(writer)

    async def close(self) -> None:
        """End what is open, and write down what waits."""
        open_ = tuple(self._open)
        for task in open_:
            task.cancel()
        await asyncio.gather(*open_, return_exceptions=True)
        await asyncio.to_thread(self.audit.close)

    def _may_ask(self, peer: str) -> bool:
        budget = self._budgets.pop(peer, None) or Budget(*PER_ADDRESS)
        self._budgets[peer] = budget
        if len(self._budgets) > MAX_ADDRESSES:
            self._budgets.popitem(last=False)
        return budget.take(time.monotonic())

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: str
    ) -> None:
        tls = writer.get_extra_info("ssl_object")
        shown = None if tls is None else tls.getpeercert(binary_form=True)
        status, body, kind = await self._answer(reader, shown, peer)
        writer.write(write_answer(status, body, kind))
        async with asyncio.timeout(REQUEST_S):
            await writer.drain()

    async def _answer(
        self, reader: asyncio.StreamReader, shown: bytes | None, peer: str
    ) -> tuple[int, bytes, str]:
        try:
            async with asyncio.timeout(REQUEST_S):
                request = await read_message(reader, MAX_BODY)
            return await self._handle(request, shown, peer)
        except TimeoutError:
            return _refusal(400, f"the request did not come within {REQUEST_S:g} s")
        except _Busy as error:
            return _refusal(503, str(error))
        except Malformed as error:
            return _refusal(400, str(error))
        except RemoteError as error:
            self._refused(error, peer)
            return _refusal(403, str(error))
        except OperatorError as error:
            log.error("%s: %s", peer, error)
            return _refusal(409, str(error))

    def _refused(self, error: RemoteError, peer: str) -> None:
        log.warning("refused %s: %s", peer, error)
        self.audit.record_limited(
            "refused", error.reason, reason=error.reason, peer=peer, why=str(error)
        )

    # ---- requests

    async def _handle(
        self, request: HttpMessage, shown: bytes | None, peer: str
    ) -> tuple[int, bytes, str]:
        match request.first[:2]:
            case ("GET", "/v1/ca.crt" | "/v1/ca.crl"):
                name = request.first[1].rpartition("/")[2]
                return 200, self._file(name), "application/x-pem-file"
            case ("POST", "/v1/enrol"):
                return self._grant(await self._enrol(request.body, peer))
            case ("POST", "/v1/renew"):
                return self._grant(await self._renew(request.body, shown, peer))
            case _:
                return _refusal(404, "there is nothing here")

    async def _enrol(self, body: bytes, peer: str) -> Granted:
        fields = _fields(body, "token", "secret", "request")
        try:
            secret = bytes.fromhex(fields["secret"])
        except ValueError:
            raise Malformed("the secret is not hex") from None
        granted, token = await self._sign(
            lambda: enrol_by_token(
                self._authority,
                self._settings.directory,
                fields["token"],
                secret,
                fields["request"].encode(),
                self._clock(),
                os.urandom,
            )
        )
        self._account("enrolled", granted, peer, token=token.id)
        return granted

    async def _renew(self, body: bytes, shown: bytes | None, peer: str) -> Granted:
        fields = _fields(body, "request")
        if shown is None:
            raise BadCertificate("to renew a certificate, show the present one")
        holder = read_certificate(shown, self._authority.root, self._clock())
        granted = await self._sign(
            lambda: renew_by_certificate(
                self._authority,
                self._settings.directory,
                holder,
                fields["request"].encode(),
                self._clock(),
                os.urandom,
            )
        )
        self._account("renewed", granted, peer)
        return granted

    async def _sign(self, work: Callable[[], T]) -> T:
        """Do `work` on the CA's directory, after whoever is at work there."""
        until = time.monotonic() + LOCK_S
        async with self._signing:
            while True:
                try:
                    return await asyncio.to_thread(work)
                except InUse:
                    if time.monotonic() > until:
                        raise _Busy("the CA's directory is in use: ask again") from None
                    await asyncio.sleep(0.1)

    def _account(self, kind: str, granted: Granted, peer: str, **more: str) -> None:
        record = granted.issued.record
        who = f"{record.tier}/{record.member}"
        log.info("%s %s, asked by %s", kind if granted.fresh else f"{kind} again", who, peer)
        self.audit.record(
            kind,
            member=who,
            serial=record.serial,
            key=record.key,
            until=record.not_after,
            fresh=granted.fresh,
            peer=peer,
            **more,
        )
        if granted.fresh:
            self._changed()

    def _grant(self, granted: Granted) -> tuple[int, bytes, str]:
        answer = {
            "certificate": granted.issued.pem.decode(),
            "ca": self._file("ca.crt").decode(),
            "crl": self._file("ca.crl").decode(),
            "policy": None,
        }
        if (self._settings.directory / POLICY).exists():
            answer["policy"] = self._file(POLICY).decode()
        return 200, json.dumps(answer).encode(), "application/json"

    def _file(self, name: str) -> bytes:
        return read_file(self._settings.directory / name, "make the CA with `edgechoir ca init`")


@asynccontextmanager
async def enrolment_server(
    settings: EnrolmentSettings,
    authority: Authority,
    changed: Callable[[], None] = lambda: None,
) -> AsyncIterator[int]:
    """An endpoint that answers for the time of the block; gives its port. Raises OperatorError."""
    server = EnrolmentServer(settings, authority, changed)
    try:
        try:
            listening = await asyncio.start_server(
                server.accept, settings.address, settings.port, limit=MAX_BODY
            )
        except OSError as error:
            raise OperatorError(
                f"cannot listen on {settings.address}:{settings.port}: {error.strerror or error}"
            ) from None
        certified = asyncio.create_task(server.keep_certified())
        try:
            yield int(listening.sockets[0].getsockname()[1])
        finally:
            certified.cancel()
            listening.close()
            await asyncio.gather(certified, return_exceptions=True)
    finally:
        await server.close()


async def _close(writer: asyncio.StreamWriter) -> None:
    """Let the last bytes go out, for a while."""
    try:
        async with asyncio.timeout(GOODBYE_S):
            writer.close()
            await writer.wait_closed()
    except (OSError, TimeoutError):
        pass
    finally:
        writer.transport.abort()


def _fields(body: bytes, *names: str) -> dict[str, str]:
    """The text fields of a JSON object, these and no others. Raises Malformed."""
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise Malformed("the body is not JSON") from None
    if not isinstance(given, dict) or set(given) != set(names):
        raise Malformed(f"the body is to be a JSON object with {', '.join(names)}")
    if not all(isinstance(value, str) for value in given.values()):
        raise Malformed("the body's fields are to be text")
    return given


def _refusal(status: int, why: str) -> tuple[int, bytes, str]:
    return status, json.dumps({"error": why}).encode(), "application/json"
