"""registry.json: who is in the fleet. Public, written by the CA's commands, read by the broker."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgechoir.errors import OperatorError, first_wrong
from edgechoir.fleet.files import PUBLIC, read_file, write_atomic
from edgechoir.types import NAME

Name = Annotated[str, Field(pattern=f"^{NAME.pattern}$")]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]


class Earlier(BaseModel):
    """A certificate that a member's newer one for the same key has not put out of force."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    serial: Hex
    not_after: float


class Record(BaseModel):
    """One member and its newest certificate. Times in unix seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    member: Name
    tier: Literal["device", "node", "edge-cloud", "cloud", "monitor", "broker", "bridge"]
    serial: Hex
    fingerprint: Hex
    """sha256 of the certificate."""
    key: Hex
    """sha256 of the public key (SubjectPublicKeyInfo)."""
    issued: float
    not_after: float
    revoked: float | None = None
    earlier: tuple[Earlier, ...] = ()
    """Its certificates for this key that are still in their time; revoked along with it."""

    def __str__(self) -> str:
        state = "revoked" if self.revoked is not None else "enrolled"
        return f"{self.tier}/{self.member} {state}, certificate {self.fingerprint[:16]}"


class Revocation(BaseModel):
    """A certificate that is no longer good: its member was revoked, or got one for a new key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    member: Name
    serial: Hex
    at: float


class Registry(BaseModel):
    """The whole file. `updates` counts its versions and numbers the CRLs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Literal[1] = 1
    federation: Name
    updates: int = 0
    members: tuple[Record, ...] = ()
    revocations: tuple[Revocation, ...] = ()

    def find(self, member: str) -> Record | None:
        return next((record for record in self.members if record.member == member), None)

    def active(self) -> tuple[Record, ...]:
        """All that are not revoked."""
        return tuple(record for record in self.members if record.revoked is None)


def read_registry(path: Path) -> Registry:
    """Raises OperatorError."""
    data = read_file(path, "it is made by `edgechoir ca init` and travels with the broker's files")
    try:
        registry = Registry.model_validate_json(data)
    except ValidationError as error:
        where, what = first_wrong(error)
        raise OperatorError(f"{path} is not a registry: {where or 'the file'}: {what}") from None
    names = [record.member for record in registry.members]
    if len(set(names)) != len(names):
        raise OperatorError(f"{path} names a member twice")
    return registry


def write_registry(path: Path, registry: Registry) -> None:
    write_atomic(path, registry.model_dump_json(indent=2).encode() + b"\n", PUBLIC)
