"""From a file to a checked configuration, or to an error that says which line to change.

A message has the file, the line, the key, what was seen and what is allowed. All wrong lines are
named at once, the first `MOST_ERRORS` of them.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from edgechoir.config.describe import (
    allowed,
    dotted,
    seen,
    tag_key,
    tiers_with,
    variants,
    words,
)
from edgechoir.config.lines import KeyPath, key_lines
from edgechoir.config.sections import Section
from edgechoir.config.tiers import KINDS, Config
from edgechoir.errors import ConfigError

MOST_ERRORS: Final = 20
MOST_BYTES: Final = 1_000_000

C = TypeVar("C", bound=Config)


def load(path: Path) -> Config:
    """Read the configuration of any tier. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as wrong:
        raise ConfigError(
            f"{path}: cannot be read ({wrong.strerror}); write one with `edgechoir init`"
        ) from None
    if len(raw) > MOST_BYTES:
        raise ConfigError(f"{path}: larger than {MOST_BYTES} bytes; is this a configuration?")
    try:
        text = raw.decode()
    except UnicodeDecodeError as wrong:
        line = raw[: wrong.start].count(b"\n") + 1
        raise ConfigError(f"{path}:{line}: not UTF-8 text; save the file as UTF-8") from None
    return parse(text, path.parent, str(path))


def load_for(path: Path, kind: type[C]) -> C:
    """Read a configuration that must be of one tier. Raises ConfigError."""
    config = load(path)
    if not isinstance(config, kind):
        raise ConfigError(
            f"{path}: this is the configuration of a {config.tier}, expected one of a "
            f"{kind.model_fields['tier'].default}; run `{config.command} {path}`"
        )
    return config


def parse(text: str, directory: Path, name: str = "configuration") -> Config:
    """Check a configuration's text; its relative paths start at `directory`. Raises ConfigError."""
    try:
        # TOML 1.0 ends lines with \n or \r\n; both count as one line.
        data = tomllib.loads(text)
        lines = key_lines(text.replace("\r\n", "\n"))
    except tomllib.TOMLDecodeError as wrong:
        raise ConfigError(_syntax(str(wrong), text, name)) from None
    except RecursionError:
        raise ConfigError(f"{name}: arrays or tables are nested too deeply") from None
    kind = _kind(data, lines, name)
    try:
        return kind.model_validate(data, context={"directory": directory})
    except ValidationError as wrong:
        details = wrong.errors(include_url=False)
    # Where a value may be of several kinds there is an error for each: one of them is enough.
    by_key = dict(_explain(kind, each, lines, name) for each in details)
    said = sorted(by_key.values(), key=lambda item: item[0])
    messages = [message for _, message in said[:MOST_ERRORS]]
    if len(said) > MOST_ERRORS:
        messages.append(f"{name}: and {len(said) - MOST_ERRORS} more")
    raise ConfigError("\n".join(messages))


def _syntax(message: str, text: str, name: str) -> str:
    place = re.search(r" \(at (?:line (\d+), column \d+|end of document)\)$", message)
    line = text.count("\n") + 1
    if place:
        message = message[: place.start()]
        line = int(place[1] or line)
    return f"{name}:{line}: not valid TOML: {message}"


def _kind(data: Mapping[str, Any], lines: Mapping[KeyPath, int], name: str) -> type[Config]:
    if "tier" not in data:
        raise ConfigError(f"{name}: lacks the key tier; allowed: {words(map(seen, KINDS))}")
    tier = data["tier"]
    if not isinstance(tier, str) or tier not in KINDS:
        raise ConfigError(
            f"{name}:{lines[('tier',)]}: tier is {seen(tier)}{_hint(tier, list(KINDS))}; "
            f"allowed: {words(map(seen, KINDS))}"
        )
    return KINDS[tier]


def _explain(
    kind: type[Config], detail: ErrorDetails, lines: Mapping[KeyPath, int], name: str
) -> tuple[KeyPath, tuple[int, str]]:
    """One pydantic error as (key path, (line, message))."""
    path, section = _locate(kind, detail["loc"])
    key = path[-1] if path else ""
    field = section.model_fields.get(key) if section and isinstance(key, str) else None
    value = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            what = _unknown(kind, path, section)
        case "missing" if field:
            path = path[:-1]
            where = f"[{dotted(path)}] lacks" if path else "lacks"
            expected = f"allowed: {allowed(field)}"
            what = f"{where} the key {key}: {_sentence(field.description or expected)}"
        case "union_tag_not_found" if field:
            tags = list(variants(field.annotation))
            key = tag_key(field.annotation)
            what = f"[{dotted(path)}] lacks the key {key}; allowed: {words(map(seen, tags))}"
        case "union_tag_invalid" if field:
            tags = list(variants(field.annotation))
            key = tag_key(field.annotation)
            wrong = value.get(key)
            what = (
                f"{dotted(path)}.{key} is {seen(wrong)}{_hint(wrong, tags)}; "
                f"allowed: {words(map(seen, tags))}"
            )
            path = (*path, key)
        case "value_error":
            where = f"{dotted(path)}: " if path else ""
            what = where + str(detail["ctx"]["error"])
        case "literal_error" if field:
            choices = re.findall(r"'([^']*)'", detail["ctx"]["expected"])
            what = (
                f"{dotted(path)} is {seen(value)}{_hint(value, choices)}; allowed: {allowed(field)}"
            )
        case "too_long" if field:
            most = detail["ctx"]["max_length"]
            what = f"{dotted(path)} has {detail['ctx']['actual_length']} entries; allowed: {most}"
        case "string_too_short" | "string_too_long" | "string_pattern_mismatch":
            what = f"{dotted(path)} is {seen(value)}: {_sentence(detail['msg'])}"
        case _:
            expected = allowed(field) if field else detail["msg"]
            what = f"{dotted(path)} is {seen(value)}; allowed: {expected}"
    line = _line(path, lines)
    message = f"{name}:{line}: {what}" if line else f"{name}: {what}"
    return path + (key,) * (detail["type"] == "missing"), (line, message)


def _locate(kind: type[Config], loc: tuple[str | int, ...]) -> tuple[KeyPath, type[Section] | None]:
    """The key path of pydantic's location, which has the tags of variants in it, and the section
    that the last key belongs to.
    """
    path: list[str | int] = []
    section: type[Section] | None = kind
    inner: dict[str, type[Section]] = {}
    for part in loc:
        if len(inner) > 1 and part in inner:
            inner = {"": inner[str(part)]}
            continue
        if inner and isinstance(part, str):
            section = inner.get("")
            inner = {}
        field = section.model_fields.get(str(part)) if section else None
        if isinstance(part, str):
            inner = variants(field.annotation) if field else {}
        path.append(part)
        if field and not inner:
            break  # what follows names the kind of value that was tried
    return tuple(path), section


def _unknown(kind: type[Config], path: KeyPath, section: type[Section] | None) -> str:
    tier = kind.model_fields["tier"].default
    others = tiers_with(path)
    if others:
        return (
            f"{dotted(path)} belongs to the configuration of {words(others)}, "
            f"and this is one of {tier}; remove it"
        )
    keys = list(section.model_fields) if section else []
    if len(path) > 1 and path[-1] in kind.model_fields:
        return (
            f"{dotted(path)} is not a key; {path[-1]} stands at the top of the file: "
            "move it above the first [section]"
        )
    return f"{dotted(path)} is not a key{_hint(path[-1], keys)}; allowed: {words(keys)}"


def _hint(wrong: object, choices: list[str]) -> str:
    close = difflib.get_close_matches(str(wrong), choices, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _sentence(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")


def _line(path: KeyPath, lines: Mapping[KeyPath, int]) -> int:
    """The line of the key, or of the nearest table around it; 0 where that is the file."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return 0
