"""When certificates are renewed, and tried again."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edgechoir.fleet.enrolment import Member
from edgechoir.fleet.renewal import RETRY_LAST_S, renewal_due, retry_after

DRAWS = st.floats(0, 1, exclude_max=True)


@given(days=st.integers(1, 3650), draw=DRAWS)
def test_a_certificate_is_renewed_when_two_thirds_of_it_are_over(
    days: int, draw: float, member: Member
) -> None:
    begin = member.certificate.not_before
    certificate = replace(member.certificate, not_after=begin + days * 86_400)
    passed = (renewal_due(certificate, draw) - begin) / (days * 86_400)
    assert 2 / 3 - 1e-9 <= passed < 0.72


@given(failures=st.integers(1, 1000), draw=DRAWS)
def test_a_failed_attempt_is_repeated_later_and_later_but_within_hours(
    failures: int, draw: float
) -> None:
    pause = retry_after(failures, draw)
    assert 30 <= pause <= RETRY_LAST_S
    assert retry_after(failures + 2, draw) >= pause
