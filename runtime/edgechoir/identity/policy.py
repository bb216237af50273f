"""The federation's policy: the least protection that any plan may give, signed by the fleet CA.

The CA is kept apart from whoever runs an aggregator, so an aggregator cannot weaken what is
pinned on each member; what it says in a roster or plan can only ask for more. A policy is JSON
(for people to read) with a signature (RFC 6979) over its exact bytes.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Final

from edgechoir.errors import BadSignature, Malformed, OperatorError
from edgechoir.identity.certificate import Root
from edgechoir.identity.keys import SIGNATURE_BYTES, SigningKey, sign, verify

DOMAIN: Final = b"edgechoir policy v1\0"
MAX_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class Policy:
    """What every member insists on.

    `min_members` in a sum, and `min_devices` beneath them; `colluders_one_in` n assumes that up to
    one in n members of a roster may collude with the aggregator (0: none); `max_clip` of a plan;
    `cohorts_apart`: the root may see the sum of each of its children, no less than those minima.
    """

    min_members: int = 2
    min_devices: int = 3
    colluders_one_in: int = 4
    max_clip: float = 100.0
    cohorts_apart: bool = False

    def __post_init__(self) -> None:
        numbers = (self.min_members, self.min_devices, self.colluders_one_in)
        if any(isinstance(n, bool) or not isinstance(n, int) for n in numbers):
            raise OperatorError(f"a policy's counts are whole numbers, saw {numbers}")
        if not 2 <= self.min_members <= 32 or not 2 <= self.min_devices <= 10**6:
            raise OperatorError(
                f"min_members is {self.min_members} and min_devices {self.min_devices}; "
                "allowed: 2 to 32 and 2 to 1000000"
            )
        if self.colluders_one_in not in (0, *range(2, 1001)):
            raise OperatorError(
                f"colluders_one_in is {self.colluders_one_in}; allowed: 0, or 2 to 1000"
            )
        if not isinstance(self.max_clip, int | float) or not 0 < self.max_clip <= 1e6:
            raise OperatorError(f"max_clip is {self.max_clip}; allowed: above 0, up to 1000000")
        if not isinstance(self.cohorts_apart, bool):
            raise OperatorError(f"cohorts_apart is {self.cohorts_apart!r}; allowed: true or false")


def weaker(given: Policy, held: Policy) -> tuple[str, ...]:
    """In which fields `given` protects less than `held`; none where it may take its place."""
    less = {
        "min_members": given.min_members < held.min_members,
        "min_devices": given.min_devices < held.min_devices,
        "colluders_one_in": _share(given) < _share(held),
        "max_clip": given.max_clip > held.max_clip,
        "cohorts_apart": given.cohorts_apart and not held.cohorts_apart,
    }
    return tuple(name for name, is_less in less.items() if is_less)


def _share(policy: Policy) -> float:
    return 1 / policy.colluders_one_in if policy.colluders_one_in else 0.0


@dataclass(frozen=True, slots=True)
class SignedPolicy:
    """A policy as it is stored and sent: the signed text, and what it says."""

    text: bytes
    policy: Policy


def sign_policy(key: SigningKey, federation: str, policy: Policy) -> bytes:
    """The signed text: one line of JSON, a newline, the signature in hex, a newline."""
    line = json.dumps({"federation": federation, **asdict(policy)}, sort_keys=True).encode()
    return line + b"\n" + sign(key, DOMAIN, line).hex().encode() + b"\n"


def read_policy(text: bytes, root: Root) -> SignedPolicy:
    """Check and read a signed policy. Raises Malformed or BadSignature."""
    if len(text) > MAX_BYTES:
        raise Malformed(f"a policy of {len(text)} bytes, at most {MAX_BYTES} expected")
    line, _, rest = text.partition(b"\n")
    try:
        signature = bytes.fromhex(rest.decode("ascii").strip())
    except ValueError:
        raise Malformed("a policy's second line is not a signature in hex") from None
    if len(signature) != SIGNATURE_BYTES:
        raise BadSignature(f"a policy's signature has {len(signature)} bytes")
    verify(root.public_key, signature, DOMAIN, line)
    try:
        fields = json.loads(line)
        if not isinstance(fields, Mapping):
            raise Malformed("a policy is no JSON object")
        values = dict(fields)
        federation = values.pop("federation", None)
        policy = Policy(**values)
    except (ValueError, TypeError, OperatorError) as error:
        raise Malformed(f"a signed policy that this version cannot read: {error}") from None
    if federation != root.federation:
        raise Malformed(f"a policy of {federation!r}, expected {root.federation!r}")
    return SignedPolicy(text, policy)
