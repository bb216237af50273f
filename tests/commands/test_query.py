"""What `edgechoir query` sends and prints."""

import argparse
from typing import Any

import pytest

from edgechoir.cli import parser
from edgechoir.commands.query import KINDS, _request
from edgechoir.commands.query_table import lines_of, table
from edgechoir.errors import OperatorError
from edgechoir.tiers.queries import read_query

HEAD = {"source": "held_out", "samples": 120, "devices": 3}
ANSWERS: list[dict[str, Any]] = [
    {
        "kind": "mean",
        "columns": [
            {"column": "x0", "mean": 1.5, "deviation": 2.0, "missing": 0.0, "precision": 1e-7}
        ],
    },
    {"kind": "counts", "classes": [{"class": "yes", "rows": 120, "share": 1.0}]},
    {
        "kind": "histogram",
        "columns": [
            {"column": "x0", "shares": [0.25, 0.75], "borders": [0.0, 1.0, 2.0], "missing": 0.0}
        ],
    },
    {
        "kind": "quantiles",
        "at": [0.5],
        "columns": [{"column": "x0", "quantiles": [3.0], "within": [0.01]}],
    },
    {
        "kind": "evaluate",
        "classes": ["no", "yes"],
        "accuracy": 0.9,
        "loss": 0.3,
        "recall": [0.9, None],
        "auc": [0.95, None],
        "confusion": [[0.9, 0.1], [0.0, 0.0]],
    },
    {
        "kind": "evaluate",
        "outputs": ["a"],
        "rmse": 2.0,
        "rmse_by_output": [2.0],
        "mae_by_output": [1.0],
        "r2_by_output": [0.5],
    },
    {
        "kind": "drift",
        "reference_samples": 900,
        "by_chance": 0.01,
        "columns": [
            {"column": "x0", "stability_index": 0.4, "divergence_bits": 0.1, "drift": "large"}
        ],
        "answers": [
            {"of": "answers", "stability_index": 0.0, "divergence_bits": 0.0, "drift": "none"}
        ],
    },
    {
        "kind": "linear",
        "outputs": ["a"],
        "ridge": 0.001,
        "condition": 12.0,
        "weights": [[1.0, 2.0]],
        "bias": [3.0],
        "r2": [0.99],
    },
]


def args(*words: str) -> argparse.Namespace:
    return parser().parse_args(["query", *words])


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: str(a["kind"]))
def test_every_answer_has_its_table(answer: dict[str, Any]) -> None:
    head, empty, *rest = lines_of({**HEAD, **answer})
    assert head == f"{answer['kind']} over 120 held out rows of 3 devices"
    assert empty == ""
    assert len(rest) >= 2


def test_numbers_stand_to_the_right_and_text_to_the_left() -> None:
    assert table(("a", "number"), [["long name", 1], ["b", 22.5]]) == [
        "a          number",
        "long name       1",
        "b            22.5",
    ]


def test_every_kind_and_option_is_one_the_cloud_takes() -> None:
    for kind in KINDS:
        read_query(_request(args(kind, "cloud.toml")))
    words = "--source recent --of answer --columns 0,3 --bins 7 --range -1 2.5 --at 0.5,0.9"
    sent = _request(args("histogram", "c", *words.split(), "--ridge", "0", "--timeout", "3"))
    query = read_query(sent)
    assert (query.source, query.of, query.columns, query.bins) == ("recent", "answer", (0, 3), 7)
    assert (query.low, query.high, query.at, query.ridge) == (-1, 2.5, (0.5, 0.9), 0)
    assert query.timeout == 3


@pytest.mark.parametrize(
    "words", [["--columns", "a"], ["--at", "1;2"], ["--out", "d"], ["--out", "d", "--columns", "1"]]
)
def test_a_wrong_option_is_refused_before_anything_is_asked(words: list[str]) -> None:
    kind = "linear" if len(words) == 4 else "mean"
    with pytest.raises(OperatorError):
        _request(args(kind, "cloud.toml", *words))


@pytest.mark.parametrize(
    "request_",
    [
        {"kind": "all"},
        {"kind": "mean", "rows": 3},
        {"kind": "mean", "columns": [-1]},
        {"kind": "mean", "columns": [0] * 5000},
        {"kind": "histogram", "low": 1.0},
        {"kind": "histogram", "low": 2.0, "high": 1.0},
        {"kind": "histogram", "bins": 1},
        {"kind": "quantiles", "at": [1.0]},
        {"kind": "mean", "timeout": float("nan")},
    ],
)
def test_the_cloud_refuses_a_request_that_makes_no_sense(request_: dict[str, Any]) -> None:
    with pytest.raises(OperatorError):
        read_query({"do": "query", **request_})
