"""The published JSON Schema of each document, by its file name."""

from typing import Any, Final

from edgechoir.monitor.document import Document
from edgechoir.monitor.records import Metrics, PredictionRecord
from edgechoir.monitor.status import Status

DOCUMENTS: Final[dict[str, type[Document]]] = {
    "status": Status,
    "metrics": Metrics,
    "predictions": PredictionRecord,
}
"""The channel -> what is published on it."""


def schema(channel: str) -> dict[str, Any]:
    """JSON Schema (2020-12) of what is published on a channel."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **DOCUMENTS[channel].model_json_schema(),
    }
