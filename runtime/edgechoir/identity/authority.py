"""The fleet CA: makes the root, signs members and brokers, lists what is revoked (RFC 5280).

One root, no intermediates; it is kept offline, apart from whoever runs an aggregator or a broker.
Certificates begin an hour before they are issued: the clocks of a fleet differ, and a device that
has just booted may lag.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from edgechoir.errors import BadCertificate, OperatorError
from edgechoir.identity.certificate import Certified, Root, read_certificate, read_root
from edgechoir.identity.keys import new_key
from edgechoir.identity.naming import BROKER, SERVERS, address, authority_subject, subject, uri
from edgechoir.identity.request import read_request
from edgechoir.types import Address, Entropy, member_id

CLOCK_SLACK_S: Final = 3600
DAY_S: Final = 86_400
_DER = serialization.Encoding.DER


@dataclass(frozen=True, slots=True)
class Authority:
    """The CA's private key and its own certificate."""

    key: ec.EllipticCurvePrivateKey
    root: Root


def create_authority(federation: str, entropy: Entropy, now: float, days: int) -> Authority:
    """A new CA for a federation, valid for `days`. Raises OperatorError for a bad name or time."""
    name = authority_subject(member_id(federation))
    key = new_key(entropy)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(_serial(entropy))
        .not_valid_before(_moment(now - CLOCK_SLACK_S))
        .not_valid_after(_moment(_end(now, days)))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(_subject_key(key.public_key()), critical=False)
    )
    certificate = builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    return Authority(key, read_root(certificate.public_bytes(_DER)))


def issue(
    authority: Authority, request_der: bytes, tier: str, now: float, days: int, entropy: Entropy
) -> Certified:
    """Sign a member's request after the CA's operator has said which `tier` it is for.

    Raises Malformed, BadSignature, BadCertificate: not a sound request, or one for another
    federation or tier.
    """
    request = read_request(request_der)
    if request.federation != authority.root.federation:
        raise BadCertificate(
            f"the request is for federation {request.federation!r}, "
            f"this is the CA of {authority.root.federation!r}"
        )
    if request.address.tier != tier or tier in SERVERS:
        raise BadCertificate(f"the request is for {request.address}, expected one for tier {tier}")
    return _sign(authority, request.address, request.public_key, (), now, days, entropy)


def issue_server(
    authority: Authority,
    public_key: ec.EllipticCurvePublicKey,
    member: str,
    names: Iterable[str],
    ips: Iterable[IPv4Address | IPv6Address],
    now: float,
    days: int,
    entropy: Entropy,
    role: str = BROKER,
) -> Certified:
    """A server certificate: clients accept it for any of the DNS `names` and `ips`.

    `role` is a broker's or the enrolment endpoint's, so that neither can stand in for the other.

    Raises OperatorError: no name at all, or one that cannot stand in a certificate.
    """
    try:
        hosts: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
    except ValueError as error:
        raise OperatorError(f"a server's DNS name must be plain ASCII: {error}") from None
    hosts += [x509.IPAddress(ip) for ip in ips]
    if not hosts:
        raise OperatorError("a server needs at least one DNS name or IP address")
    return _sign(authority, address(role, member), public_key, hosts, now, days, entropy)


def revocation_list(
    authority: Authority, revoked: Iterable[tuple[int, float]], number: int, now: float
) -> bytes:
    """A CRL in DER of (serial, time of revocation). `number` grows with each list.

    It names the CA's own end as its next update: a broker refuses everybody once its list is past
    that time, and an offline CA cannot promise to be there earlier.
    """
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority_subject(authority.root.federation))
        .last_update(_moment(now - CLOCK_SLACK_S))
        .next_update(_moment(authority.root.not_after))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_key(authority), critical=False)
    )
    for serial, at in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial)
        builder = builder.add_revoked_certificate(entry.revocation_date(_moment(at)).build())
    signed = builder.sign(authority.key, hashes.SHA256(), ecdsa_deterministic=True)
    return signed.public_bytes(_DER)


def _sign(
    authority: Authority,
    holder: Address,
    public_key: ec.EllipticCurvePublicKey,
    hosts: Sequence[x509.GeneralName],
    now: float,
    days: int,
    entropy: Entropy,
) -> Certified:
    root = authority.root
    if now > root.not_after:
        raise OperatorError("the CA's own certificate has expired: make a new CA and enrol again")
    use = ExtendedKeyUsageOID.SERVER_AUTH if hosts else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject(root.federation, holder))
        .issuer_name(authority_subject(root.federation))
        .public_key(public_key)
        .serial_number(_serial(entropy))
        .not_valid_before(_moment(now - CLOCK_SLACK_S))
        .not_valid_after(_moment(min(_end(now, days), root.not_after)))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([use]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([uri(root.federation, holder), *hosts]), critical=False
        )
        .add_extension(_subject_key(public_key), critical=False)
        .add_extension(_authority_key(authority), critical=False)
    )
    certificate = builder.sign(authority.key, hashes.SHA256(), ecdsa_deterministic=True)
    return read_certificate(certificate.public_bytes(_DER), root, now)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _subject_key(public_key: ec.EllipticCurvePublicKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(public_key)


def _authority_key(authority: Authority) -> x509.AuthorityKeyIdentifier:
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.root.public_key)


def _serial(entropy: Entropy) -> int:
    """127 unpredictable bits, never zero (RFC 5280, section 4.1.2.2)."""
    return (int.from_bytes(entropy(16)) >> 1) + 1


def _end(now: float, days: int) -> float:
    if not 1 <= days <= 36_500:
        raise OperatorError(f"a certificate for {days} days: give 1 to 36500")
    return now + days * DAY_S


def _moment(time: float) -> datetime:
    return datetime.fromtimestamp(int(time), UTC)
