"""A sample and its answer as a JSON document: what sinks write."""

import json
from math import isfinite

from edgechoir.pipeline.sample import Sample


def document(sample: Sample) -> dict[str, object]:
    """With an answer the input is left out, it may be large; without one, `x` are the values."""
    said: dict[str, object] = {"time": sample.time, "key": sample.key}
    if sample.answer is None:
        said["x"] = [v if isfinite(v) else None for v in sample.x.reshape(-1).tolist()]
    else:
        answer = sample.answer
        said |= {
            "label": answer.label,
            "confidence": answer.confidence,
            "values": answer.values.tolist(),
            "version": answer.version,
            "seconds": answer.seconds,
        }
    said["y"] = sample.y
    return said


def line(sample: Sample) -> bytes:
    """One document in one line, with its end."""
    return json.dumps(document(sample), separators=(",", ":")).encode() + b"\n"
