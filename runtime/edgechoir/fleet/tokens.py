"""One-time tokens: the CA's operator hands one to a machine, which enrols itself with it, once.

A token holds all that the machine has to know: where the enrolment endpoint is, the fingerprint of
the fleet's CA (so that it needs no earlier trust), who it is to be, and a secret of 256 bits. The
CA's directory keeps the secret's hash alone, in `tokens.json`.

A token is bound to the first key that comes with it, and that is on the disk before anything is
signed. A machine whose answer was lost may ask again with the same key until the token expires;
nobody else may, whatever is killed in between.
"""

import base64
import hashlib
import hmac
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgechoir.errors import BadCertificate, OperatorError, first_wrong
from edgechoir.fleet.files import PRIVATE, read_file, write_atomic
from edgechoir.fleet.registry import Hex, Name
from edgechoir.identity.request import Request
from edgechoir.types import Entropy

PREFIX: Final = "ect1."
FILE: Final = "tokens.json"
MAX_TEXT: Final = 2048
MAX_OPEN: Final = 10_000
MAX_HOURS: Final = 24 * 31
HOUR_S: Final = 3600.0
REFUSED: Final = "this token is not one of ours, was withdrawn, or has expired"

Tier = Literal["device", "node", "edge-cloud", "cloud", "monitor"]


class Token(BaseModel):
    """What is in the text that the operator hands out. `ca` is the SHA-256 of the CA's ca.crt."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: Annotated[str, Field(pattern=r"^https://[^\s/]+(/[^\s]*)?$", max_length=256)]
    ca: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    federation: Name
    tier: Tier
    member: Name
    parent: Name | None = None
    expires: float
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    secret: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    def text(self) -> str:
        """As one word, for a command line or a QR code."""
        body = json.dumps(self.model_dump(exclude_none=True), separators=(",", ":")).encode()
        return PREFIX + base64.urlsafe_b64encode(body).decode().rstrip("=")

    def __repr__(self) -> str:
        return f"Token({self.tier}/{self.member}, {self.id})"

    __str__ = __repr__


class TokenRecord(BaseModel):
    """What the CA's directory knows of a token. Times in unix seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Hex
    hash: Hex
    """sha256 of the secret."""
    tier: Tier
    member: Name
    parent: Name | None = None
    days: int
    """How long its certificate is to be valid."""
    replace: bool = False
    """Whether the id may move from another key to this machine's."""
    expires: float
    key: Hex | None = None
    """sha256 of the public key it is bound to, once it was used."""


class TokenFile(BaseModel):
    """tokens.json"""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    tokens: tuple[TokenRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whom a token is for, and what its certificate is to be."""

    tier: str
    member: str
    parent: str | None
    hours: float
    days: int
    replace: bool


def read_token(text: str) -> Token:
    """Read what the operator was given. Raises OperatorError."""
    text = text.strip()
    if not text.startswith(PREFIX) or len(text) > MAX_TEXT:
        raise OperatorError(f"that is no token: one begins {PREFIX!r} and is printed by `ca token`")
    body = text[len(PREFIX) :]
    try:
        data = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        return Token.model_validate_json(data)
    except (ValueError, ValidationError):
        raise OperatorError("the token is damaged: copy all of it, in one piece") from None


def new_token(
    directory: Path,
    wanted: Wanted,
    federation: str,
    url: str,
    ca: bytes,
    now: float,
    entropy: Entropy,
) -> Token:
    """Make a token and remember its hash; an open one for the same member is withdrawn.

    The caller holds the directory's lock. Raises OperatorError.
    """
    if not 0 < wanted.hours <= MAX_HOURS:
        raise OperatorError(f"a token for {wanted.hours:g} hours: give up to {MAX_HOURS}")
    secret = entropy(32)
    try:
        token = Token.model_validate(
            {
                "url": url,
                "ca": ca.hex(),
                "federation": federation,
                "tier": wanted.tier,
                "member": wanted.member,
                "parent": wanted.parent,
                "expires": round(now + wanted.hours * HOUR_S),
                "id": entropy(8).hex(),
                "secret": secret.hex(),
            }
        )
    except ValidationError as error:
        where, what = first_wrong(error)
        raise OperatorError(f"no token: {where}: {what}") from None
    record = TokenRecord(
        id=token.id,
        hash=hashlib.sha256(secret).hexdigest(),
        tier=token.tier,
        member=token.member,
        parent=token.parent,
        days=wanted.days,
        replace=wanted.replace,
        expires=token.expires,
    )
    kept = tuple(
        one for one in _read(directory).tokens if one.expires > now and one.member != token.member
    )
    if len(kept) >= MAX_OPEN:
        raise OperatorError(f"{MAX_OPEN} tokens are open: let some expire first")
    _write(directory, TokenFile(tokens=(*kept, record)))
    return token


def open_tokens(directory: Path, now: float) -> tuple[TokenRecord, ...]:
    """Those that can still be used. Raises OperatorError."""
    return tuple(one for one in _read(directory).tokens if one.expires > now and one.key is None)


def withdraw_tokens(directory: Path, member: str) -> None:
    """No token of this member is good any more. The caller holds the lock. Raises OperatorError."""
    file = _read(directory)
    kept = tuple(one for one in file.tokens if one.member != member)
    if len(kept) != len(file.tokens):
        _write(directory, TokenFile(tokens=kept))


def use_token(
    directory: Path, id: str, secret: bytes, request: Request, key: str, now: float
) -> TokenRecord:
    """Check a token and bind it to a key, on the disk when this returns.

    `key` is sha256 of the request's public key. The caller holds the directory's lock. Raises
    BadCertificate, in the same words whatever is wrong before the secret was right.
    """
    file = _read(directory)
    found = next((one for one in file.tokens if one.id == id), None)
    given = hashlib.sha256(secret).hexdigest()
    right = hmac.compare_digest(given, found.hash if found is not None else "0" * 64)
    if found is None or not right or found.expires <= now:
        raise BadCertificate(REFUSED)
    asked = (request.address.tier, str(request.address.member))
    if asked != (found.tier, found.member):
        raise BadCertificate(
            f"the token is for {found.tier}/{found.member}, the request for {request.address}"
        )
    if found.key is not None:
        if not hmac.compare_digest(found.key, key):
            raise BadCertificate("the token was used already, with another key")
        return found
    bound = found.model_copy(update={"key": key})
    others = tuple(bound if one is found else one for one in file.tokens)
    _write(directory, TokenFile(tokens=others))
    return bound


def _read(directory: Path) -> TokenFile:
    path = directory / FILE
    if not path.exists():
        return TokenFile()
    try:
        return TokenFile.model_validate_json(read_file(path, ""))
    except ValidationError as error:
        _, what = first_wrong(error)
        raise OperatorError(f"{path} cannot be read: {what}; move it away") from None


def _write(directory: Path, file: TokenFile) -> None:
    write_atomic(directory / FILE, file.model_dump_json(indent=2).encode() + b"\n", PRIVATE)
