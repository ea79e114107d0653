"""The charts of the analyses; the page draws them, and they are files too."""

from collections.abc import Mapping, Sequence
from typing import Any

from brewline.analysis.word_errors import curve_points
from brewline.evaluation.vectors import ACOUSTIC, TEXT
from brewline.pages import charts

CHANNEL_LABELS = {ACOUSTIC: "F_A, acoustic", TEXT: "F_T, textual"}


def draw_recall_over_wer(found: Mapping[str, Any], styles: Mapping[str, int]) -> str | None:
    """Each row's chance of a hit over the word error rate, and its rates as points.

    Args:
        found: The content of `word_errors.json`.
        styles: The line style of each row.

    Returns:
        An `<svg>` element, or None where there is nothing to draw: too few pictures, and no slope.
    """
    series = []
    for row, style in styles.items():
        line = curve_points(found["curves"][row]) if row in found["curves"] else []
        points = [
            (one["mean"], one["recall"], one["low"], one["high"])
            for one in found["rates"]
            if one["row"] == row and one["recall"] is not None
        ]
        if line or points:
            series.append(charts.Series(row, line, style, dots=points))
    if not series:
        return None
    title = f"recall@{found['k']} over the word error rate"
    return charts.line_chart(series, title, "word error rate", "recall in %", in_percent=True)


def draw_norms(row: str, histogram: Mapping[str, Sequence[float]]) -> str:
    """How long the vectors of the two channels of a row are."""
    series = [
        charts.Series(label, list(zip(histogram["norm"], histogram[name], strict=True)), style)
        for style, (name, label) in enumerate(CHANNEL_LABELS.items())
    ]
    return charts.line_chart(
        series, f"norms of the channels of {row}", "norm", "recordings in %", in_percent=True
    )
