"""A policy is what the fleet's CA has signed, or none."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import BadSignature, Malformed, OperatorError, RemoteError
from edgechoir.identity.authority import Authority
from edgechoir.identity.keys import sign
from edgechoir.identity.policy import DOMAIN, MAX_BYTES, Policy, read_policy, sign_policy, weaker

POLICIES = st.builds(
    Policy,
    min_members=st.integers(2, 32),
    min_devices=st.integers(2, 10**6),
    colluders_one_in=st.sampled_from([0, 2, 4, 1000]),
    max_clip=st.floats(1e-9, 1e6),
)


@pytest.fixture(scope="module")
def signed(authority: Authority) -> bytes:
    return sign_policy(authority.key, "alps", Policy(3, 12, 5, 2.5))


def text_of(authority: Authority, line: bytes) -> bytes:
    """Whatever line, with the CA's own signature."""
    return line + b"\n" + sign(authority.key, DOMAIN, line).hex().encode() + b"\n"


def fields(**changes: Any) -> bytes:
    known = {"federation": "alps", "min_members": 2, "min_devices": 3, "max_clip": 1.0}
    return json.dumps({**known, **changes}).encode()


@settings(deadline=None, max_examples=50)
@given(policy=POLICIES)
def test_a_policy_is_read_as_it_was_signed(authority: Authority, policy: Policy) -> None:
    text = sign_policy(authority.key, "alps", policy)
    read = read_policy(text, authority.root)
    assert read.policy == policy
    assert read.text == text


def test_a_policy_is_for_people_to_read(signed: bytes) -> None:
    line, signature, rest = signed.split(b"\n")
    assert json.loads(line) == {
        "federation": "alps",
        "min_members": 3,
        "min_devices": 12,
        "colluders_one_in": 5,
        "max_clip": 2.5,
        "cohorts_apart": False,
    }
    assert (len(signature), rest) == (128, b"")


def test_the_same_policy_is_the_same_text(authority: Authority, signed: bytes) -> None:
    assert sign_policy(authority.key, "alps", Policy(3, 12, 5, 2.5)) == signed


def test_a_policy_changed_by_one_digit_is_refused(authority: Authority, signed: bytes) -> None:
    """The aggregator's operator asks for less."""
    for was, now in ((b'"min_members": 3', b'"min_members": 2'), (b"2.5", b"9.5")):
        assert was in signed
        with pytest.raises(BadSignature, match="does not fit"):
            read_policy(signed.replace(was, now), authority.root)


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_a_policy_with_any_byte_changed_is_refused(
    authority: Authority, signed: bytes, data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(signed) - 2))
    byte = data.draw(st.integers(0, 255))
    changed = signed[:at] + bytes([byte]) + signed[at + 1 :]
    if changed.lower() == signed:  # hex digits may be large, and no byte may be the same
        return
    with pytest.raises((BadSignature, Malformed)):
        read_policy(changed, authority.root)


def test_a_policy_cut_short_is_refused(authority: Authority, signed: bytes) -> None:
    for length in range(len(signed) - 1):
        with pytest.raises((BadSignature, Malformed)):
            read_policy(signed[:length], authority.root)


def test_a_policy_of_another_ca_is_refused(foreign: Authority, signed: bytes) -> None:
    """Same federation, another key."""
    with pytest.raises(BadSignature):
        read_policy(signed, foreign.root)


def test_a_policy_of_another_federation_is_refused(authority: Authority) -> None:
    """One CA's key in two federations: what is signed for one does not hold in the other."""
    text = sign_policy(authority.key, "andes", Policy())
    with pytest.raises(Malformed, match="a policy of 'andes', expected 'alps'"):
        read_policy(text, authority.root)
    with pytest.raises(Malformed, match="a policy of None, expected 'alps'"):
        read_policy(text_of(authority, b'{"min_members": 3}'), authority.root)


def test_a_signature_for_another_purpose_is_none(authority: Authority) -> None:
    """The CA signs other things too; none of them is a policy."""
    line = fields()
    other = sign(authority.key, b"edgechoir envelope v1\0", line)
    with pytest.raises(BadSignature):
        read_policy(line + b"\n" + other.hex().encode() + b"\n", authority.root)


@pytest.mark.parametrize(
    "changes",
    [
        {"min_members": 1},
        {"min_members": 33},
        {"min_members": 2.5},
        {"min_members": True},
        {"min_members": "2"},
        {"min_members": None},
        {"min_devices": 1},
        {"min_devices": 10**6 + 1},
        {"colluders_one_in": 1},
        {"colluders_one_in": -4},
        {"colluders_one_in": 1001},
        {"max_clip": 0},
        {"max_clip": -1.0},
        {"max_clip": 1.1e6},
        {"max_clip": "1"},
        {"max_clip": [1]},
        {"unheard_of": 1},
        {"federation": ["alps"]},
    ],
    ids=str,
)
def test_a_signed_policy_with_values_that_mean_nothing_is_malformed(
    authority: Authority, changes: dict[str, Any]
) -> None:
    """A later version's, or a mistake: it is not half obeyed."""
    with pytest.raises(Malformed):
        read_policy(text_of(authority, fields(**changes)), authority.root)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"2",
        b"{",
        b'{"max_clip": NaN, "federation": "alps"}',
        b'{"max_clip": Infinity, "federation": "alps"}',
        b"\xff\xfe",
        b"[" * 4000,
        b'{"federation": "alps", "min_devices": ' + b"9" * 3900 + b"}",
    ],
    ids=range(10),
)
def test_a_signed_line_that_is_no_policy_is_malformed(authority: Authority, line: bytes) -> None:
    with pytest.raises(Malformed):
        read_policy(text_of(authority, line)[: MAX_BYTES + 1], authority.root)


def test_a_policy_without_a_field_has_the_built_in_value_of_it(authority: Authority) -> None:
    text = text_of(authority, b'{"federation": "alps", "min_devices": 9}')
    assert read_policy(text, authority.root).policy == Policy(min_devices=9)


def test_a_text_beyond_the_limit_is_not_looked_at(authority: Authority) -> None:
    with pytest.raises(Malformed, match=f"of {MAX_BYTES + 1} bytes, at most {MAX_BYTES}"):
        read_policy(bytes(MAX_BYTES + 1), authority.root)


@settings(deadline=None)
@given(text=st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)))
def test_no_junk_is_a_policy(authority: Authority, text: bytes) -> None:
    with pytest.raises(RemoteError):
        read_policy(text, authority.root)


@pytest.mark.parametrize(
    "values",
    [(1, 3, 4, 1.0), (2, 1, 4, 1.0), (2, 3, 1, 1.0), (2, 3, 4, 0.0), (2, 3, 4, float("nan"))],
)
def test_nobody_can_ask_for_a_policy_that_means_nothing(
    values: tuple[int, int, int, float],
) -> None:
    with pytest.raises(OperatorError, match=r"allowed|whole"):
        Policy(*values)


@pytest.mark.parametrize("value", [0, 1, "yes", None])
def test_whether_cohorts_are_seen_apart_is_said_by_true_or_false(value: Any) -> None:
    with pytest.raises(OperatorError, match="cohorts_apart is"):
        Policy(cohorts_apart=value)


def test_a_policy_signed_before_cohorts_could_be_seen_does_not_allow_it(
    authority: Authority,
) -> None:
    assert not read_policy(text_of(authority, fields()), authority.root).policy.cohorts_apart


NEAR = st.builds(
    Policy,
    min_members=st.integers(2, 4),
    min_devices=st.integers(2, 4),
    colluders_one_in=st.sampled_from([0, 2, 3, 4]),
    max_clip=st.sampled_from([0.5, 1.0, 2.0]),
    cohorts_apart=st.booleans(),
)


@given(NEAR, NEAR)
def test_of_two_policies_that_differ_at_least_one_is_weaker(one: Policy, other: Policy) -> None:
    assert (not weaker(one, other) and not weaker(other, one)) == (one == other)


@given(NEAR, NEAR, NEAR)
def test_no_chain_of_stronger_policies_ends_in_a_weaker_one(
    first: Policy, second: Policy, third: Policy
) -> None:
    if not weaker(second, first) and not weaker(third, second):
        assert not weaker(third, first)


@pytest.mark.parametrize(
    "change",
    [
        {"min_members": 2},
        {"min_devices": 3},
        {"colluders_one_in": 0},
        {"max_clip": 9.0},
        {"cohorts_apart": True},
    ],
)
def test_each_field_can_make_a_policy_weaker(change: dict[str, Any]) -> None:
    held = Policy(min_members=4, min_devices=6, colluders_one_in=3, max_clip=2.0)
    assert weaker(replace(held, **change), held) == tuple(change)
    assert weaker(held, replace(held, **change)) == ()
