"""Both members of a pair walk the same chain, nobody else does, and it goes forward only."""

import hashlib
import hmac
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import OutOfPlace
from edgechoir.secagg.chains import MAX_JUMP, Chain, pair_chain

MINE, THEIRS, ROSTER = b"m" * 32, b"t" * 32, b"r" * 32
SECRET = st.binary(min_size=32, max_size=32)
NAME = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=32)


@pytest.fixture
def chain() -> Chain:
    return pair_chain(MINE, THEIRS, "dev-1", "dev-2", ROSTER, 5)


@settings(deadline=None)
@given(mine=SECRET, theirs=SECRET, roster=SECRET, me=NAME, them=NAME, first=st.integers(0, 2**32))
def test_both_sides_derive_the_same_chain(
    mine: bytes, theirs: bytes, roster: bytes, me: str, them: str, first: int
) -> None:
    if me == them:
        return
    here = pair_chain(mine, theirs, me, them, roster, first)
    there = pair_chain(theirs, mine, them, me, roster, first)
    assert here == there
    assert here.at(first + 3).pad_seed(b"x") == there.at(first + 3).pad_seed(b"x")


@pytest.mark.parametrize(
    "other",
    [
        lambda: pair_chain(b"M" * 32, THEIRS, "dev-1", "dev-2", ROSTER, 5),
        lambda: pair_chain(MINE, b"T" * 32, "dev-1", "dev-2", ROSTER, 5),
        lambda: pair_chain(MINE, THEIRS, "dev-1", "dev-2", b"R" * 32, 5),
        lambda: pair_chain(MINE, THEIRS, "dev-1", "dev-3", ROSTER, 5),
        lambda: pair_chain(MINE, THEIRS, "dev-0", "dev-2", ROSTER, 5),
        lambda: pair_chain(THEIRS, MINE, "dev-1", "dev-2", ROSTER, 5),
    ],
    ids=["my secret", "their secret", "roster", "their name", "my name", "secrets exchanged"],
)
def test_a_chain_is_of_these_secrets_names_and_roster(
    chain: Chain, other: Callable[[], Chain]
) -> None:
    assert other().key != chain.key


def test_each_round_and_each_context_has_a_pad_seed_of_its_own(chain: Chain) -> None:
    seeds = {
        chain.at(round_).pad_seed(context)
        for round_ in range(5, 25)
        for context in (b"a" * 32, b"b" * 32)
    }
    assert len(seeds) == 40
    assert all(len(seed) == 32 for seed in seeds)
    assert not seeds & {chain.at(round_).key for round_ in range(5, 25)}


@settings(deadline=None)
@given(steps=st.lists(st.integers(0, 20), max_size=5))
def test_many_steps_lead_where_one_leap_does(steps: list[int]) -> None:
    chain = walked = pair_chain(MINE, THEIRS, "dev-1", "dev-2", ROSTER, 5)
    for step in steps:
        walked = walked.at(walked.round + step)
    assert walked == chain.at(5 + sum(steps))


@given(round_=st.integers(-(2**32), 4))
def test_no_round_before_the_chain_can_be_reached(round_: int) -> None:
    later = Chain(b"k" * 32, 5)
    with pytest.raises(OutOfPlace, match=f"round {round_} is not within 5"):
        later.at(round_)
    with pytest.raises(OutOfPlace):
        later.steps_to(round_)


def test_a_leap_is_bounded(chain: Chain) -> None:
    assert chain.at(5 + MAX_JUMP).round == 5 + MAX_JUMP
    assert chain.steps_to(5 + MAX_JUMP) == MAX_JUMP
    for round_ in (5 + MAX_JUMP + 1, 2**32 - 1):
        with pytest.raises(OutOfPlace, match=f"{5 + MAX_JUMP} of the chain"):
            chain.at(round_)


def test_the_chain_is_hkdf_as_rfc_5869_writes_it(chain: Chain) -> None:
    """The same once more from HMAC alone, so that no detail of the library is part of it."""

    def expand(key: bytes, info: bytes) -> bytes:
        return hmac.digest(key, info + b"\x01", hashlib.sha256)

    extracted = hmac.digest(ROSTER, MINE + THEIRS, hashlib.sha256)
    first = expand(extracted, b"edgechoir pair\0dev-1\0dev-2")
    second = expand(first, b"edgechoir chain next")
    assert chain.key == first
    assert chain.at(6).key == second
    assert chain.at(6).pad_seed(b"c" * 32) == expand(second, b"edgechoir pad" + b"c" * 32)
