"""The answer to a query as lines of text."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

BAR: Final = 40


def lines_of(answer: Mapping[str, Any]) -> list[str]:
    """A head line, and a table."""
    head = (
        f"{answer['kind']} over {answer['samples']} {answer['source'].replace('_', ' ')} rows of "
        f"{answer['devices']} devices"
    )
    return [head, "", *_BODIES[answer["kind"]](answer)]


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Columns side by side: text to the left, numbers to the right."""
    cells = [list(head), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[j]) for row in cells) for j in range(len(head))]
    numeric = [all(not isinstance(row[j], str) for row in rows) for j in range(len(head))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    ]


def _text(cell: object) -> str:
    if cell is None:
        return "-"
    return f"{cell:.6g}" if isinstance(cell, float) else str(cell)


def _mean(answer: Mapping[str, Any]) -> list[str]:
    head = ("column", "mean", "deviation", "missing", "precision")
    return table(head, [[row[name] for name in head] for row in answer["columns"]])


def _counts(answer: Mapping[str, Any]) -> list[str]:
    head = ("class", "rows", "share")
    return table(head, [[row[name] for name in head] for row in answer["classes"]])


def _histogram(answer: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    for column in answer["columns"]:
        shares, borders = column["shares"], column["borders"]
        most = max([*shares, 1e-30])
        rows = [
            [borders[i], borders[i + 1], share, "#" * round(BAR * max(share, 0.0) / most)]
            for i, share in enumerate(shares)
        ]
        lines += [column["column"], *table(("from", "to", "share", ""), rows)]
        lines += [f"missing {column['missing']:.6g}", ""]
    return lines[:-1]


def _quantiles(answer: Mapping[str, Any]) -> list[str]:
    rows = [
        [column["column"], level, value, within]
        for column in answer["columns"]
        for level, value, within in zip(
            answer["at"], column["quantiles"], column["within"], strict=True
        )
    ]
    return table(("column", "quantile", "value", "within"), rows)


def _evaluate(answer: Mapping[str, Any]) -> list[str]:
    if "classes" not in answer:
        rows = [
            [name, *values]
            for name, *values in zip(
                answer["outputs"],
                answer["rmse_by_output"],
                answer["mae_by_output"],
                answer["r2_by_output"],
                strict=True,
            )
        ]
        return [f"rmse {answer['rmse']:.6g}", "", *table(("output", "rmse", "mae", "r2"), rows)]
    names = answer["classes"]
    rows = [
        [name, answer["recall"][c], answer["auc"][c], *answer["confusion"][c]]
        for c, name in enumerate(names)
    ]
    return [
        f"accuracy {answer['accuracy']:.4f}, log loss {answer['loss']:.4f}",
        "",
        *table(("class", "recall", "auc", *(f"said {name}" for name in names)), rows),
    ]


def _drift(answer: Mapping[str, Any]) -> list[str]:
    def row(name: str, one: Mapping[str, Any]) -> list[object]:
        return [name, one["stability_index"], one["divergence_bits"], one["drift"]]

    rows = [row(one["column"], one) for one in answer["columns"]]
    rows += [row(one["of"], one) for one in answer["answers"]]
    return [
        f"against {answer['reference_samples']} stored rows; an index of "
        f"{answer['by_chance']:.4f} is to be expected by chance",
        "",
        *table(("", "stability index", "divergence (bits)", "drift"), rows),
    ]


def _linear(answer: Mapping[str, Any]) -> list[str]:
    names = answer["outputs"]
    weights = list(zip(*answer["weights"], strict=True))
    rows = [[f"x{j}", *row] for j, row in enumerate(weights)]
    rows += [["bias", *answer["bias"]], ["r2", *answer["r2"]]]
    return [
        f"ridge {answer['ridge']:g}, condition number {answer['condition']:.4g}",
        "",
        *table(("", *names), rows),
    ]


_BODIES: Final = {
    "mean": _mean,
    "counts": _counts,
    "histogram": _histogram,
    "quantiles": _quantiles,
    "evaluate": _evaluate,
    "drift": _drift,
    "linear": _linear,
}
