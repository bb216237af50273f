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
) -> T:
    """The inquiry's answer, its rounds being asked of the schedule under this name.

    Raises OperatorError: a round gave no sum, with the reason; or BadUpdate: its sum is no answer.
    """
    number = 0

    async def one(asked: Asked) -> Reply:
        nonlocal number
        number += 1
        return reply_of(await ask(question(f"{name}/{number}", asked)), number)

    return await drive(inquiry, one)


async def drive(
    inquiry: Generator[Asked, Reply, T], reply: Callable[[Asked], Awaitable[Reply]]
) -> T:
    """The inquiry's answer, each of its rounds being answered by `reply`."""
    try:
        asked = next(inquiry)
        while True:
            asked = inquiry.send(await reply(asked))
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
