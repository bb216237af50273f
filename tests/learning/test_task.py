"""A task is read as it was written, or refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgechoir.errors import Malformed
from edgechoir.learning.task import Option, Task, read_task

NAMES = st.text("abcdefgh_", min_size=1, max_size=8).filter(lambda name: name != "kind")
LEAVES = st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e9, 1e9) | st.text(max_size=8)
OPTIONS = st.dictionaries(NAMES, LEAVES | st.lists(st.integers(0, 9), max_size=4), max_size=5)


@given(kind=st.text(max_size=12), options=OPTIONS)
def test_a_task_is_read_as_it_was_written(kind: str, options: dict[str, Option]) -> None:
    task = Task(kind, options)
    assert read_task(task.encode()) == task


@given(st.binary(max_size=64))
def test_what_is_not_a_task_is_refused_and_nothing_else_happens(text: bytes) -> None:
    try:
        task = read_task(text)
    except Malformed:
        return
    assert task.encode() == text


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"kind":3}',
        b'{"kind": "train"}',
        b'{"mu":0.1,"kind":"train"}',
        b'{"kind":"train","mu":NaN}',
        b'{"kind":"train","mu":1e999}',
        b"[" * 60_000,
        b'{"kind":"a","kind":"b"}',
    ],
)
def test_a_task_in_another_form_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed):
        read_task(text)


def test_an_option_has_the_type_of_its_default() -> None:
    task = read_task(json.dumps({"kind": "train", "mu": 1}, separators=(",", ":")).encode())
    with pytest.raises(Malformed, match="expected str"):
        task.get("mu", "")
    assert task.get("mu", 0.5) == 1.0
    assert task.get("nu", 0.5) == 0.5
    with pytest.raises(Malformed, match="expected bool"):
        task.get("mu", False)
