"""When a certificate is renewed, and when it is tried again. Draws are numbers in [0, 1)."""

from typing import Final

from edgechoir.identity.certificate import Certified

SHARE: Final = 2 / 3
"""Of a certificate's life, after which it is renewed: a third is left for what may be down."""
SPREAD: Final = 0.05
"""Of its life, over which a fleet enrolled on one day spreads its requests."""
RETRY_FIRST_S: Final = 60.0
RETRY_LAST_S: Final = 6 * 3600.0


def renewal_due(certificate: Certified, draw: float) -> float:
    """In unix seconds."""
    life = certificate.not_after - certificate.not_before
    return certificate.not_before + life * (SHARE + SPREAD * draw)


def retry_after(failures: int, draw: float) -> float:
    """Seconds until the next attempt, after so many in a row have failed: doubling, in the upper
    half of its interval.

    >>> retry_after(1, 0.0), retry_after(2, 0.0), retry_after(99, 0.0) / 3600
    (30.0, 60.0, 3.0)
    """
    whole = min(RETRY_FIRST_S * 2.0 ** min(failures - 1, 20), RETRY_LAST_S)
    return whole * (0.5 + 0.5 * draw)
