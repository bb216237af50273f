"""Both members of a pair walk the same chain, nobody else does, and it goes forward only."""

import hashlib
import hmac
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import OutOfPlace
from edgechoir.secagg.chains import MAX_JUMP, Chain, pad_seed, pair_chain

MINE, THEIRS, ROSTER = b"m" * 32, b"t" * 32, b"r" * 32
SECRET = st.binary(min_size=32, max_size=32)
NAME = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=32)


@pytest.fixture
def chain() -> Chain:
    return pair_chain(MINE, THEIRS, "dev-1", "dev-2", ROSTER)


@settings(deadline=None)
@given(mine=SECRET, theirs=SECRET, roster=SECRET, me=NAME, them=NAME)
def test_both_sides_derive_the_same_chain(
    mine: bytes, theirs: bytes, roster: bytes, me: str, them: str
) -> None:
    if me == them:
        return
    here = pair_chain(mine, theirs, me, them, roster)
    there = pair_chain(theirs, mine, them, me, roster)
    assert here == there
    assert here.turn == 1
    assert here.at(4).leaf() == there.at(4).leaf()
    assert here.at(4).box_key(me, them) == there.at(4).box_key(me, them)


@pytest.mark.parametrize(
    "other",
    [
        lambda: pair_chain(b"M" * 32, THEIRS, "dev-1", "dev-2", ROSTER),
        lambda: pair_chain(MINE, b"T" * 32, "dev-1", "dev-2", ROSTER),
        lambda: pair_chain(MINE, THEIRS, "dev-1", "dev-2", b"R" * 32),
        lambda: pair_chain(MINE, THEIRS, "dev-1", "dev-3", ROSTER),
        lambda: pair_chain(MINE, THEIRS, "dev-0", "dev-2", ROSTER),
        lambda: pair_chain(THEIRS, MINE, "dev-1", "dev-2", ROSTER),
    ],
    ids=["my secret", "their secret", "roster", "their name", "my name", "secrets exchanged"],
)
def test_a_chain_is_of_these_secrets_names_and_roster(
    chain: Chain, other: Callable[[], Chain]
) -> None:
    assert other().key != chain.key


def test_each_turn_context_and_direction_has_a_secret_of_its_own(chain: Chain) -> None:
    links = [chain.at(turn) for turn in range(1, 21)]
    contexts = (b"a" * 32, b"b" * 32)
    secrets = [link.key for link in links] + [link.leaf() for link in links]
    secrets += [pad_seed(link.leaf(), context) for link in links for context in contexts]
    secrets += [link.box_key("dev-1", "dev-2") for link in links]
    secrets += [link.box_key("dev-2", "dev-1") for link in links]
    assert len(set(secrets)) == len(secrets) == 20 * 6
    assert all(len(secret) == 32 for secret in secrets)


@settings(deadline=None)
@given(steps=st.lists(st.integers(0, 20), max_size=5))
def test_many_steps_lead_where_one_leap_does(steps: list[int]) -> None:
    chain = walked = pair_chain(MINE, THEIRS, "dev-1", "dev-2", ROSTER)
    for step in steps:
        walked = walked.at(walked.turn + step)
    assert walked == chain.at(1 + sum(steps))


@given(turn=st.integers(-(2**32), 4))
def test_no_turn_before_the_chain_can_be_reached(turn: int) -> None:
    with pytest.raises(OutOfPlace, match=f"turn {turn} is not within 5"):
        Chain(b"k" * 32, 5).at(turn)


def test_a_leap_is_bounded(chain: Chain) -> None:
    assert chain.at(1 + MAX_JUMP).turn == 1 + MAX_JUMP
    for turn in (1 + MAX_JUMP + 1, 2**32 - 1):
        with pytest.raises(OutOfPlace, match=f"{1 + MAX_JUMP} of the chain"):
            chain.at(turn)


def test_the_chain_is_hkdf_as_rfc_5869_writes_it(chain: Chain) -> None:
    """The same once more from HMAC alone, so that no detail of the library is part of it."""

    def expand(key: bytes, info: bytes) -> bytes:
        return hmac.digest(key, info + b"\x01", hashlib.sha256)

    extracted = hmac.digest(ROSTER, MINE + THEIRS, hashlib.sha256)
    first = expand(extracted, b"edgechoir pair\0dev-1\0dev-2")
    second = expand(first, b"edgechoir chain next")
    leaf = expand(second, b"edgechoir leaf")
    assert chain.key == first
    assert chain.at(2).key == second
    assert chain.at(2).leaf() == leaf
    assert chain.at(2).box_key("dev-2", "dev-1") == expand(second, b"edgechoir box\0dev-2\0dev-1")
    assert pad_seed(leaf, b"c" * 32) == expand(leaf, b"edgechoir pad" + b"c" * 32)
