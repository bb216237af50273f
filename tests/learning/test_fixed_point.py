"""Updates as integers: their sum is the weighted mean but for rounding, and never overflows."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgechoir.errors import BadUpdate, LocalError
from edgechoir.learning.fixed_point import (
    BLOCK,
    FIGURE_BITS,
    MAX_DEVICES,
    TAIL,
    WIDTHS,
    Encoding,
    Figures,
    Total,
)
from edgechoir.types import Floats, Ring

HIGHEST_NOISE: Final = 2**32 - 1
HALF: Final = {8: 2**7, 16: 2**15, 32: 2**31}
"""Sums of magnitude below this do not wrap."""


def most_devices(bits: int, max_samples: int) -> int:
    """The largest tree whose devices may weigh so much in this ring."""
    if bits == 32:
        return min((HALF[32] - 1) // max_samples, MAX_DEVICES)
    return (HALF[bits] - 1) // 2


def signed(vector: Ring) -> npt.NDArray[np.int64]:
    """Ring elements as the whole numbers they stand for."""
    return vector.view(f"i{vector.itemsize}").astype(np.int64)


def noise_of(n: int, seed: int = 0) -> Ring:
    return np.random.default_rng([seed, 1]).integers(0, 2**32, n, np.uint32)


def constant_noise(n: int, value: int) -> Ring:
    return np.full(n, value, np.uint32)


def add(vectors: list[Ring]) -> Ring:
    """The sum in the ring, wrapping, as masked vectors are added."""
    out = np.zeros_like(vectors[0])
    for vector in vectors:
        out += vector
    return out


@dataclass(frozen=True, slots=True)
class Cohort:
    """Devices that train: one code, their deltas [m, d] and sample counts [m]."""

    encoding: Encoding
    deltas: Floats
    counts: list[int]


@st.composite
def cohorts(draw: st.DrawFn) -> Cohort:
    """As many devices as the plan is for, or fewer; updates within the clip and beyond it."""
    bits = draw(st.sampled_from(WIDTHS))
    max_samples = draw(st.integers(1, 50_000))
    devices = draw(st.integers(1, min(most_devices(bits, max_samples), 1000)))
    clip = draw(st.floats(1e-6, 100))
    encoding = Encoding(draw(st.integers(1, 20)), devices, clip, max_samples, bits)
    present = draw(st.integers(1, min(devices, 40)))
    numbers = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([1e-4, 0.3, 1.0, 5.0]))
    deltas = numbers.normal(0, clip * spread, (present, encoding.dimension)).astype(np.float32)
    counts = [int(n) for n in numbers.integers(1, 2 * max_samples, present, endpoint=True)]
    return Cohort(encoding, deltas, counts)


def sum_of(cohort: Cohort) -> Ring:
    d = cohort.encoding.dimension
    return add(
        [
            cohort.encoding.encode(delta, n, Figures(), noise_of(d, i))
            for i, (delta, n) in enumerate(zip(cohort.deltas, cohort.counts, strict=True))
        ]
    )


@settings(deadline=None, max_examples=200)
@given(cohort=cohorts())
def test_a_decoded_sum_is_the_weighted_mean_but_for_rounding(cohort: Cohort) -> None:
    """Each device rounds its part by less than one step, and a step of the sum is worth
    max_samples / (scale * samples): m devices err by less than m of those. Beside it stands the
    rounding of the result to float32, half an ulp."""
    encoding = cohort.encoding
    total = encoding.decode(sum_of(cohort))
    w = np.minimum(cohort.counts, encoding.max_samples).astype(np.float64)
    clipped = np.clip(cohort.deltas.astype(np.float64), -encoding.clip, encoding.clip)
    mean = w @ clipped / w.sum()
    m = len(cohort.counts)
    step = encoding.max_samples / (encoding.scale * w.sum())
    bound = m * step * (1 + 1e-6) + np.abs(mean) * 2.0**-23
    assert (np.abs(total.delta - mean) <= bound).all()
    assert total.samples == int(w.sum())
    assert total.devices == m


@settings(deadline=None, max_examples=200)
@given(cohort=cohorts())
def test_clipped_coordinates_are_counted(cohort: Cohort) -> None:
    beyond = int((np.abs(cohort.deltas.astype(np.float64)) > cohort.encoding.clip).sum())
    total = cohort.encoding.decode(sum_of(cohort))
    assert total.clipped_share == beyond / cohort.deltas.size


@settings(deadline=None, max_examples=200)
@given(
    data=st.data(),
    bits=st.sampled_from(WIDTHS),
    clip=st.floats(1e-20, 1e20),
    sign=st.sampled_from([1.0, -1.0]),
    noise=st.sampled_from([0, HIGHEST_NOISE]),
    beyond=st.sampled_from([1.0, 10.0]),
)
def test_no_sum_of_the_worst_updates_overflows(
    data: st.DataObject, bits: int, clip: float, sign: float, noise: int, beyond: float
) -> None:
    """All devices of the tree send the largest update there is, with the most samples, rounded
    away from zero."""
    most = most_devices(bits, 2)
    devices = data.draw(st.one_of(st.integers(1, min(300, most)), st.integers(1, most)))
    max_samples = min(1000, Encoding(3, devices, clip, 1, bits).most)
    encoding = Encoding(3, devices, clip, max_samples, bits)
    delta = np.full(3, sign * clip * beyond, np.float32)
    worst = Figures(2**40, 2**40, 1e30)
    vector = encoding.encode(delta, 10**9, worst, constant_noise(3, noise))
    assert all(abs(int(value)) * devices < HALF[bits] for value in signed(vector))
    assert (signed(vector)[3:] >= 0).all()
    encoding.within(vector, 1)


@pytest.mark.parametrize("bits", WIDTHS)
def test_every_device_of_the_largest_tree_fits(bits: int) -> None:
    devices = (HALF[bits] - 1) // 2
    assert Encoding(1, devices, 1.0, 2, bits).share == 2
    with pytest.raises(BadUpdate, match=f"overflow a {bits}-bit ring"):
        Encoding(1, devices + 1, 1.0, 1, bits)
    assert (HALF[32] - 1) // 2 == MAX_DEVICES


def test_more_samples_than_a_share_holds_are_refused() -> None:
    assert Encoding(1, 1000, 1.0, (HALF[32] - 1) // 1000).share == (HALF[32] - 1) // 1000
    with pytest.raises(BadUpdate, match="1000 devices of up to 2147484 samples overflow"):
        Encoding(1, 1000, 1.0, (HALF[32] - 1) // 1000 + 1)


@pytest.mark.parametrize("bits", [-1, 0, 1, 7, 9, 15, 24, 31, 33, 64, 255])
def test_a_ring_of_another_width_is_refused(bits: int) -> None:
    with pytest.raises(BadUpdate, match=f"a ring of {bits} bits"):
        Encoding(1, 2, 1.0, 1, bits)


@pytest.mark.parametrize("devices", [1, 2, 3, 10, 100, 1000, 5000, 16383])
def test_a_narrow_ring_cuts_figures_into_limbs_that_fit_a_share(devices: int) -> None:
    encoding = Encoding(5, devices, 1.0, 1, 16)
    assert encoding.most >= 2**FIGURE_BITS - 1
    assert encoding.length == 5 + len(TAIL) * encoding.limbs
    zeros = np.zeros(5, np.float32)
    full = Figures(2**FIGURE_BITS - 1, 2**FIGURE_BITS - 1, 0.0)
    vector = encoding.encode(zeros, 1, full, constant_noise(5, 0))
    assert vector.dtype == np.uint16
    assert int(signed(vector).max()) <= encoding.share
    assert int(signed(vector).min()) >= 0
    total = vector.copy()
    for _ in range(min(devices, 50) - 1):
        total += vector
    decoded_ = encoding.decode(total)
    assert decoded_.held_out == min(devices, 50) * (2**FIGURE_BITS - 1)
    assert decoded_.accuracy == 1.0


@pytest.mark.parametrize("value", [0.3, -0.3, 0.001, -0.999, 0.5])
def test_stochastic_rounding_is_unbiased(value: float) -> None:
    """The mean of many roundings is the value: within five standard errors, with a fixed seed."""
    d = 100_000
    encoding = Encoding(d, 1, 2.0**31, 1)  # about one step per unit
    exact = value * encoding.scale
    vector = encoding.encode(np.full(d, value, np.float32), 1, Figures(), noise_of(d, 7))
    rounded = signed(vector)[:d]
    below = np.floor(exact)
    assert set(rounded.tolist()) <= {int(below), int(below) + 1}
    p = exact - below
    assert abs(rounded.mean() - exact) < 5 * np.sqrt(p * (1 - p) / d) + 1e-6


def test_the_errors_of_many_devices_cancel() -> None:
    """Rounded to the nearest, a thousand small updates would all be lost; at random, none is."""
    d = 50
    encoding = Encoding(d, 1000, 1e6, 1)
    small = np.full(d, 0.2 / encoding.scale, np.float32)
    total = add([encoding.encode(small, 1, Figures(), noise_of(d, i)) for i in range(1000)])
    mean = encoding.decode(total).delta
    assert np.allclose(mean, small, rtol=0.35)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("d", [1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_blocks_leave_no_seam(d: int, bits: int) -> None:
    encoding = Encoding(d, 3, 0.5, 100, bits)
    delta = np.random.default_rng(3).normal(0, 0.4, d).astype(np.float32)
    noise = noise_of(d, 5)
    step = encoding.scale * 40 / 100
    once = np.floor(np.clip(delta.astype(np.float64), -0.5, 0.5) * step + noise / 2.0**32)
    vector = encoding.encode(delta, 40, Figures(), noise)
    assert np.array_equal(signed(vector)[:d], once.astype(np.int64))
    assert len(vector) == encoding.length == d + len(TAIL) * encoding.limbs


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, BLOCK, BLOCK + 1])
def test_an_update_that_is_not_finite_is_refused(bad: float, at: int) -> None:
    delta = np.zeros(BLOCK + 2, np.float32)
    delta[at] = bad
    with pytest.raises(BadUpdate, match="not finite"):
        Encoding(BLOCK + 2, 2, 1.0, 10).encode(delta, 1, Figures(), noise_of(BLOCK + 2))


@pytest.mark.parametrize("shape", [(0,), (4,), (6,), (5, 1), (1, 5), ()])
def test_an_update_of_another_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadUpdate, match=r"expected \(5,\)"):
        Encoding(5, 2, 1.0, 10).encode(np.zeros(shape, np.float32), 1, Figures(), noise_of(5))


def test_encoding_without_samples_or_noise_is_our_own_error() -> None:
    encoding, delta = Encoding(5, 2, 1.0, 10), np.zeros(5, np.float32)
    with pytest.raises(LocalError, match="samples and noise"):
        encoding.encode(delta, 0, Figures(), noise_of(5))
    with pytest.raises(LocalError, match="samples and noise"):
        encoding.encode(delta, 1, Figures(), noise_of(4))


@pytest.mark.parametrize(
    "values",
    [(0, 1, 1.0, 1), (1, 0, 1.0, 1), (1, 1, 0.0, 1), (1, 1, float("nan"), 1), (1, 1, 1.0, 0)],
)
def test_a_code_without_any_of_its_parts_is_our_own_error(
    values: tuple[int, int, float, int],
) -> None:
    with pytest.raises(LocalError, match="not an encoding"):
        Encoding(*values)


@pytest.mark.parametrize("clip", [5e-324, 1e-21, 1e21, 1e300, float("inf")])
def test_a_clip_outside_the_range_of_float32_is_refused(clip: float) -> None:
    with pytest.raises(BadUpdate, match="a clip of"):
        Encoding(3, 2, clip, 10)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32),
    devices=st.integers(1, 1000),
    d=st.integers(1, 10),
    bits=st.sampled_from(WIDTHS),
)
def test_random_sums_are_refused(seed: int, devices: int, d: int, bits: int) -> None:
    """What is left when the masks do not come off."""
    encoding = Encoding(d, min(devices, most_devices(bits, 1000)), 1.0, 1000, bits)
    noise: Ring = np.random.default_rng(seed).integers(
        0, 2**bits - 1, encoding.length, encoding.dtype, endpoint=True
    )
    with pytest.raises(BadUpdate, match="the sum"):
        encoding.decode(noise)


@pytest.mark.parametrize(
    ("coordinate", "value", "message"),
    [
        ("ones", 0, "counts 0 devices, expected 1 to 10"),
        ("ones", 11, "counts 11 devices"),
        ("ones", 2**32 - 1, "counts 4294967295 devices"),
        ("samples", 2, "3 devices claims 2 samples"),
        ("samples", 301, "claims 301 samples"),
        ("held_out", 11, "12 right"),
    ],
)
def test_a_sum_that_contradicts_itself_is_refused(
    coordinate: str, value: int, message: str
) -> None:
    encoding = Encoding(4, 10, 1.0, 100)
    total = np.zeros(encoding.length, np.uint32)
    total[4:] = [50, 0, 3, 20, 12, 1024]  # samples, clipped, ones, held_out, correct, loss
    assert encoding.decode(total).devices == 3
    total[4 + TAIL.index(coordinate)] = value
    with pytest.raises(BadUpdate, match=message):
        encoding.decode(total)


@pytest.mark.parametrize("length", [0, 9, 11])
def test_a_sum_of_another_length_is_refused(length: int) -> None:
    encoding = Encoding(4, 10, 1.0, 100)
    with pytest.raises(BadUpdate, match=r"expected \(10,\)"):
        encoding.decode(np.zeros(length, np.uint32))
    with pytest.raises(BadUpdate, match=r"expected uint32 \(10,\)"):
        encoding.within(np.zeros(length, np.uint32), 1)


def test_a_vector_of_the_other_ring_is_refused() -> None:
    with pytest.raises(BadUpdate, match="vector is uint16"):
        Encoding(4, 10, 1.0, 100, 32).within(np.zeros(10, np.uint16), 1)
    narrow = Encoding(4, 10, 1.0, 100, 16)
    with pytest.raises(BadUpdate, match="vector is uint32"):
        narrow.within(np.zeros(narrow.length, np.uint32), 1)


def decoded(encoding: Encoding, figures: list[Figures]) -> Total:
    zeros = np.zeros(encoding.dimension, np.float32)
    noise = constant_noise(encoding.dimension, 0)
    return encoding.decode(add([encoding.encode(zeros, 5, one, noise) for one in figures]))


@pytest.mark.parametrize("bits", WIDTHS)
def test_accuracy_and_loss_are_means_over_all_hold_out_rows(bits: int) -> None:
    figures = [Figures(10, 9, 1.5), Figures(30, 12, 60.25), Figures()]
    total = decoded(Encoding(2, 3, 1.0, 100, bits), figures)
    assert total.held_out == 40
    assert total.accuracy == 21 / 40
    assert total.loss == pytest.approx(61.75 / 40, abs=1e-3)


def test_without_a_hold_out_there_is_no_accuracy_and_no_loss() -> None:
    total = decoded(Encoding(2, 3, 1.0, 100), [Figures(), Figures()])
    assert total.held_out == 0
    assert total.accuracy is None
    assert total.loss is None


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("devices", [1, 1000, 10_000])
def test_figures_too_large_for_a_share_keep_their_means(devices: int, bits: int) -> None:
    devices = min(devices, most_devices(bits, 100))
    total = decoded(Encoding(2, devices, 1.0, 100, bits), [Figures(50_000, 40_000, 115_000.0)])
    assert total.accuracy == pytest.approx(0.8, rel=0.02)
    assert total.loss == pytest.approx(2.3, rel=0.02)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 1e300])
def test_a_loss_that_is_not_finite_never_looks_small(loss: float) -> None:
    """A model that has diverged must not read as one that has been learnt."""
    for bits in WIDTHS:
        figures = [Figures(100, 10, loss), Figures(100, 90, 20.0)]
        total = decoded(Encoding(2, 4, 1.0, 100, bits), figures)
        assert total.loss is not None
        assert total.loss > 10 * 0.2


@pytest.mark.parametrize("bits", WIDTHS)
def test_a_vector_within_its_devices_bound_passes_and_one_beyond_does_not(bits: int) -> None:
    encoding = Encoding(2, 10, 1.0, 100, bits)
    vector: Ring = np.zeros(encoding.length, encoding.dtype)
    for devices in (1, 3, 10):
        for bound in (devices * encoding.share, -devices * encoding.share):
            vector[1] = bound % 2**bits
            encoding.within(vector, devices)
            vector[1] = (bound + (1 if bound > 0 else -1)) % 2**bits
            with pytest.raises(BadUpdate, match=f"what {devices} devices may add up to"):
                encoding.within(vector, devices)
    with pytest.raises(BadUpdate, match="what 11 devices"):
        encoding.within(np.zeros_like(vector), 11)


@settings(deadline=None, max_examples=200)
@given(
    devices=st.integers(1, (HALF[16] - 1) // 2),
    rows=st.lists(
        st.tuples(
            st.integers(1, 2**FIGURE_BITS - 1),
            st.integers(0, 2**FIGURE_BITS - 1),
            st.floats(0, 1),
            st.floats(0, 1),
        ),
        min_size=1,
        max_size=20,
    ),
)
def test_sums_of_figures_are_exact_in_the_narrow_ring_up_to_their_bound(
    devices: int, rows: list[tuple[int, int, float, float]]
) -> None:
    """However the limbs carry; only the loss has a step, and is cut down to it."""
    encoding = Encoding(1, devices, 1.0, 2**FIGURE_BITS - 1, 16)
    zeros, noise = np.zeros(1, np.float32), constant_noise(1, 0)
    told = [
        (n, Figures(held, int(held * right), held / 1024 * loss))
        for n, held, right, loss in rows[:devices]
    ]
    total = encoding.decode(add([encoding.encode(zeros, n, one, noise) for n, one in told]))
    assert total.samples == sum(n for n, _ in told)
    assert total.devices == len(told)
    assert total.held_out == sum(one.held_out for _, one in told)
    if total.held_out:
        assert total.accuracy == sum(one.correct for _, one in told) / total.held_out
        steps = sum(int(one.loss_sum * 1024) for _, one in told)
        assert total.loss == steps / 1024 / total.held_out


def test_both_rings_tell_of_the_same_update_but_for_their_step() -> None:
    delta = np.random.default_rng(4).normal(0, 0.2, 500).astype(np.float32)
    errors = {}
    for bits in WIDTHS:
        encoding = Encoding(500, 20, 1.0, 100, bits)
        vectors = [encoding.encode(delta, 100, Figures(), noise_of(500, i)) for i in range(20)]
        errors[bits] = np.abs(encoding.decode(add(vectors)).delta - delta).max()
        assert errors[bits] <= 1 / encoding.scale + 1e-7
    assert errors[32] < 1e-6 < errors[16]


def test_a_value_at_the_clip_itself_is_not_clipped() -> None:
    encoding = Encoding(4, 1, 0.5, 10)
    delta = np.array([0.5, -0.5, np.nextafter(np.float32(0.5), np.float32(1)), 0], np.float32)
    vector = encoding.encode(delta, 10, Figures(), constant_noise(4, 0))
    assert encoding.decode(vector).clipped_share == 1 / 4
