"""A commented configuration file for a tier, written from the models that read it."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic.fields import FieldInfo

from edgechoir.config.describe import allowed, tag_key, variants
from edgechoir.config.reading import parse
from edgechoir.config.sections import Section
from edgechoir.config.tiers import KINDS

Values = Mapping[str, object]

ARRAYS: Final = {
    "sources": 'source = "system"',
    "pipeline": 'op = "scale"',
    "sinks": 'sink = "file"',
}
"""Arrays of tables, each with an entry that can stand by itself."""


def template(tier: str, **values: object) -> str:
    """The text of a configuration file with every key, its meaning and its default.

    `values` replace defaults and examples; a section's value is a mapping, the pipeline's a list
    of mappings. Keys without a default and a value get an example to be edited. Raises ConfigError
    where the result would not be read.
    """
    kind = KINDS[tier]
    head = [
        f"# {kind.__doc__} Start it with `{kind.command} FILE`.",
        "# A key behind '#' is not set. Relative paths start at this file's directory.",
        "",
    ]
    lines = [*head, *_section(kind, {**values, "tier": tier}, ())]
    text = "\n".join(lines).rstrip() + "\n"
    parse(text, Path(), f"template of {tier}")
    return text


def _section(section: type[Section], values: Values, path: tuple[str, ...]) -> Iterator[str]:
    """The keys of one table, then the tables in it."""
    tables: list[tuple[str, FieldInfo]] = []
    for name, field in section.model_fields.items():
        if variants(field.annotation):
            tables.append((name, field))
        else:
            yield from _key(name, field, values)
    # Keys that the model does not have go in as they are, for the reader to refuse by name.
    for name in values.keys() - section.model_fields.keys():
        yield f"{_word(name)} = {toml(values[name])}"
    yield ""
    for name, field in tables:
        yield from _table(name, field, values.get(name), path)


def _key(name: str, field: FieldInfo, values: Values) -> Iterator[str]:
    unset = field.is_required() or field.default is None
    value = values.get(name, field.examples[0] if unset and field.examples else field.default)
    off = field.default is None and name not in values
    yield f"# {field.description} ({allowed(field)})"
    yield f"{'# ' if off else ''}{name} = {toml(value)}"


def _table(name: str, field: FieldInfo, value: Any, path: tuple[str, ...]) -> Iterator[str]:
    choices = variants(field.annotation)
    here = ".".join((*path, name))
    if name in ARRAYS:
        yield f"# {field.description}"
        if not value:
            yield from (f"# [[{here}]]", f"# {ARRAYS[name]}", "")
        for entry in value or ():
            yield f"[[{here}]]"
            yield from (f"{_word(key)} = {toml(each)}" for key, each in entry.items())
            yield ""
        return
    given: Values = value or {}
    tag = str(given.get(tag_key(field.annotation), next(iter(choices))))
    section = choices.get(tag, next(iter(choices.values())))
    yield f"# {section.__doc__}"
    off = field.default is None and value is None
    yield f"{'# ' if off else ''}[{here}]"
    for line in _section(section, given, (*path, name)):
        yield f"# {line}" if off and line and not line.startswith("# ") else line


def toml(value: object) -> str:
    """A value as TOML writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str() | Path():
            # JSON escapes are TOML escapes, but TOML wants DEL escaped too.
            return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")
        case Mapping():
            pairs = (f"{_word(str(key))} = {toml(each)}" for key, each in value.items())
            return "{" + ", ".join(pairs) + "}"
        case Sequence():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            raise TypeError(f"{type(value).__name__} has no form in TOML")


def _word(key: str) -> str:
    plain = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if plain else toml(key)
