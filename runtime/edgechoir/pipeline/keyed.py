"""State for each key, for so many keys and no more."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

State = TypeVar("State")

MAX_KEYS: Final = 1024


class Keyed(Generic[State]):
    """`keyed[key]` is that key's state, made when first asked for.

    Keys come from outside, so their number is bounded: the one not used for longest is forgotten.
    """

    __slots__ = ("_limit", "_make", "_states")

    def __init__(self, make: Callable[[], State], limit: int = MAX_KEYS) -> None:
        self._make, self._limit = make, limit
        self._states: OrderedDict[str, State] = OrderedDict()

    def __getitem__(self, key: str) -> State:
        states = self._states
        if key in states:
            states.move_to_end(key)
            return states[key]
        if len(states) >= self._limit:
            states.popitem(last=False)
        return states.setdefault(key, self._make())

    def forget(self, key: str) -> None:
        self._states.pop(key, None)

    def __len__(self) -> int:
        return len(self._states)

    def values(self) -> list[State]:
        """The states of all keys."""
        return list(self._states.values())
