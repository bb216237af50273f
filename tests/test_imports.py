"""What import-linter cannot say: what a device loads, and where the core could hide randomness."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import edgechoir

PACKAGE = Path(edgechoir.__file__).parent
CORE = ("errors", "types", "wire", "secagg", "learning", "identity", "rounds")
DEVICE = (
    "edgechoir.cli",
    "edgechoir.config.reading",
    "edgechoir.commands.serving",
    "edgechoir.commands.pulse",
    "edgechoir.tiers.device_process",
    "edgechoir.transport.mqtt",
    "edgechoir.inference.predictor",
    "edgechoir.pipeline.run",
    "edgechoir.store.samples",
    "edgechoir.bundle.load",
    "edgechoir.monitor.status",
    "edgechoir.monitor.health",
)
PACKAGES = {
    "annotated_types",
    "cryptography",
    "edgechoir",
    "numpy",
    "onnxruntime",
    "paho",
    "pydantic",
    "pydantic_core",
    "typing_extensions",
    "typing_inspection",
}
ONLY = {
    "edgechoir.commands": {
        f"edgechoir.commands.{name}" for name in ("footprint", "pulse", "serving", "tiers")
    },
    "edgechoir.pipeline.sources": {
        f"edgechoir.pipeline.sources.{name}" for name in ("message", "mqtt", "python")
    },
    "edgechoir.pipeline.sinks": {"edgechoir.pipeline.sinks.callback"},
}
HEAVY = ("torch", "onnx", "onnxscript", "sklearn", "matplotlib", "rich")


def core_files() -> list[Path]:
    files = [PACKAGE / f"{part}.py" for part in CORE if (PACKAGE / f"{part}.py").exists()]
    return files + [file for part in CORE for file in sorted((PACKAGE / part).rglob("*.py"))]


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute, "" of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""


def forbidden_names(source: str) -> list[str]:
    """Uses of numpy's random numbers and of today's date."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Attribute):
            names = [dotted(node)]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found += [
            name
            for name in names
            if f"{name}.".startswith(("np.random.", "numpy.random."))
            or name.endswith(("datetime.now", "datetime.utcnow", "datetime.today", "date.today"))
        ]
    return found


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np\nnp.random.default_rng()",
        "from numpy.random import default_rng",
        "from numpy import random",
        "import numpy.random",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\ndatetime.utcnow()",
    ],
)
def test_randomness_and_clocks_are_recognised(source: str) -> None:
    assert forbidden_names(source)


def test_the_core_takes_no_randomness_from_numpy_and_no_time_from_datetime() -> None:
    files = core_files()
    assert {PACKAGE / "secagg", PACKAGE / "identity", PACKAGE / "rounds"} <= {
        file.parent for file in files
    }
    uses = {
        str(file.relative_to(PACKAGE)): names
        for file in files
        if (names := forbidden_names(file.read_text()))
    }
    assert uses == {}


def loaded_by_a_device() -> list[str]:
    """What is imported before a device's configuration says what it reads and where it writes."""
    named = f"from edgechoir.cli import parser; parser('device'); import sys, {', '.join(DEVICE)}"
    done = subprocess.run(
        [sys.executable, "-c", f"{named}; print(*sys.modules)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_a_device_loads_nothing_that_only_training_or_people_need() -> None:
    loaded = loaded_by_a_device()
    assert set(HEAVY) & set(loaded) == set()
    parts = {name.partition(".")[0] for name in loaded} - sys.stdlib_module_names
    assert {name for name in parts if not name.startswith("_")} <= PACKAGES


def test_a_device_loads_the_code_of_no_other_command_and_of_no_source_it_does_not_read() -> None:
    loaded = loaded_by_a_device()
    for few, inside in ONLY.items():
        assert {name for name in loaded if name.startswith(f"{few}.")} <= inside, few
    assert "numpy.random" not in loaded


def test_every_module_imports_without_the_extras() -> None:
    """Each heavy import stands inside a function, or in a file that only such a function loads."""
    top = {
        str(file.relative_to(PACKAGE))
        for file in PACKAGE.rglob("*.py")
        for node in ast.parse(file.read_text()).body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else [a.name for a in node.names]
        )
        if name.partition(".")[0] in HEAVY
    }
    assert {name.split("/")[0] for name in top} <= {"training", "bundle"}
