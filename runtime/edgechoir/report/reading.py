"""From files to a run: a cloud's state directory, its configuration, or a monitor's recording."""

import json
import time
from contextlib import closing
from pathlib import Path

from edgechoir.config.reading import load_for
from edgechoir.config.tiers import CloudConfig
from edgechoir.errors import Malformed, OperatorError
from edgechoir.monitor.recording import read_recording
from edgechoir.monitor.records import Metrics
from edgechoir.report.page import page
from edgechoir.report.run import Figures, Run, Version
from edgechoir.store.rounds import NAME, RoundHistory
from edgechoir.store.versions import ModelVersions


def read_run(paths: list[Path]) -> Run:
    """All that these say of one run. Raises OperatorError, also where they say nothing."""
    run = Run()
    for path in paths:
        if not path.exists():
            raise OperatorError(f"there is no {path}")
        if path.is_dir():
            _state(run, path)
        elif path.suffix == ".toml":
            _state(run, load_for(path, CloudConfig).state)
        else:
            for _, document in read_recording(path):
                run.take(document)
    run.sort()
    if not run.rounds and not run.members:
        names = ", ".join(map(str, paths))
        raise OperatorError(f"{names}: no round and no member is recorded there")
    return run


def write_report(paths: list[Path], out: Path) -> None:
    """The page about what these say. Raises OperatorError."""
    write_page(read_run(paths), out)


def write_page(run: Run, out: Path) -> None:
    """Raises OperatorError."""
    try:
        out.write_text(page(run, time.time()))
    except OSError as error:
        raise OperatorError(f"cannot write {out}: {error.strerror}") from None


def _state(run: Run, state: Path) -> None:
    if not (state / NAME).exists():
        raise OperatorError(
            f"{state} has no {NAME}: name the state directory of a cloud that has run, its "
            "configuration, or a recording of `edgechoir monitor --record`"
        )
    with closing(RoundHistory(state / NAME)) as history:
        for document in history.rounds():
            try:
                run.take(Metrics.from_json(document))
            except Malformed:  # written by a later program
                run.left_out += 1
        run.settings += [json.loads(document) for document in history.settings()]
    if (state / "models.db").exists():
        with closing(ModelVersions(state / "models.db")) as versions:
            run.stored = _versions(versions)


def _versions(versions: ModelVersions) -> list[Version]:
    best, kept = versions.best(), set(versions.versions())
    measured = {version: figures for version, figures, _ in versions.history()}
    return [
        Version(version, _figures(measured.get(version)), version in kept, _is(best, version))
        for version in sorted(kept | set(measured))
    ]


def _is(best: object, version: int) -> bool:
    return best is not None and getattr(best, "version", None) == version


def _figures(measures: dict[str, float] | None) -> Figures | None:
    if not measures:
        return None
    return Figures(measures.get("accuracy"), measures.get("loss"), measures.get("rmse"))
