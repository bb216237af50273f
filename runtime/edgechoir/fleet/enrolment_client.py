"""A member at the enrolment endpoint: enrol with a token, renew with a certificate, get the CRL."""

import asyncio
import hashlib
import hmac
import json
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edgechoir.errors import LinkError, Malformed, OperatorError, RemoteError
from edgechoir.fleet.enrolment import Member, MemberPaths, install_certificate, load_member
from edgechoir.fleet.files import PUBLIC, write_atomic
from edgechoir.fleet.http import read_message, write_request
from edgechoir.fleet.policy_file import NAME as POLICY
from edgechoir.fleet.policy_file import pin_policy
from edgechoir.fleet.tokens import Token
from edgechoir.identity.certificate import (
    Certified,
    Root,
    from_pem,
    read_certificate,
    read_root,
    to_pem,
)
from edgechoir.identity.naming import ENROLMENT
from edgechoir.identity.policy import read_policy, weaker
from edgechoir.identity.revocation import MAX_BYTES as MAX_CRL
from edgechoir.identity.revocation import newest, read_revocations

log: Final = logging.getLogger(__name__)

TOTAL_S: Final = 25.0
"""For one request, from the name look-up to the last byte."""
HTTPS: Final = 443
MAX_ANSWER: Final = 2 * MAX_CRL
MAX_WHY: Final = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """What the endpoint grants: PEM texts, and the signed policy where there is one."""

    certificate: bytes
    ca: bytes
    crl: bytes
    policy: bytes | None


async def fetch_root(token: Token, url: str) -> Root:
    """The fleet's root, known by its fingerprint in the token; nothing else is trusted yet.

    Raises LinkError or OperatorError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # what comes is checked against the token
    pem = await _ask(url, context, None, 0.0, "GET", "/v1/ca.crt")
    try:
        root = read_root(from_pem(pem))
    except RemoteError as error:
        raise OperatorError(f"{url} gave no CA's certificate: {error}") from None
    if not hmac.compare_digest(hashlib.sha256(root.der).hexdigest(), token.ca):
        raise OperatorError(
            f"{url} belongs to another CA (fingerprint {root.fingerprint.hex()[:16]}) than the "
            f"token ({token.ca[:16]}): nothing was sent; is the address right?"
        )
    return root


async def enrol(token: Token, url: str, root: Root, request_pem: bytes, now: float) -> Answer:
    """Have a request signed. Raises LinkError, or OperatorError with the endpoint's reason."""
    fields = {"token": token.id, "secret": token.secret, "request": request_pem.decode()}
    context = _context(root)
    return _answer(await _ask(url, context, root, now, "POST", "/v1/enrol", fields), url)


async def renew(member: Member, url: str, request_pem: bytes, now: float) -> Answer:
    """A new certificate for a member that shows its present one. Raises as `enrol` does."""
    context = _context(member.root, member.paths)
    fields = {"request": request_pem.decode()}
    body = await _ask(url, context, member.root, now, "POST", "/v1/renew", fields)
    return _answer(body, url)


def take(directory: Path, answer: Answer, now: float) -> Certified:
    """Install what the endpoint granted, in a member's directory. Raises OperatorError.

    A policy that came this way never weakens the one that is pinned: that takes an operator.
    """
    certificate = install_certificate(directory, answer.certificate, answer.ca, now)
    member = load_member(directory, now)
    if answer.policy is not None:
        _take_policy(member, answer.policy)
    try:
        given = read_revocations(answer.crl, member.root)
        held = member.paths.crl
        before = read_revocations(held.read_bytes(), member.root) if held.exists() else None
        if newest(before, given):
            write_atomic(held, answer.crl, PUBLIC)
    except (RemoteError, OSError) as error:
        log.warning("the list of revoked certificates is left as it was: %s", error)
    return certificate


def _take_policy(member: Member, text: bytes) -> None:
    directory = member.paths.directory
    if not (directory / POLICY).exists():
        pin_policy(directory, text, member.root)
        return
    try:
        given = read_policy(text, member.root).policy
    except RemoteError as error:
        raise OperatorError(f"the endpoint gave no policy of the CA's: {error}") from None
    if less := weaker(given, member.policy):
        log.warning(
            "the endpoint's policy protects less than the pinned one (%s) and is not taken; to "
            "accept it, pin it by hand",
            ", ".join(less),
        )
    elif given != member.policy:
        pin_policy(directory, text, member.root)


async def fetch_revocations(root: Root, url: str, now: float) -> bytes:
    """The CA's list of revoked certificates, unread. Raises LinkError or OperatorError."""
    return await _ask(url, _context(root), root, now, "GET", "/v1/ca.crl")


def _context(root: Root, paths: MemberPaths | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=to_pem(root.der).decode())
    if paths is not None:
        try:
            context.load_cert_chain(paths.certificate, paths.key)
        except OSError as error:
            raise OperatorError(
                f"cannot use {paths.certificate} and {paths.key}: {error}"
            ) from None
    return context


async def _ask(
    url: str,
    context: ssl.SSLContext,
    root: Root | None,
    now: float,
    method: str,
    path: str,
    fields: dict[str, str] | None = None,
) -> bytes:
    """One request; the answer's body. With a root, the other end must be its enrolment endpoint."""
    host, port, prefix = _split(url)
    body = b"" if fields is None else json.dumps(fields).encode()
    request = write_request(method, prefix + path, host, body, "application/json")
    try:
        async with asyncio.timeout(TOTAL_S):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, limit=1 << 16, ssl_shutdown_timeout=1.0
            )
            try:
                if root is not None:
                    _check_role(writer, root, now, url)
                writer.write(request)
                await writer.drain()
                answer = await read_message(reader, MAX_ANSWER)
            finally:
                writer.transport.abort()
    except TimeoutError:
        raise LinkError(f"{url} did not answer within {TOTAL_S:g} s") from None
    except ssl.SSLCertVerificationError as error:
        raise LinkError(
            f"{url} shows a certificate that does not fit: {error.verify_message}"
        ) from None
    except OSError as error:
        raise LinkError(f"{url}: {_why(error)}") from None
    except ValueError as error:  # what no resolver or TLS library takes for a name
        raise LinkError(f"{url} cannot be asked: {error}") from None
    except Malformed as error:
        raise LinkError(
            f"{url} gave no answer ({error}); it may have refused this member's certificate, or "
            "have been asked too often"
        ) from None
    status = answer.first[1]
    if status == "200":
        return answer.body
    why = _reason(answer.body)
    if status in ("429", "503"):
        raise LinkError(f"{url} is busy: {why}")
    raise OperatorError(f"{url} refused: {why}")


def _check_role(writer: asyncio.StreamWriter, root: Root, now: float, url: str) -> None:
    """No broker of the fleet may stand in for the endpoint, though the CA has signed both."""
    tls = writer.get_extra_info("ssl_object")
    try:
        holder = read_certificate(tls.getpeercert(binary_form=True) or b"", root, now).address
    except RemoteError as error:
        raise LinkError(f"{url}: {error}") from None
    if holder.tier != ENROLMENT:
        raise LinkError(f"{url} is answered by {holder}, which is no enrolment endpoint")


def _split(url: str) -> tuple[str, int, str]:
    try:
        parts = urlsplit(url)
        port = parts.port or HTTPS
    except ValueError:
        raise OperatorError(f"{url!r} is no address") from None
    if parts.scheme != "https" or not parts.hostname:
        raise OperatorError(f"{url!r}: expected https://HOST[:PORT]")
    return parts.hostname, port, parts.path.rstrip("/")


def _answer(body: bytes, url: str) -> Answer:
    try:
        given = json.loads(body)
        policy = given["policy"]
        return Answer(
            certificate=str(given["certificate"]).encode(),
            ca=str(given["ca"]).encode(),
            crl=str(given["crl"]).encode(),
            policy=None if policy is None else str(policy).encode(),
        )
    except (ValueError, TypeError, KeyError, RecursionError):
        raise LinkError(f"{url} gave an answer that this version cannot read") from None


def _reason(body: bytes) -> str:
    """The endpoint's words, cut and cleaned to one line."""
    try:
        why = str(json.loads(body)["error"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "it gave no reason"
    return "".join(c if c.isprintable() else " " for c in why[:MAX_WHY])


def _why(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    return error.strerror or str(error) or type(error).__name__
