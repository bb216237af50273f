"""Samples that wait together go together, and nobody pays for another's bad sample."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from edgechoir.errors import EdgechoirError, InferenceError
from edgechoir.inference.batcher import Answers, Batcher
from edgechoir.inference.prediction import Prediction
from edgechoir.inference.waiting import Priority, WhenFull
from edgechoir.types import Floats

LIVE, BULK = Priority.LIVE, Priority.BULK
BAD = -1.0


class Model:
    """Answers a sample with itself, remembers how many came together, and waits at a gate."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.order: list[float] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, xs: Floats, started: Sequence[float]) -> Answers:
        self.gate.wait(30)
        if (xs == BAD).any():
            raise InferenceError("a bad sample")
        self.sizes.append(len(xs))
        self.order += xs[:, 0].tolist()
        return [Prediction(x, None, None, 1, began) for x, began in zip(xs, started, strict=True)]


def batcher(
    model: Callable[[Floats, Sequence[float]], Answers],
    rows: int = 4,
    bound: int = 64,
    when_full: WhenFull = WhenFull.NEWEST,
    *,
    inline: bool = True,
) -> Batcher:
    return Batcher(
        model, rows=lambda: rows, inline=lambda: inline, bound=bound, when_full=when_full
    )


def sample(value: float, rows: int = 1) -> Floats:
    return np.full((rows, 1), value, np.float32)


async def outcomes(asked: "list[asyncio.Future[Answers]]") -> list[float | None]:
    """The value of each first answer, None for one that failed."""
    found = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(f, Sequence | EdgechoirError) for f in found)
    return [float(f[0].values[0]) if isinstance(f, Sequence) else None for f in found]


@pytest.mark.parametrize("inline", [True, False])
def test_everybody_gets_the_answer_to_their_own_sample(inline: bool) -> None:
    async def ask() -> None:
        model = Model()
        ours = batcher(model, inline=inline)
        asked = [ours.ask(sample(value), value, LIVE) for value in range(10)]
        assert await outcomes(asked) == [float(value) for value in range(10)]
        assert max(model.sizes) <= 4
        assert sum(model.sizes) == 10
        assert len(model.sizes) == ours.batches < 10
        # The clock's reading goes with its sample, and a lone request is a batch of one.
        answers = await ours.ask(sample(7.0), 7.0, LIVE)
        assert answers[0].seconds == 7.0
        assert model.sizes[-1] == 1
        ours.close()

    asyncio.run(ask())


def test_what_comes_while_the_model_works_goes_together_live_ones_first() -> None:
    async def ask() -> None:
        model = Model()
        model.gate.clear()
        ours = batcher(model, inline=False)
        asked = [ours.ask(sample(0.0), 0.0, LIVE)]
        asked += [ours.ask(sample(value), 0.0, BULK) for value in (1.0, 2.0)]
        asked += [ours.ask(sample(value), 0.0, LIVE) for value in (3.0, 4.0)]
        model.gate.set()
        assert await outcomes(asked) == [0.0, 1.0, 2.0, 3.0, 4.0]
        assert model.order == [0.0, 3.0, 4.0, 1.0, 2.0]
        assert model.sizes == [1, 4]
        ours.close()

    asyncio.run(ask())


def test_a_bad_sample_fails_alone() -> None:
    async def ask() -> None:
        ours = batcher(Model())
        asked = [ours.ask(sample(value), 0.0, LIVE) for value in (1.0, BAD, 2.0)]
        assert await outcomes(asked) == [1.0, None, 2.0]

    asyncio.run(ask())


def test_a_request_that_was_given_up_is_not_asked_for() -> None:
    async def ask() -> None:
        model = Model()
        ours = batcher(model)
        first, second = ours.ask(sample(1.0), 0.0, LIVE), ours.ask(sample(2.0), 0.0, LIVE)
        first.cancel()
        assert (await second)[0].values == 2.0
        assert model.order == [2.0]

    asyncio.run(ask())


def test_a_full_queue_tells_the_one_it_drops() -> None:
    async def ask() -> None:
        ours = batcher(Model(), bound=2, when_full=WhenFull.OLDEST)
        asked = [ours.ask(sample(value), 0.0, LIVE) for value in range(4)]
        assert await outcomes(asked) == [None, None, 2.0, 3.0]
        assert ours.dropped == 2

    asyncio.run(ask())


def test_a_second_event_loop_is_not_held_up_by_what_the_first_left() -> None:
    model = Model()
    model.gate.clear()
    ours = batcher(model, inline=False)

    async def leave() -> None:
        ours.ask(sample(0.0), 0.0, LIVE)
        model.gate.set()

    async def ask() -> None:
        assert (await ours.ask(sample(1.0), 0.0, LIVE))[0].values == 1.0

    asyncio.run(leave())
    asyncio.run(ask())
    ours.close()
