"""A bundle for people: what it is, and in what two of them differ."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from edgechoir.bundle.load import Bundle
from edgechoir.bundle.manifest import Manifest, Parameter, is_personal
from edgechoir.types import Floats

_SAME_EVERYWHERE = ("name", "task", "input_shape", "outputs", "preprocessing", "loss", "metric")


def shown(bundle: Bundle) -> Iterator[str]:
    """Lines that say what the bundle is."""
    manifest = bundle.manifest
    yield f"{manifest.name}: {manifest.task}, {manifest.size} parameters, {bundle.digest[:16]}"
    yield f"  built with  {manifest.built_with}"
    yield f"  takes       {list(manifest.input_shape)} {manifest.dtype}, {_preprocessing(manifest)}"
    yield f"  gives       {', '.join(manifest.outputs)}"
    yield f"  learns by   {manifest.loss}, judged by {manifest.metric}"
    if manifest.personal:
        kept = manifest.size - manifest.shared
        yield f"  stays here  {', '.join(manifest.personal)}: {kept} parameters"
    if manifest.trees is not None:
        yield f"  grows       {manifest.trees.count} trees of depth {manifest.trees.depth}"
    else:
        yield f"  computes    {_operators(bundle)}"
    yield "  parameters"
    name_width = max(len(p.name) for p in manifest.parameters)
    shape_width = max(len(_shape(p)) for p in manifest.parameters)
    for parameter in manifest.parameters:
        norm = np.linalg.norm(_part(bundle, parameter).astype(np.float64))
        own = "  personal" if is_personal(parameter.name, manifest.personal) else ""
        yield (
            f"    {parameter.name:<{name_width}}  {_shape(parameter):<{shape_width}}  "
            f"norm {norm:.4g}{own}"
        )


def differences(one: Bundle, other: Bundle) -> Iterator[str]:
    """Lines that say in what they differ; none for bundles that are the same model."""
    mine, theirs = one.manifest, other.manifest
    for word in (*_SAME_EVERYWHERE, "personal", "trees", "built_with"):
        a, b = getattr(mine, word), getattr(theirs, word)
        if a != b:
            yield f"{word}: {_plain(a)} / {_plain(b)}"
    yield from _graphs(one, other)
    if one.onnx != other.onnx:
        yield f"infer.onnx: {len(one.onnx)} / {len(other.onnx)} bytes, of another content"
    here = {p.name: p for p in mine.parameters}
    there = {p.name: p for p in theirs.parameters}
    for name in [n for n in here if n not in there]:
        yield f"{name}: {_shape(here[name])} / not there"
    for name in [n for n in there if n not in here]:
        yield f"{name}: not there / {_shape(there[name])}"
    for name, parameter in here.items():
        if name in there:
            yield from _change(one, other, parameter, there[name])


def _graphs(one: Bundle, other: Bundle) -> Iterator[str]:
    if one.graph == other.graph:
        return
    mine, theirs = (Counter(n.op for n in bundle.graph.nodes) for bundle in (one, other))
    changed = [
        f"{op} {mine[op]} / {theirs[op]}" for op in sorted(mine | theirs) if mine[op] != theirs[op]
    ]
    yield f"graph: {', '.join(changed) or 'the same operators with other arguments'}"


def _change(one: Bundle, other: Bundle, mine: Parameter, theirs: Parameter) -> Iterator[str]:
    if mine.shape != theirs.shape:
        yield f"{mine.name}: {_shape(mine)} / {_shape(theirs)}"
        return
    a, b = _part(one, mine).astype(np.float64), _part(other, theirs).astype(np.float64)
    if np.array_equal(a, b):
        return
    moved = np.linalg.norm(b - a)
    share = moved / np.linalg.norm(a) if a.any() else float("inf")
    yield (
        f"{mine.name}: moved by {moved:.4g} ({share:.2%} of its norm), "
        f"an element by {np.abs(b - a).max():.4g} at most"
    )


def _part(bundle: Bundle, parameter: Parameter) -> Floats:
    return bundle.params[parameter.offset : parameter.offset + parameter.size]


def _shape(parameter: Parameter) -> str:
    return str(list(parameter.shape))


def _preprocessing(manifest: Manifest) -> str:
    how = manifest.preprocessing
    parts = [(word, getattr(how, word)) for word in ("offset", "scale")]
    said = [f"{word} {_numbers(values)}" for word, values in parts]
    return f"{' and '.join(said)} along axis {how.axis}"


def _numbers(values: tuple[float, ...]) -> str:
    few = ", ".join(f"{value:g}" for value in values[:4])
    return few if len(values) <= 4 else f"{few}, ... ({len(values)})"


def _operators(bundle: Bundle) -> str:
    counts = Counter(node.op.split(".")[1] for node in bundle.graph.nodes)
    return ", ".join(f"{op} x {n}" if n > 1 else op for op, n in counts.items())


def _plain(value: object) -> str:
    text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
