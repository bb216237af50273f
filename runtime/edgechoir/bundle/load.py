"""Read a bundle and believe nothing in it: sizes, then hashes, then contents.

No code from the bundle runs, and no file beside the four fixed names is opened. Memory is bounded
by the caps in manifest.py.
"""

import hashlib
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgechoir.bundle.graph import INPUT, Graph, parse_graph
from edgechoir.bundle.manifest import (
    FILES,
    GRAPH,
    MANIFEST,
    MAX_BYTES,
    ONNX,
    PARAMS,
    TREES_GRAPH,
    Manifest,
    parse_manifest,
    verify_params,
)
from edgechoir.bundle.onnx_file import check_onnx
from edgechoir.bundle.shapes import check_shapes
from edgechoir.errors import BadModel, OperatorError
from edgechoir.types import Floats


@dataclass(frozen=True, slots=True)
class Bundle:
    """A checked bundle. `digest` (sha256 of manifest.json, which holds the others) identifies it.

    `onnx` holds no weights: a session needs `params` as external data under the name params.bin.
    """

    manifest: Manifest
    graph: Graph
    onnx: bytes
    params: Floats
    path: Path
    digest: str


def load_bundle(path: Path | str) -> Bundle:
    """Read and check the bundle directory `path`.

    Raises OperatorError if there is no such bundle, BadModel if what is there is not sound.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise OperatorError(f"{folder} is not a directory; expected a model bundle")
    return check_bundle({name: _read(folder / name) for name in (MANIFEST, *FILES)}, folder)


def check_bundle(files: Mapping[str, bytes], path: Path) -> Bundle:
    """The bundle held in `files`, by name. Raises BadModel naming the file and what is wrong."""
    if set(files) != {MANIFEST, *FILES}:
        raise BadModel(f"{path}: files {sorted(files)}, expected {sorted((MANIFEST, *FILES))}")
    for name, data in files.items():
        if len(data) > MAX_BYTES[name]:
            raise BadModel(f"{path}: {name}: {len(data)} bytes, at most {MAX_BYTES[name]}")
    try:
        manifest = parse_manifest(files[MANIFEST])
        for name in (GRAPH, ONNX):
            seen = hashlib.sha256(files[name]).hexdigest()
            expected = manifest.sha256[name]
            if seen != expected:
                raise BadModel(f"{name}: hashes to {seen}, the manifest says {expected}")
        params = verify_params(manifest, files[PARAMS], manifest.sha256[PARAMS])
        check_onnx(files[ONNX], manifest)
        if manifest.trees is not None:
            if files[GRAPH] != TREES_GRAPH:
                raise BadModel(f"{GRAPH}: a forest has no training graph")
            graph = Graph((), INPUT)
        else:
            graph = parse_graph(files[GRAPH], manifest)
            check_shapes(graph, manifest)
    except BadModel as error:
        raise BadModel(f"{path}: {error}") from error
    digest = hashlib.sha256(files[MANIFEST]).hexdigest()
    return Bundle(manifest, graph, files[ONNX], params, path, digest)


def _read(path: Path) -> bytes:
    """A regular file no longer than its cap; a link is refused, wherever it points."""
    limit = MAX_BYTES[path.name]
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise OperatorError(f"{path}: {error.strerror}; a bundle holds four plain files") from error
    with os.fdopen(handle, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise BadModel(f"{path}: not a plain file")
        data = file.read(limit + 1)
    if len(data) > limit:
        raise BadModel(f"{path}: over {limit} bytes")
    return data
