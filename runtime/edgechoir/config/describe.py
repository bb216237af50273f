"""Fields in words: what a value may be, and which tiers have a key. For messages and documents."""

import json
from collections.abc import Iterable
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from edgechoir.config.lines import KeyPath
from edgechoir.config.sections import Section
from edgechoir.config.tiers import KINDS, Config

_NOUNS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def dotted(path: KeyPath) -> str:
    """("pipeline", 0, "op") -> pipeline[0].op"""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def seen(value: object) -> str:
    """A value as the file has it, cut at 60 characters."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        return "an array"
    quoted = isinstance(value, bool | str)
    text = json.dumps(value, ensure_ascii=False) if quoted else str(value)
    return text if len(text) <= 60 else text[:57] + "..."


def words(items: Iterable[object]) -> str:
    return ", ".join(str(item) for item in items)


def allowed(field: FieldInfo) -> str:
    """What a field takes: "a whole number from 5 to 1200"."""
    return _allowed(field.annotation, field.metadata)


def _allowed(annotation: Any, metadata: Iterable[Any]) -> str:
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin is Annotated:
        inner: list[Any] = []
        for item in arguments[1:]:
            inner += item.metadata if isinstance(item, FieldInfo) else [item]
        return _allowed(arguments[0], [*inner, *metadata])
    if origin in (Union, UnionType):
        choices = [each for each in arguments if each is not NoneType]
        return " or ".join(dict.fromkeys(_allowed(each, metadata) for each in choices))
    if origin is Literal:
        return words(seen(each) for each in arguments)
    if origin is tuple:
        item = _allowed(arguments[0], ())
        return "an array of tables" if item.startswith("a table") else f"an array, each {item}"
    if annotation is Path:
        return "a path"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"a table with the keys {words(annotation.model_fields)}"
    return _NOUNS.get(annotation, "a value") + _range(metadata)


def _range(metadata: Iterable[Any]) -> str:
    bounds = {
        name: limit
        for item in metadata
        for name in ("gt", "ge", "lt", "le")
        if isinstance(limit := getattr(item, name, None), int | float)
    }
    text = ""
    if "gt" in bounds:
        text += f" above {bounds['gt']:g}"
    if "ge" in bounds:
        text += f" from {_number(bounds['ge'])}"
    if "le" in bounds:
        text += (
            f" to {_number(bounds['le'])}" if "ge" in bounds else f", up to {_number(bounds['le'])}"
        )
    return text


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:g}"


def variants(annotation: Any) -> dict[str, type[Section]]:
    """The section classes that a field can hold, by tag where there is more than one."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return {"": annotation}
    found: dict[str, type[Section]] = {}
    for argument in get_args(annotation):
        for section in variants(argument).values():
            found[section.model_fields[section.TAG].default if section.TAG else ""] = section
    return found


def tag_key(annotation: Any) -> str:
    """The key that tells the sections of `variants` apart."""
    return next(iter(variants(annotation).values())).TAG


def tiers_with(path: KeyPath) -> list[str]:
    """The tiers whose configuration has this key."""
    return [tier for tier, kind in KINDS.items() if _has(kind, path)]


def _has(kind: type[Config] | type[Section], path: KeyPath) -> bool:
    name, rest = path[0], path[1:]
    if not isinstance(name, str) or name not in kind.model_fields:
        return False
    inner = variants(kind.model_fields[name].annotation).values()
    return not rest or any(_has(section, rest) for section in inner)
