import asyncio
import threading
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest

from edgechoir.errors import BadModel, InferenceError, OperatorError, WrongShape
from edgechoir.inference.prediction import Output
from edgechoir.inference.predictor import BATCH, INLINE_BELOW, MAX_WAITING, Predictor
from edgechoir.types import Floats

Mlp = Callable[..., bytes]
Weights = Callable[..., Floats]
Digest = Callable[[Floats], bytes]
SIZES = (4, 8, 3)
X = np.array([0.5, -1.0, 2.0, 0.0], dtype=np.float32)


class Ticks:
    """A clock that advances by a fixed step at each look."""

    def __init__(self, step: float) -> None:
        self._now, self.step = 0.0, step

    def __call__(self) -> float:
        self._now += self.step
        return self._now


@pytest.fixture
def predictor(mlp: Mlp, weights: Weights) -> Iterator[Predictor]:
    made = Predictor(mlp(SIZES), weights(SIZES), 1, shape=(4,), clock=Ticks(1e-5))
    yield made
    made.close()


@pytest.fixture
def slow(mlp: Mlp, weights: Weights) -> Iterator[Predictor]:
    """One whose clock says that each run takes longer than may be spent in the event loop."""
    made = Predictor(
        mlp(SIZES), weights(SIZES), 1, shape=(4,), deadline=60.0, clock=Ticks(2 * INLINE_BELOW)
    )
    yield made
    made.close()


def test_prediction_has_the_answer_and_the_version(predictor: Predictor) -> None:
    prediction = predictor.predict(X)
    assert prediction.values.shape == (3,)
    assert prediction.label == int(np.argmax(prediction.values))
    assert prediction.version == 1
    assert prediction.seconds == pytest.approx(1e-5)
    stats = predictor.stats()
    assert (stats.answered, stats.missed, stats.provider) == (1, 0, "CPUExecutionProvider")


def test_batch_gives_what_single_samples_give(predictor: Predictor) -> None:
    xs = np.random.default_rng(0).standard_normal((BATCH + 6, 4)).astype(np.float32)
    for one, many in zip(
        [predictor.predict(x) for x in xs], predictor.predict_batch(xs), strict=True
    ):
        np.testing.assert_allclose(one.values, many.values, rtol=1e-5, atol=1e-6)
        assert one.label == many.label
    assert predictor.stats().answered == 2 * (BATCH + 6)


def test_sample_of_a_wrong_shape_is_missed_not_answered(predictor: Predictor) -> None:
    with pytest.raises(WrongShape, match=r"\(5,\)"):
        predictor.predict(np.zeros(5, dtype=np.float32))
    with pytest.raises(WrongShape):
        predictor.predict_batch(np.zeros((2, 5), dtype=np.float32))
    assert (predictor.stats().answered, predictor.stats().missed) == (0, 3)


def test_answer_that_is_not_finite_is_missed(predictor: Predictor) -> None:
    with pytest.raises(InferenceError):
        predictor.predict(np.full(4, np.nan, dtype=np.float32))
    assert predictor.stats().missed == 1


def test_answer_past_the_deadline_counts_as_missed(mlp: Mlp, weights: Weights) -> None:
    clock = Ticks(1e-5)
    predictor = Predictor(mlp(SIZES), weights(SIZES), 1, shape=(4,), deadline=0.5, clock=clock)
    predictor.predict(X)
    clock.step = 0.7
    assert predictor.predict(X).version == 1
    stats = predictor.stats()
    assert (stats.answered, stats.missed, stats.late) == (1, 1, 1)
    assert stats.p99 == pytest.approx(0.7)


def test_fast_model_answers_in_the_event_loop(predictor: Predictor) -> None:
    async def thread_names() -> set[str]:
        await predictor.apredict(X)
        return {thread.name for thread in threading.enumerate()}

    assert predictor.inline
    assert not any("inference" in name for name in asyncio.run(thread_names()))


def test_slow_model_answers_in_one_worker_thread(slow: Predictor) -> None:
    async def ask() -> tuple[int, int]:
        answers = await asyncio.gather(*(slow.apredict(X) for _ in range(8)))
        workers = [t for t in threading.enumerate() if "edgechoir-inference" in t.name]
        return len(answers), len(workers)

    assert not slow.inline
    assert asyncio.run(ask()) == (8, 1)
    assert slow.stats().answered == 8


def test_requests_beyond_the_bound_are_missed_at_once(slow: Predictor) -> None:
    async def ask() -> int:
        answers = await asyncio.gather(
            *(slow.apredict(X) for _ in range(MAX_WAITING + 5)), return_exceptions=True
        )
        return sum(isinstance(answer, InferenceError) for answer in answers)

    # One is with the model already.
    assert asyncio.run(ask()) == 4
    stats = slow.stats()
    assert (stats.answered, stats.missed, stats.dropped) == (MAX_WAITING + 1, 4, 4)


def test_slow_request_past_its_deadline_is_an_error(mlp: Mlp, weights: Weights) -> None:
    clock = Ticks(2 * INLINE_BELOW)
    predictor = Predictor(mlp(SIZES), weights(SIZES), 1, shape=(4,), deadline=0.0, clock=clock)

    async def ask() -> None:
        with pytest.raises(InferenceError, match="no answer within"):
            await predictor.apredict(X)

    asyncio.run(ask())
    predictor.close()
    assert predictor.stats().missed == 1


def test_error_in_the_worker_reaches_the_caller(slow: Predictor) -> None:
    with pytest.raises(WrongShape):
        asyncio.run(slow.apredict(np.zeros(5, dtype=np.float32)))
    assert slow.stats().missed == 1


def test_commit_changes_the_answer_and_rollback_changes_it_back(
    predictor: Predictor, weights: Weights, digest: Digest
) -> None:
    first = predictor.predict(X)
    w = weights(SIZES, 1)
    candidate = predictor.stage(w, 2, digest(w))
    np.testing.assert_array_equal(predictor.predict(X).values, first.values)
    predictor.commit(candidate)
    second = predictor.predict(X)
    assert (second.version, predictor.previous, predictor.sha256) == (2, 1, digest(w))
    assert not np.array_equal(second.values, first.values)
    assert predictor.rollback() == 1
    np.testing.assert_array_equal(predictor.predict(X).values, first.values)
    assert (predictor.stats().swaps, predictor.stats().rollbacks) == (1, 1)


def test_rollback_needs_a_previous_model(predictor: Predictor) -> None:
    with pytest.raises(OperatorError, match="no previous"):
        predictor.rollback()


def test_bad_candidate_changes_nothing(
    predictor: Predictor, weights: Weights, digest: Digest
) -> None:
    before = predictor.predict(X)
    w = weights(SIZES, 1)
    short, broken = w[:-1], np.full_like(w, 3e38)
    for params, sha256 in ((short, digest(short)), (broken, digest(broken)), (w, b"\0" * 32)):
        with pytest.raises(BadModel):
            predictor.stage(params, 2, sha256)
    after = predictor.predict(X)
    np.testing.assert_array_equal(after.values, before.values)
    assert (after.version, predictor.previous, predictor.stats().swaps) == (1, None, 0)


def test_first_model_is_verified_too(mlp: Mlp, weights: Weights) -> None:
    with pytest.raises(BadModel, match="hash"):
        Predictor(mlp(SIZES), weights(SIZES), 1, shape=(4,), sha256=b"\0" * 32)


def test_regression_has_values_and_no_label(mlp: Mlp, weights: Weights) -> None:
    sizes = (4, 8, 1)
    predictor = Predictor(mlp(sizes), weights(sizes), 1, shape=(4,), output=Output.VALUES)
    prediction = predictor.predict(X)
    assert (prediction.label, prediction.confidence) == (None, None)
    assert prediction.values.shape == (1,)


def test_raw_samples_are_prepared_before_the_model(mlp: Mlp, weights: Weights) -> None:
    plain = Predictor(mlp(SIZES), weights(SIZES), 1, shape=(4,))
    made = Predictor(mlp(SIZES), weights(SIZES), 1, shape=(4,), prepare=lambda xs: (xs - 1) * 2)
    expected = plain.predict((X - 1) * 2).values
    np.testing.assert_array_equal(made.predict(X).values, expected)
    np.testing.assert_array_equal(made.predict_batch(X[None])[0].values, expected)


def test_a_sample_that_only_the_old_model_answers_brings_it_back(
    mlp: Mlp, weights: Weights, digest: Digest, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = Predictor(mlp(SIZES), weights(SIZES), 1, shape=(4,))
    large = (weights(SIZES, 1) * 1e19).astype(np.float32)  # overflows on more than the canary

    def alone(x: Floats) -> int:
        return predictor.predict(x).version

    def in_batch(x: Floats) -> int:
        return predictor.predict_batch(x[None])[0].version

    for ask in (alone, in_batch):
        predictor.commit(predictor.stage(large, 2, digest(large)))
        assert ask(X / np.float32(10)) == 2
        assert ask(X * np.float32(1e4)) == 1
        assert ask(X / np.float32(10)) == 1
        # What no model answers is the sample's fault.
        with pytest.raises(InferenceError):
            ask(np.full(4, np.nan, np.float32))
    assert predictor.version == 1
    assert predictor.stats().rollbacks == 2
    assert "version 2 is given up" in caplog.text


def test_waiting_samples_go_to_the_model_together_where_asked_to(
    mlp: Mlp, weights: Weights
) -> None:
    sizes = (4, 256, 256, 3)
    predictor = Predictor(mlp(sizes), weights(sizes), 1, shape=(4,), batch=0.01)
    xs = np.random.default_rng(0).standard_normal((40, 4)).astype(np.float32)

    async def ask() -> None:
        found = await asyncio.gather(*(predictor.apredict(x) for x in xs))
        for x, prediction in zip(xs, found, strict=True):
            assert prediction.label == predictor.predict(x).label
        bulk = await predictor.apredict_batch(xs)
        assert [p.label for p in bulk] == [p.label for p in found]
        with pytest.raises(WrongShape):
            await predictor.apredict_batch(xs[:, :3])

    asyncio.run(ask())
    stats = predictor.stats()
    predictor.close()
    assert (stats.answered, stats.missed) == (120, 40)


def test_two_models_are_compared_on_the_same_labels(
    mlp: Mlp, weights: Weights, digest: Digest
) -> None:
    predictor = Predictor(mlp(SIZES), weights(SIZES), 1, shape=(4,))
    xs = np.random.default_rng(0).standard_normal((50, 4)).astype(np.float32)
    y = np.array([p.label for p in predictor.predict_batch(xs)])
    other = weights(SIZES, 5)
    live, staged = predictor.compare(predictor.stage(other, 2, digest(other)), xs, y)
    assert live == 0.0
    assert 0.0 < staged <= 1.0


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def test_swaps_under_load_fail_no_request_and_keep_memory_bounded(
    mlp: Mlp, weights: Weights, digest: Digest
) -> None:
    """1,000 exchanges of a 100,000-weight model (0.4 MB) while another thread keeps asking."""
    sizes = (4, 300, 320, 3)
    predictor = Predictor(mlp(sizes), weights(sizes), 0, shape=(4,), deadline=1.0)
    known = {version: weights(sizes, version) for version in range(4)}
    expected = {
        version: Predictor(mlp(sizes), w, version, shape=(4,)).predict(X).values
        for version, w in known.items()
    }
    stop, failures, seen = threading.Event(), [], set()

    def ask() -> None:
        for _ in repeat(None):
            if stop.is_set():
                return
            try:
                prediction = predictor.predict(X)
            except Exception as error:
                failures.append(error)
                return
            seen.add(prediction.version)
            if not np.array_equal(prediction.values, expected[prediction.version]):
                failures.append(AssertionError(f"mixed weights in version {prediction.version}"))

    asking = threading.Thread(target=ask)
    asking.start()
    settled = 0.0
    for swap in range(1000):
        w = known[swap % 4]
        predictor.commit(predictor.stage(w, swap % 4, digest(w)))
        if swap == 100:
            settled = resident_mb()
    stop.set()
    asking.join(30)
    assert not failures
    assert seen == set(known)
    assert (predictor.stats().missed, predictor.stats().late) == (0, 0)
    assert predictor.stats().swaps == 1000
    assert resident_mb() - settled < 5
