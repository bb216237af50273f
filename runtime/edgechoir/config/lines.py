"""Where each key of a TOML text stands.

tomllib gives values without positions. This scanner walks a text that tomllib has accepted and
notes the line of every key, table and array element; it does not check the text and builds no
values. Grammar: toml.io/en/v1.0.0, "Keys", "Table", "Inline Table", "Array of Tables".
"""

import tomllib
from bisect import bisect_right
from typing import Final

KeyPath = tuple[str | int, ...]
"""("pipeline", 0, "op"): names of tables and keys, and positions in arrays."""

_BLANK: Final = " \t\r"
_SPACE: Final = " \t\r\n"


def key_lines(text: str) -> dict[KeyPath, int]:
    """Line (from 1) of each key path; where a table is opened twice, its first line.

    `text` must be one that `tomllib.loads` accepts.
    """
    scan = _Scan(text)
    scan.document()
    return scan.lines


class _Scan:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self.rows: dict[KeyPath, int] = {}  # arrays of tables: how many tables so far
        self.newlines = [i for i, c in enumerate(text) if c == "\n"]

    def document(self) -> None:
        table: KeyPath = ()
        while self.skip(_SPACE):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> KeyPath:
        """`[a.b]` or `[[a.b]]`; gives the path of the table that it opens."""
        start = self.at
        double = self.text.startswith("[[", self.at)
        self.at += 2 if double else 1
        path: KeyPath = ()
        names = self.key()
        for depth, name in enumerate(names, 1):
            path = (*path, name)
            self.note(path, start)
            if double and depth == len(names):
                self.rows[path] = self.rows.get(path, 0) + 1
            if path in self.rows:
                path = (*path, self.rows[path] - 1)
                self.note(path, start)
        self.at += 2 if double else 1
        return path

    def pair(self, table: KeyPath) -> None:
        """`a.b = value`"""
        start = self.at
        for name in self.key():
            table = (*table, name)
            self.note(table, start)
        self.at += 1  # the '='
        self.skip(_BLANK)
        self.value(table)

    def value(self, path: KeyPath) -> None:
        first = self.text[self.at]
        if first in "\"'":
            self.string()
        elif first == "[":
            self.array(path)
        elif first == "{":
            self.inline_table(path)
        else:
            self.at += 1
            while self.at < len(self.text) and self.text[self.at] not in ",]}\n#":
                self.at += 1

    def array(self, path: KeyPath) -> None:
        self.at += 1
        count = 0
        while self.skip(_SPACE) and self.text[self.at] != "]":
            if self.text[self.at] == ",":
                self.at += 1
                continue
            item = (*path, count)
            self.note(item, self.at)
            self.value(item)
            count += 1
        self.at += 1

    def inline_table(self, path: KeyPath) -> None:
        self.at += 1
        while self.skip(_SPACE) and self.text[self.at] != "}":
            if self.text[self.at] == ",":
                self.at += 1
                continue
            self.pair(path)
        self.at += 1

    def key(self) -> list[str]:
        """A dotted key; stands behind it, and the space after it, when done."""
        names = []
        while True:
            self.skip(_BLANK)
            start = self.at
            if self.text[self.at] in "\"'":
                self.string()
                names.append(tomllib.loads("k = " + self.text[start : self.at])["k"])
            else:
                while self.text[self.at].isalnum() or self.text[self.at] in "_-":
                    self.at += 1
                names.append(self.text[start : self.at])
            self.skip(_BLANK)
            if self.text[self.at] != ".":
                return names
            self.at += 1

    def string(self) -> None:
        quote = self.text[self.at]
        if not self.text.startswith(quote * 3, self.at):
            self.at += 1
            while self.text[self.at] != quote:
                self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
            self.at += 1
            return
        self.at += 3
        while not self.text.startswith(quote * 3, self.at):
            self.at += 2 if quote == '"' and self.text[self.at] == "\\" else 1
        self.at += 3
        for _ in range(2):  # up to two quotes may stand right before the closing three
            if self.text.startswith(quote, self.at):
                self.at += 1

    def skip(self, blank: str) -> bool:
        """Pass over space and, where lines may end, comments; False at the end of the text."""
        while self.at < len(self.text):
            here = self.text[self.at]
            if here == "#" and "\n" in blank:
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif here in blank:
                self.at += 1
            else:
                return True
        return False

    def note(self, path: KeyPath, offset: int) -> None:
        self.lines.setdefault(path, bisect_right(self.newlines, offset) + 1)
