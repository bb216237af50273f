"""The check of the documents finds what is wrong in them, and nothing else."""

import argparse
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def check() -> Iterator[ModuleType]:
    """A script, not a part of the package."""
    sys.path.insert(0, str(DOCS))
    try:
        yield importlib.import_module("check")
    finally:
        sys.path.remove(str(DOCS))


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="edgechoir")
    commands = top.add_subparsers()
    commands.add_parser("device").add_argument("--once", action="store_true")
    authority = commands.add_parser("ca").add_subparsers()
    authority.add_parser("sign").add_argument("request")
    return top


def test_a_link_must_lead_somewhere(check: ModuleType, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    (tmp_path / "other.md").write_text("# One `[two]`: three\n```\n# no heading\n```\n")
    text = (
        "# Here\n[a](other.md) [b](other.md#one-two-three) [c](https://x.y/z) [d](#here)\n"
        "![e](none.png) [f](other.md#no-heading) [g](#there)\n```\n[h](in/code.md)\n```\n"
    )
    page.write_text(text)
    assert list(check.broken_links(page, text)) == [
        "link to none.png: no such file",
        "link to other.md#no-heading: no such heading",
        "link to #there: no such heading",
    ]


def test_a_path_in_code_must_exist(check: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    text = "`docs/` `docs/none.md` docs/prose.md `edgechoir/v1/x` `docs/a b`"
    assert list(check.broken_paths(tmp_path, text)) == ["`docs/none.md`: no such file"]


def test_a_make_target_must_exist(check: ModuleType) -> None:
    text = "make sure that `make test` and `make tset` work\n```sh\nSEED=3 make sim\nmake it\n```\n"
    assert list(check.unknown_targets(text, {"test", "sim"})) == [
        "`make it`: no such target",
        "`make tset`: no such target",
    ]


@pytest.mark.parametrize(
    "mention",
    [
        "edgechoir",
        "edgechoir device FILE --once",
        ".venv/bin/edgechoir device a.toml",
        "edgechoir ca sign request.csr",
        "edgechoir COMMAND",
        "from edgechoir import errors",
        "import edgechoir as choir",
        "pip install edgechoir[train]",
        "edgechoir device a.toml | grep x --colour",
        "edgechoir/v1/digits/device/a/status",
    ],
)
def test_a_command_that_exists_may_be_mentioned(
    check: ModuleType, parser: argparse.ArgumentParser, mention: str
) -> None:
    assert list(check.unknown_commands(f"`{mention}`", parser)) == []


@pytest.mark.parametrize(
    ("mention", "said"),
    [
        ("edgechoir devise a.toml", "`edgechoir devise`: no such command"),
        ("edgechoir ca sing x", "`edgechoir ca sing`: no such command"),
        ("edgechoir device a --onec", "`edgechoir device --onec`: no such option"),
        ("edgechoir device --every=3 a", "`edgechoir device --every`: no such option"),
        ("cd x && edgechoir watch", "`edgechoir watch`: no such command"),
    ],
)
def test_a_command_that_does_not_exist_is_found(
    check: ModuleType, parser: argparse.ArgumentParser, mention: str, said: str
) -> None:
    assert list(check.unknown_commands(f"```\n{mention}\n```\n", parser)) == [said]
    assert list(check.unknown_commands(mention, parser)) == []


def test_a_page_that_differs_is_shown_with_its_difference(
    check: ModuleType, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/a.md").write_text("one\n")
    assert list(check.outdated(tmp_path, {"a.md": "one\n"})) == []
    (said,) = check.outdated(tmp_path, {"a.md": "two\n"})
    assert said.splitlines()[0].startswith("docs/a.md is out of date; run ")
    assert said.splitlines()[-2:] == ["-one", "+two"]


def test_the_design_has_a_row_for_every_part(check: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    package = tmp_path / "runtime" / "edgechoir"
    for part in ("rounds", "store"):
        (package / part).mkdir(parents=True)
        (package / part / "__init__.py").touch()
    for module in ("__init__.py", "wire.py", "codec.py"):
        (package / module).touch()
    (package / "__pycache__").mkdir()
    rows = ["| part | is |", "|---|---|", "| `rounds/` | a |", "| `wire.py`, `codec.py` | b |"]
    (tmp_path / "docs/design.md").write_text("\n".join([*rows, "| `gone/` | `x` |", ""]))
    assert list(check.missing_parts(tmp_path)) == [
        "docs/design.md has no row for `store/`",
        "docs/design.md has a row for `gone/`: no such part",
    ]


def test_the_page_of_the_command_line_has_every_command(
    check: ModuleType, parser: argparse.ArgumentParser
) -> None:
    page = importlib.import_module("reference").cli_page(parser)
    assert [line for line in page.splitlines() if line.startswith("## ")] == [
        "## edgechoir device",
        "## edgechoir ca",
        "## edgechoir ca sign",
    ]
    assert "`--once`" in page
    assert "`request`" in page
