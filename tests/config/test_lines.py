"""The scanner against tomllib: the same keys, each on the line it was written on."""

import json
import tomllib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgechoir.config.lines import KeyPath, key_lines


def keys_of(value: Any, path: KeyPath = ()) -> set[KeyPath]:
    """Every key path in what tomllib read."""
    items: list[tuple[str | int, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    found = {path} if path else set()
    return found.union(*(keys_of(inner, (*path, key)) for key, inner in items))


EVERYTHING = '''# a = comment
title = "with # and \\" and = inside"   # 2
'single' = 'C:\\dir'
a.b."c.d" = 1979-05-27 07:32:00
long = """
[not.a.table]
key = "no" \\""" still
""""
raw = \'\'\'one
two\'\'\'\'
many = [
    1, # one
    [2,
     "x]"],
    { p = 1, "q r".s = [3,], },
]
empty = []
none = {}

[ table . "sub table" ]
x = +1e-3

[[rows]]
n = inf
[rows.inner]
deep = true
[[rows.more]]
[[rows.more]]
y = 1
[[rows]]
[rows.inner]
deep = false
[table]
z = 1'''.replace("s = [3,], },", "s = [3,] },")


def test_every_form_of_toml_has_its_lines() -> None:
    lines = key_lines(EVERYTHING)
    assert set(lines) == keys_of(tomllib.loads(EVERYTHING))
    written = EVERYTHING.split("\n")
    for path, start in {
        ("title",): "title =",
        ("single",): "'single'",
        ("a", "b", "c.d"): "a.b.",
        ("long",): "long =",
        ("raw",): "raw =",
        ("many",): "many =",
        ("many", 0): "    1",
        ("many", 1, 1): '     "x]"',
        ("many", 2, "q r", "s"): "    { p",
        ("empty",): "empty",
        ("table", "sub table"): "[ table",
        ("table", "sub table", "x"): "x = +",
        ("rows",): "[[rows]]",
        ("rows", 0, "inner", "deep"): "deep = true",
        ("rows", 0, "more", 1, "y"): "y = 1",
        ("rows", 1, "inner", "deep"): "deep = false",
        ("table", "z"): "z = 1",
    }.items():
        assert written[lines[path] - 1].startswith(start), path
    assert lines["rows", 1] == written.index("[[rows]]", lines["rows", 0]) + 1


KEYS = st.one_of(
    st.from_regex(r"[A-Za-z0-9_-]{1,6}", fullmatch=True),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=4),
)
SCALARS = st.one_of(
    st.booleans().map(lambda b: str(b).lower()),
    st.integers(-(2**62), 2**62).map(str),
    st.sampled_from(["1.5", "inf", "-nan", "1979-05-27", "1979-05-27 07:32:00Z", "0xff", "1_000"]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8).map(
        lambda s: json.dumps(s, ensure_ascii=False)
    ),
    st.sampled_from(
        ["'#]}'", '"""\n[x]\na = "1"\n"""', "'''\n\\'''", '"""a"""""', '"\\\\"', '"""\\""""""']
    ),
)


def quoted(key: str) -> str:
    plain = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if plain else json.dumps(key, ensure_ascii=False)


@st.composite
def values(draw: st.DrawFn, depth: int = 2) -> str:
    form = draw(st.sampled_from(["scalar", "scalar", "array", "table"] if depth else ["scalar"]))
    if form == "array":
        gap = st.sampled_from(["", " ", "\n", " # ], x = 1\n"])
        parts = [
            draw(gap) + item + draw(gap) for item in draw(st.lists(values(depth - 1), max_size=3))
        ]
        tail = draw(st.sampled_from([",", ""])) if parts else ""
        return "[" + ",".join(parts) + tail + draw(gap) + "]"
    if form == "table":
        pairs = draw(st.dictionaries(KEYS, values(depth - 1), max_size=3))
        return "{ " + ", ".join(f"{quoted(k)} = {v}" for k, v in pairs.items()) + " }"
    return draw(SCALARS)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[KeyPath, int]]:
    """A TOML text, and the lines on which its keys with a value were written."""
    text, lines = "", {}
    headers = draw(st.lists(KEYS, max_size=4, unique=True))
    for header in [None, *headers]:
        path: KeyPath = ()
        array = header is not None and draw(st.booleans())
        for number in range(draw(st.integers(1, 2)) if array else 1):
            if header is not None and array:
                text += f"[[ {quoted(header)} ]] # [[x]]\n"
                path = (header, number)
            elif header is not None:
                text += f"[{quoted(header)}]\n"
                path = (header,)
            for key in draw(st.lists(KEYS, max_size=3, unique=True)):
                if header is None and key in headers:
                    continue
                text += draw(st.sampled_from(["", "\n", "# a = 1\n", "  \t"]))
                names = [key, draw(KEYS)] if draw(st.booleans()) else [key]
                full = (*path, *names)
                lines[full] = text.count("\n") + 1
                text += " . ".join(map(quoted, names)) + " = " + draw(values()) + "\n"
    return text, lines


@given(documents())
@example(('"" = 1\n', {("",): 1}))
def test_the_scanner_finds_the_keys_that_tomllib_reads(
    document: tuple[str, dict[KeyPath, int]],
) -> None:
    text, lines = document
    expected = keys_of(tomllib.loads(text))
    found = key_lines(text)
    assert set(found) == expected
    assert {path: found[path] for path in lines} == lines


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment", "a=1#"])
def test_a_text_may_end_anywhere(text: str) -> None:
    assert set(key_lines(text)) == keys_of(tomllib.loads(text))
