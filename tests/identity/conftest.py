"""A small fleet made from a seed: one CA, a device, a node."""

import hashlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from edgechoir.identity.authority import Authority, create_authority, issue
from edgechoir.identity.certificate import Certified
from edgechoir.identity.envelope import Signer
from edgechoir.identity.keys import new_key
from edgechoir.identity.request import make_request
from edgechoir.types import Entropy

NOW = 1_800_000_000.0


def seeded_entropy(seed: str) -> Entropy:
    """A repeatable stream: sha256 of the seed and a counter."""
    counter = itertools.count()

    def entropy(n: int) -> bytes:
        blocks = (
            hashlib.sha256(f"{seed}/{next(counter)}".encode()).digest() for _ in range(-(-n // 32))
        )
        return b"".join(blocks)[:n]

    return entropy


@dataclass(frozen=True)
class Enrolled:
    key: ec.EllipticCurvePrivateKey
    certificate: Certified


class Enrol(Protocol):
    def __call__(self, tier: str, member: str, days: int = 365) -> Enrolled: ...


Seeded = Callable[[str], Entropy]


@pytest.fixture(scope="session")
def now() -> float:
    return NOW


@pytest.fixture(scope="session")
def seeded() -> Seeded:
    return seeded_entropy


@pytest.fixture(scope="session")
def entropy() -> Entropy:
    return seeded_entropy("entropy")


@pytest.fixture(scope="session")
def authority() -> Authority:
    return create_authority("alps", seeded_entropy("alps"), NOW, 3650)


@pytest.fixture(scope="session")
def foreign() -> Authority:
    """Another CA that claims the same federation."""
    return create_authority("alps", seeded_entropy("foreign"), NOW, 3650)


@pytest.fixture(scope="session")
def enrol(authority: Authority) -> Enrol:
    def enrol(tier: str, member: str, days: int = 365) -> Enrolled:
        entropy = seeded_entropy(f"{tier}/{member}")
        key = new_key(entropy)
        request = make_request(key, "alps", tier, member)
        return Enrolled(key, issue(authority, request, tier, NOW, days, entropy))

    return enrol


@pytest.fixture(scope="session")
def device(enrol: Enrol) -> Enrolled:
    return enrol("device", "dev-1")


@pytest.fixture
def signer(device: Enrolled) -> Signer:
    return Signer(device.key, device.certificate, b"instance")
