"""How a certificate names its holder.

Subject: O = federation, OU = tier's word, CN = member id. The same once more as the URI
`edgechoir://<federation>/<tier>/<member>` in the subject alternative name. The broker takes the
CN as the user name of its access rules, which is why an id is unique across all tiers.
"""

from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from edgechoir.errors import BadCertificate, OperatorError
from edgechoir.types import Address, MemberId, Tier, member_id

MONITOR: Final = "monitor"
BROKER: Final = "broker"
BRIDGE: Final = "bridge"
ENROLMENT: Final = "enrolment"
SERVERS: Final = (BROKER, ENROLMENT)
"""Words of those that others connect to."""

SPEAKERS: Final = tuple(tier.value for tier in Tier)
"""Words of the tiers whose members may sign messages. A monitor listens, a broker or a bridge
between two of them relays, the enrolment endpoint hands out certificates."""

ROLES: Final = (*SPEAKERS, MONITOR, BRIDGE, *SERVERS)
"""Every word that may stand as the tier of a certificate."""


def address(tier: str, member: str) -> Address:
    """A checked Address. Raises OperatorError: unknown tier word, or not an id."""
    if tier not in ROLES:
        raise OperatorError(f"{tier!r} is not a tier, expected one of {', '.join(ROLES)}")
    return Address(tier, member_id(member))


def subject(federation: str, holder: Address) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, federation),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, holder.tier),
            x509.NameAttribute(NameOID.COMMON_NAME, holder.member),
        ]
    )


def authority_subject(federation: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, federation),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{federation} fleet CA"),
        ]
    )


def uri(federation: str, holder: Address) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(f"edgechoir://{federation}/{holder}")


def read_subject(name: x509.Name) -> tuple[MemberId, Address]:
    """Federation and holder of a name made by `subject`. Raises BadCertificate."""
    values = [(attribute.oid, attribute.value) for attribute in name]
    expected = [
        NameOID.ORGANIZATION_NAME,
        NameOID.ORGANIZATIONAL_UNIT_NAME,
        NameOID.COMMON_NAME,
    ]
    if [oid for oid, _ in values] != expected:
        raise BadCertificate(
            f"the name {name.rfc4514_string()!r} is not O=federation, OU=tier, CN=member"
        )
    try:
        federation, tier, member = (str(value) for _, value in values)
        return member_id(federation), address(tier, member)
    except OperatorError as error:
        raise BadCertificate(f"the name {name.rfc4514_string()!r}: {error}") from None
