"""Check that the documents fit the program: `python docs/check.py`, with `--write` to renew them.

Generated pages must be as the program would write them. In README, docs and docker, every relative
link and every path in code must exist, and every `make` target, `edgechoir` command and option that
is mentioned in code must be one that there is. The design has a row for every part of the package.
"""

import argparse
import difflib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from reference import commands, pages

ROOT = Path(__file__).resolve().parent.parent
DESIGN = "docs/design.md"
DIFF_LINES = 40
FOLDERS = "runtime|docs|tests|models|bench|broker_config|docker"

FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)")
SPAN = re.compile(r"`([^`\n]+)`")
PATH = re.compile(rf"(?:{FOLDERS})/[\w./-]*")
MAKE = re.compile(r"(?:^|[\s;&(])make ([a-z][\w-]*)")
COMMAND = re.compile(r"(?:^|[\s/;&(])(?<!import )(?<!from )edgechoir((?: +[^\s|;&>#`]+)*)")


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--write", action="store_true", help="renew the generated pages")
    generated = pages()
    if options.parse_args().write:
        for name, text in generated.items():
            (ROOT / "docs" / name).write_text(text)
    if "cli.md" not in generated:
        print("docs: there is no edgechoir.cli yet; its page and its mentions are not checked")
    problems = [*outdated(ROOT, generated), *missing_parts(ROOT)]
    parser = _parser() if "cli.md" in generated else None
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    folders = [ROOT / "docs", ROOT / "docker"]
    pages_by_hand = [page for folder in folders for page in sorted(folder.rglob("*.md"))]
    for page in [*sorted(ROOT.glob("*.md")), *pages_by_hand]:
        text = page.read_text()
        found = [*broken_links(page, text), *broken_paths(ROOT, text)]
        found += unknown_targets(text, targets)
        found += unknown_commands(text, parser) if parser else ()
        problems += [f"{page.relative_to(ROOT)}: {problem}" for problem in found]
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    from edgechoir.cli import parser

    return parser()


def outdated(root: Path, generated: dict[str, str]) -> Iterator[str]:
    """Pages that are not as the program would write them, with the difference."""
    for name, text in generated.items():
        page = root / "docs" / name
        there = page.read_text() if page.exists() else ""
        if there == text:
            continue
        difference = difflib.unified_diff(
            there.splitlines(), text.splitlines(), f"docs/{name}", "as generated", lineterm="", n=1
        )
        lines = list(difference)
        more = [f"... {len(lines) - DIFF_LINES} more lines"] if len(lines) > DIFF_LINES else []
        advice = f"docs/{name} is out of date; run `python docs/check.py --write`"
        yield "\n".join([advice, *lines[:DIFF_LINES], *more])


def missing_parts(root: Path) -> Iterator[str]:
    """Parts of the package that no row of the design's table names, and rows without a part."""
    package = root / "runtime" / "edgechoir"
    parts = {p.name + "/" for p in package.iterdir() if (p / "__init__.py").exists()}
    parts |= {p.name for p in package.glob("*.py") if not p.name.startswith("__")}
    rows = re.findall(r"^\| (`[a-z]+(?:/|\.py)`.*?) \|", (root / DESIGN).read_text(), re.MULTILINE)
    named = {name for row in rows for name in SPAN.findall(row)}
    yield from (f"{DESIGN} has no row for `{part}`" for part in sorted(parts - named))
    yield from (f"{DESIGN} has a row for `{name}`: no such part" for name in sorted(named - parts))


def broken_links(page: Path, text: str) -> Iterator[str]:
    """Relative links to a file or heading that is not there."""
    for target in LINK.findall(FENCE.sub("", text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        if not file.exists():
            yield f"link to {target}: no such file"
        elif anchor and file.suffix == ".md" and anchor not in anchors(file.read_text()):
            yield f"link to {target}: no such heading"


def anchors(text: str) -> set[str]:
    """The anchors that a Markdown page's headings get."""
    headings = re.findall(r"^#+ +(.+?)\s*$", FENCE.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def code(text: str) -> list[str]:
    """What stands in code: each line of a fenced block, each span."""
    blocks = [line for block in FENCE.findall(text) for line in block.splitlines()[1:-1]]
    return [*blocks, *SPAN.findall(FENCE.sub("", text))]


def broken_paths(root: Path, text: str) -> Iterator[str]:
    """Spans that are a path of this repository which is not there."""
    for span in SPAN.findall(FENCE.sub("", text)):
        if PATH.fullmatch(span) and not (root / span).exists():
            yield f"`{span}`: no such file"


def unknown_targets(text: str, targets: set[str]) -> Iterator[str]:
    """Mentions of `make X` that the Makefile does not have."""
    for line in code(text):
        for target in MAKE.findall(line):
            if target not in targets:
                yield f"`make {target}`: no such target"


def unknown_commands(text: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """Mentions of `edgechoir X --option` that the parser does not have."""
    known = commands(parser)
    for line in code(text):
        for mention in COMMAND.findall(line):
            yield from _check_mention(mention.split(), known)


def _check_mention(words: list[str], known: dict[str, argparse.ArgumentParser]) -> Iterator[str]:
    command = ""
    for word in words:
        longer = f"{command} {word}".strip()
        if longer in known:
            command = longer
        elif word.startswith("--"):
            options = {o for action in known[command]._actions for o in action.option_strings}
            option = word.partition("=")[0]
            if option not in options:
                yield f"`edgechoir {command} {option}`: no such option"
        elif any(each.startswith(f"{command} ".lstrip()) for each in known if each != command):
            if re.fullmatch(r"[a-z][a-z-]*", word):
                yield f"`edgechoir {longer}`: no such command"
            return


if __name__ == "__main__":
    sys.exit(main())
