"""What members sign so that one set of survivors is opened in a turn, and of one plan alone.

The threshold alone keeps b and K of one member apart. It does not bind the answers of several
members together: an aggregator that shows them different plans or different survivor sets could
take some members' K from one set and the others' b from another, and so open a sum of fewer than
any member agreed to, of one member in the worst case. Two signatures prevent it:

- a receipt: each survivor has signed, with its upload, the context it masked its vector for. Who
  is asked to open a sum sees that all in it followed the plan it follows itself.
- a consent: where somebody is missing, a member first signs the survivor set, and opens it once it
  has seen the consents of a threshold. Two sets would need two thresholds, and 2t > n + c.

Bonawitz et al. 2017, figure 4, round 3 ("ConsistencyCheck"). Where nobody is missing no K is given
out, and no consent is needed.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from edgechoir.errors import BadSignature, PolicyViolation
from edgechoir.identity.keys import SigningKey, sign, verify
from edgechoir.rounds.epoch import Entry

_RECEIPT: Final = b"edgechoir receipt v1\0"
_CONSENT: Final = b"edgechoir consent v1\0"


def make_receipt(key: SigningKey, context: bytes) -> bytes:
    """Says: my vector of this turn is masked for this context, and for no other."""
    return sign(key, _RECEIPT, context)


def check_receipt(entry: Entry, receipt: bytes, context: bytes) -> None:
    """Raises BadSignature."""
    verify(entry.certificate.public_key, receipt, _RECEIPT, context)


def make_consent(key: SigningKey, context: bytes, survivors: tuple[str, ...]) -> bytes:
    """Says: these are the survivors, and I sign no other set in this turn."""
    return sign(key, _CONSENT, context, _set(survivors))


def check_consent(entry: Entry, consent: bytes, context: bytes, survivors: tuple[str, ...]) -> None:
    """Raises BadSignature."""
    verify(entry.certificate.public_key, consent, _CONSENT, context, _set(survivors))


def check_agreed(
    entries: Mapping[str, Entry],
    cohort: Iterable[str],
    consents: Iterable[tuple[str, bytes]],
    needed: int,
    context: bytes,
    survivors: tuple[str, ...],
) -> None:
    """Raises PolicyViolation unless `needed` of the cohort have signed these survivors."""
    members, agreed = set(cohort), set[str]()
    for name, consent in consents:
        if name not in members:
            continue
        try:
            check_consent(entries[name], consent, context, survivors)
        except BadSignature:
            continue
        agreed.add(name)
    if len(agreed) < needed:
        raise PolicyViolation(
            f"{len(agreed)} members have signed these survivors, expected {needed}"
        )


def _set(survivors: tuple[str, ...]) -> bytes:
    return b"\0".join(name.encode() for name in sorted(survivors))
