"""What all JSON documents have in common. They are meant for people and for other programs.

A document may come from anyone who can reach the broker, and its text ends up on a terminal: size,
depth and every length are bounded, and control characters never pass. A key that a reader does not
know is passed over, so that a fleet can be upgraded one member at a time.
"""

import re
from math import isfinite
from numbers import Real
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from edgechoir.errors import Malformed
from edgechoir.types import NAME

MAX_BYTES: Final = 16_384
MAX_DEPTH: Final = 8
MAX_TEXT: Final = 200

_CONTROL: Final = "\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069"
"""C0, C1, line separators, and the marks that turn the direction of writing around."""


def _one_line(value: object) -> object:
    if not isinstance(value, str):
        return value
    return re.sub(f"[{_CONTROL}]", " ", value[:MAX_TEXT])


def _finite(value: object) -> object:
    """A loss may be NaN, which JSON does not have: it counts as not known."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return value
    number = float(value)
    return number if isfinite(number) else None


Line = Annotated[
    str,
    StringConstraints(max_length=MAX_TEXT, pattern=f"^[^{_CONTROL}]*$"),
    BeforeValidator(_one_line),
]
"""Text for people, cut and cleaned to one line."""
Name = Annotated[str, StringConstraints(pattern=f"^{NAME.pattern}$")]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Field(ge=0, le=1e12)]
"""A duration, or a point in time since 1970."""
Reading = Annotated[float | None, BeforeValidator(_finite)]
"""A measured number; None where there is none or it is not finite."""
TierWord = Literal["device", "node", "edge-cloud", "cloud", "monitor"]


class Part(BaseModel):
    """An object within a document."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True, allow_inf_nan=False)


class Document(Part):
    """A document of one member."""

    schema_version: Literal[1] = Field(default=1, description="Version of this document's schema.")
    federation: Name = Field(description="The federation.")
    tier: TierWord = Field(description="The member's tier.")
    member: Name = Field(description="The member's id.")

    def to_json(self) -> bytes:
        """Compact JSON without the keys that have no value."""
        return self.model_dump_json(exclude_none=True).encode()

    @classmethod
    def from_json(cls, payload: bytes) -> Self:
        """Read a document from outside. Raises Malformed."""
        kind = cls.__name__.lower()
        if len(payload) > MAX_BYTES:
            raise Malformed(f"{kind} of {len(payload)} bytes, at most {MAX_BYTES} expected")
        if _depth(payload) > MAX_DEPTH:
            raise Malformed(f"{kind} is nested more than {MAX_DEPTH} deep")
        try:
            return cls.model_validate_json(payload)
        except ValidationError as error:
            first: Any = error.errors(include_url=False, include_context=False)[0]
            where = ".".join(map(str, first["loc"])) or "document"
            seen = repr(first["input"])[:60]
            raise Malformed(f"{kind}: {where} is {seen}: {first['msg'][:MAX_TEXT]}") from None


def _depth(payload: bytes) -> int:
    """How deep a JSON text is nested. Brackets within strings do not count."""
    deepest = depth = 0
    for bracket in re.sub(rb'"(?:[^"\\]|\\.)*"', b"", payload):
        if bracket in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif bracket in b"]}":
            depth -= 1
    return deepest
