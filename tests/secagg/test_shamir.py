"""Any t shares give the secret back; fewer fit every secret alike."""

import random
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import LocalError, Malformed
from edgechoir.secagg.shamir import PRIME, SHARE_BYTES, combine, split, weights_at_zero
from edgechoir.sim.chance import entropy_of

SECRET = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.sampled_from([bytes(32), b"\xff" * 32, bytes(31) + b"1"]),
)
NO_CHANCE = bytes


@settings(deadline=None)
@given(secret=SECRET, data=st.data(), seed=st.integers(0, 2**32))
def test_any_t_shares_give_the_secret_back(secret: bytes, data: st.DataObject, seed: int) -> None:
    n = data.draw(st.integers(1, 32))
    t = data.draw(st.integers(1, n))
    xs = data.draw(st.lists(st.integers(1, 60), min_size=n, max_size=n, unique=True))
    shares = split(secret, t, xs, entropy_of(seed, "shares"))
    assert set(shares) == set(xs)
    assert all(len(share) == SHARE_BYTES for share in shares.values())
    chosen = data.draw(st.permutations(xs))[:t]
    assert combine({x: shares[x] for x in chosen}) == secret


@settings(deadline=None)
@given(secret=SECRET, other=SECRET, data=st.data(), seed=st.integers(0, 2**32))
def test_fewer_than_t_shares_fit_any_other_secret_as_well(
    secret: bytes, other: bytes, data: st.DataObject, seed: int
) -> None:
    """For each t - 1 shares and each secret there is one polynomial: nothing is ruled out."""
    t = data.draw(st.integers(2, 8))
    shares = split(secret, t, range(1, t + 1), entropy_of(seed, "shares"))
    known = {x: int.from_bytes(shares[x]) for x in range(1, t)}
    # The share of t that would make `other` the secret behind the ones known.
    weights = weights_at_zero(list(range(1, t + 1)))
    sum_known = sum(w * y for w, y in zip(weights, known.values(), strict=False)) % PRIME
    forged = (int.from_bytes(other) - sum_known) * pow(weights[-1], -1, PRIME) % PRIME
    made_up = {**{x: shares[x] for x in known}, t: forged.to_bytes(SHARE_BYTES)}
    assert combine(made_up) == other


def test_one_share_is_uniform_over_the_field() -> None:
    """Of one secret shared a thousand times: the mean of a share is the middle of the field."""
    entropy = entropy_of(1, "shares")
    values = [int.from_bytes(split(bytes(32), 2, [1, 2], entropy)[1]) for _ in range(1000)]
    assert len(set(values)) == 1000
    assert sum(values) / len(values) / PRIME == pytest.approx(0.5, abs=0.05)
    assert sum(v & 1 for v in values) / 1000 == pytest.approx(0.5, abs=0.08)


def test_the_polynomial_is_the_one_written_down() -> None:
    """Coefficients from the entropy, the secret as the constant: f(x) = 7 x^2 + 5 x + secret."""
    draws = iter([(7).to_bytes(64), (5).to_bytes(64)])
    secret = (1000).to_bytes(32)
    shares = split(secret, 3, [1, 2, 10], lambda n: next(draws))
    assert {x: int.from_bytes(y) for x, y in shares.items()} == {1: 1012, 2: 1038, 10: 1750}


def test_the_field_is_the_first_prime_above_every_secret() -> None:
    assert PRIME > 2**256
    chance = random.Random(1)
    for candidate in range(2**256 + 1, PRIME + 1, 2):
        prime = all(
            pow(chance.randrange(2, candidate), candidate - 1, candidate) == 1 for _ in range(3)
        )
        assert prime == (candidate == PRIME), candidate


@settings(deadline=None)
@given(seed=st.integers(0, 2**32), t=st.integers(1, 8), data=st.data())
def test_a_false_share_gives_another_secret_or_none(seed: int, t: int, data: st.DataObject) -> None:
    secret = entropy_of(seed, "secret")(32)
    shares = split(secret, t, range(1, t + 1), entropy_of(seed, "shares"))
    at = data.draw(st.integers(1, t))
    value = data.draw(st.integers(0, PRIME - 1))
    if value == int.from_bytes(shares[at]):
        return
    with suppress(Malformed):
        assert combine({**shares, at: value.to_bytes(SHARE_BYTES)}) != secret


@pytest.mark.parametrize("bad", [b"", bytes(32), bytes(34), b"\xff" * 33, PRIME.to_bytes(33)])
def test_what_is_no_number_of_the_field_is_malformed(bad: bytes) -> None:
    shares = split(bytes(32), 2, [1, 2], entropy_of(1, "shares"))
    with pytest.raises(Malformed, match="not a number of the field"):
        combine({1: shares[1], 2: bad})


def test_shares_of_no_32_byte_secret_do_not_belong_together() -> None:
    with pytest.raises(Malformed, match="do not belong together"):
        combine({1: (PRIME - 1).to_bytes(33)})


@pytest.mark.parametrize(
    ("secret", "t", "xs"),
    [
        (bytes(31), 1, [1]),
        (bytes(33), 1, [1]),
        (bytes(32), 0, [1]),
        (bytes(32), 3, [1, 2]),
        (bytes(32), 1, [0, 1]),
        (bytes(32), 2, [1, 1]),
        (bytes(32), 1, [1, 2, 1]),
        (bytes(32), 1, []),
    ],
)
def test_what_cannot_be_shared_is_our_own_error(secret: bytes, t: int, xs: list[int]) -> None:
    """A share at 0 would be the secret itself, and two at one place are one."""
    with pytest.raises(LocalError, match="cannot share"):
        split(secret, t, xs, entropy_of(1, "shares"))
