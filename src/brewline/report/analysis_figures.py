"""The charts of the analyses."""

from collections.abc import Mapping, Sequence
from typing import Any

from brewline.analysis.word_errors import curve_points
from brewline.evaluation.vectors import ACOUSTIC, TEXT
from brewline.pages import charts
from brewline.pages.figures import Figure, legend_of, line_rows

CHANNEL_LABELS = {ACOUSTIC: "F_A, acoustic", TEXT: "F_T, textual"}


def word_error_figure(
    table: str, found: Mapping[str, Any], styles: Mapping[str, int]
) -> Figure | None:
    """Each row's chance of a hit over the word error rate, and its rates as points.

    Args:
        table: Which.
        found: The content of `word_errors.json`.
        styles: The line style of each row.

    Returns:
        The figure, or None where there is nothing to draw: too few pictures, and no slope.
    """
    series, rows = [], []
    for row, style in styles.items():
        line = curve_points(found["curves"][row]) if row in found["curves"] else []
        points = [
            (one["mean"], one["recall"], one["low"], one["high"])
            for one in found["rates"]
            if one["row"] == row and one["recall"] is not None
        ]
        if line or points:
            series.append(charts.Series(row, line, style, dots=points))
            dots = [*((x, y, None, None) for x, y in line), *points]
            names = ("word_error_rate", "recall", "low", "high")
            rows += [{"row": row, **dict(zip(names, dot, strict=True))} for dot in dots]
    if not series:
        return None
    title = f"Recall@{found['k']} over the word error rate"
    svg = charts.line_chart(series, title, "word error rate", "recall in %", in_percent=True)
    return Figure.of([table, "word errors"], title, svg, rows, legend_of(series))


def norm_figure(table: str, row: str, histogram: Mapping[str, Sequence[float]]) -> Figure:
    """How long the vectors of the two channels of a row are."""
    series = [
        charts.Series(label, list(zip(histogram["norm"], histogram[name], strict=True)), style)
        for style, (name, label) in enumerate(CHANNEL_LABELS.items())
    ]
    svg = charts.line_chart(
        series, f"norms of the channels of {row}", "norm", "recordings in %", in_percent=True
    )
    title = "How long the channels are"
    return Figure.of([table, row, "norms"], title, svg, line_rows(series), legend_of(series))
