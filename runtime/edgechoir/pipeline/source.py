"""What the pipeline asks of a source, and how a declaration names the user's own function."""

import importlib
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from edgechoir.errors import OperatorError
from edgechoir.pipeline.block import Block
from edgechoir.pipeline.sample import Sample


class Source(Protocol):
    """An async context manager whose iteration gives samples until the source ends.

    A source reads one sample (or block) when it is asked for one, so it never runs ahead of its
    consumer by more than a fixed number. Opening it raises OperatorError when it cannot work as it
    was declared. Whatever else it raises, SourceError or not, means that it cannot be read now: it
    is closed, and after a pause opened again.
    """

    @property
    def counts(self) -> Mapping[str, int]:
        """What went wrong so far, by reason: "malformed", "late"."""
        ...

    async def __aenter__(self) -> object: ...

    async def __aexit__(self, *error: object) -> None: ...

    def __aiter__(self) -> AsyncIterator[Sample | Block]: ...


def find_function(reference: str) -> Callable[..., object]:
    """The function that "package.module:name" refers to.

    Raises OperatorError: no such module or function, or not callable.
    """
    module, colon, name = reference.partition(":")
    if not (module and colon and name):
        raise OperatorError(f"{reference!r} is not a function: write 'package.module:function'")
    try:
        found: object = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise OperatorError(f"{reference!r} cannot be imported: {error}") from error
    if not callable(found):
        raise OperatorError(f"{reference!r} is a {type(found).__name__}, not a function")
    return found
