"""The charts of the report: recall over K, and what training reached step by step."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from brewline.core.errors import BrewlineError
from brewline.evaluation.outputs import DIRECTION_NAMES, IMAGE_TO_SPEECH, SPEECH_TO_IMAGE
from brewline.pages import charts
from brewline.pages.figures import Figure, legend_of, line_rows

# More points than this cannot be told apart in a chart of this size.
_MAX_POINTS = 200


def recall_figures(
    table: str,
    curves: Mapping[tuple[str, str], list[tuple[float, float]]],
    styles: Mapping[str, int],
) -> Iterator[Figure]:
    """Yields the recall of the rows of a table over K, a figure for each direction."""
    for direction, title in DIRECTION_NAMES.items():
        lines = [
            charts.Series(name, curves[name, direction], style)
            for name, style in styles.items()
            if (name, direction) in curves
        ]
        if lines:
            svg = charts.line_chart(lines, f"{title}, recall@K", "K", "recall in %", True)
            words = (table, "recall", direction)
            shown, legend = title.replace(" to ", " → "), legend_of(lines)
            yield Figure.of(words, shown, svg, line_rows(lines), legend)


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The rows of `history.jsonl` in a model's folder.

    Raises:
        BrewlineError: it is missing.
    """
    path = folder / "history.jsonl"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; run `dvc repro`") from None
    return [json.loads(line) for line in lines if line]


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Averages neighbours until at most `_MAX_POINTS` are left."""
    size = -(-len(points) // _MAX_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[len(group) // 2][0], sum(y for _, y in group) / len(group)) for group in groups]


def training_figures(
    table: str, models: Mapping[str, list[tuple[Path, dict[str, Any]]]], styles: Mapping[str, int]
) -> Iterator[Figure]:
    """Yields the loss and the two recalls on dev over the steps of all trained models."""
    histories = [
        (name, folder, model, read_history(folder))
        for name, folders in models.items()
        for folder, model in folders
    ]
    figures = [
        ("loss", "loss on the training batches", "loss"),
        (f"dev/{SPEECH_TO_IMAGE}/recall_at_1", "dev, speech → image R@1", "recall in %"),
        (f"dev/{IMAGE_TO_SPEECH}/any_hit_recall_at_1", "dev, image → speech R@1", "recall in %"),
    ]
    for metric, title, unit in figures:
        lines = []
        for name, folder, model, history in histories:
            points = [(row["step"], row[metric]) for row in history if row.get(metric) is not None]
            mark = model.get("best_step") if metric.startswith("dev/") else None
            if points:
                points = points if mark is not None else _thin(points)
                lines.append(charts.Series(f"{name}, {folder.name}", points, styles[name], mark))
        if lines:
            svg = charts.line_chart(lines, title, "step", unit, unit != "loss")
            words = (table, "training", metric)
            yield Figure.of(words, title, svg, line_rows(lines), legend_of(lines))
