"""Every exception of the package has the one base, and every refusal a word of its own."""

import ast
import builtins
import importlib
import inspect
from pathlib import Path

import edgechoir
from edgechoir import errors
from edgechoir.errors import EdgechoirError, LocalError, OperatorError, RemoteError

PACKAGE = Path(edgechoir.__file__).parent
TREE = {
    name: kind
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, BaseException)
}


def exception_classes() -> dict[str, str]:
    """Name -> file of every class in the package whose bases look like exceptions."""
    known = TREE.keys() | {
        name
        for name, kind in vars(builtins).items()
        if inspect.isclass(kind) and issubclass(kind, BaseException)
    }
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
                if bases & known:
                    found[node.name] = str(file.relative_to(PACKAGE))
    return found


def test_every_exception_of_the_package_has_the_base() -> None:
    found = exception_classes()
    assert {"EdgechoirError", "Malformed"} <= found.keys()
    for name, file in found.items():
        module = importlib.import_module("edgechoir." + file.removesuffix(".py").replace("/", "."))
        assert issubclass(getattr(module, name), EdgechoirError), f"{name} in {file}"


def test_every_refusal_has_a_reason_of_its_own() -> None:
    refusals = [kind for kind in TREE.values() if issubclass(kind, RemoteError)]
    reasons = {kind.__dict__.get("reason") for kind in refusals}
    assert None not in reasons
    assert len(reasons) == len(refusals)
    assert all(reason and reason.replace("_", "").isalpha() for reason in reasons)


def test_an_error_is_of_one_fault_only() -> None:
    for name, kind in TREE.items():
        faults = {
            base for base in (LocalError, OperatorError, RemoteError) if issubclass(kind, base)
        }
        assert len(faults) <= 1, name


def test_every_error_says_what_it_stands_for() -> None:
    assert all(kind.__doc__ for kind in TREE.values())
