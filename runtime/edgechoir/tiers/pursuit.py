"""The root pursues an inquiry: one round after the other, until there is an answer."""

from collections.abc import Awaitable, Callable, Generator
from typing import Final, TypeVar

from edgechoir.errors import OperatorError
from edgechoir.learning.statistics.inquiry import Asked, Reply
from edgechoir.rounds.schedule import Answered, Ask

CLIP: Final = 1.0
"""Every coordinate of a statistic lies in [-1, 1]."""
T = TypeVar("T")


async def pursue(
    inquiry: Generator[Asked, Reply, T],
    ask: Callable[[Ask], Awaitable[Answered]],
    name: str,
    told: Callable[[int, Asked], None] = lambda number, asked: None,
) -> T:
    """The inquiry's answer; `told` hears of each round before it begins.

    Raises OperatorError: a round gave no sum, with the reason; or BadUpdate: its sum is no answer.
    """
    number = 0
    try:
        asked = next(inquiry)
        while True:
            number += 1
            told(number, asked)
            answered = await ask(question(f"{name}/{number}", asked))
            asked = inquiry.send(reply_of(answered, number))
    except StopIteration as done:
        value: T = done.value
        return value
    finally:
        inquiry.close()


def question(name: str, asked: Asked) -> Ask:
    """What the schedule is asked for."""
    return Ask(name, asked.task, asked.dimension, CLIP, asked.most)


def reply_of(answered: Answered, number: int) -> Reply:
    """What the inquiry is told. Raises OperatorError."""
    total = answered.total
    if total is None:
        raise OperatorError(f"round {number} gave no sum: {answered.reason}")
    return Reply(total.delta / CLIP, total.samples, total.devices)
