"""Which of their frames sounds choose while a model learns from them, drawn from its history."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from brewline.pages import charts
from brewline.pages.figures import Figure, legend_of, line_rows

# The rows of a model's history; see `brewline.training.tasks.audio_image`.
History = Sequence[Mapping[str, Any]]
_CHOICE = "dev/choice/"
_PLACE = f"{_CHOICE}frame_"
_FOLLOWED = {
    "entropy": ("dev, entropy of the frames that are chosen", "nats"),
    "margin": ("dev, by how much the chosen frame beats the next", "cosine"),
    "changed": ("dev, clips that choose another frame than before", "clips in %"),
}


def choice_figures(
    table: str, histories: Mapping[str, Mapping[str, History]], styles: Mapping[str, int]
) -> Iterator[Figure]:
    """Yields how often each place of a clip is chosen, and how that went over the steps.

    Args:
        table: Its name.
        histories: By row and by model, of those that learned from frames.
        styles: The line style of each row.
    """
    lines = [
        charts.Series(row, points, styles[row])
        for row, models in histories.items()
        if (points := _places(models))
    ]
    if lines:
        title = "dev, frames that are chosen, by their place in the clip"
        svg = charts.line_chart(lines, title, "frame", "clips in %", True)
        yield Figure.of((table, "choice", "frames"), title, svg, line_rows(lines), legend_of(lines))
    for name, (title, unit) in _FOLLOWED.items():
        lines = [
            charts.Series(f"{row}, {model}", points, styles[row])
            for row, models in histories.items()
            for model, history in models.items()
            if (points := _over_steps(history, f"{_CHOICE}{name}"))
        ]
        if lines:
            svg = charts.line_chart(lines, title, "step", unit, unit.endswith("%"))
            words = (table, "choice", name)
            yield Figure.of(words, title, svg, line_rows(lines), legend_of(lines))


def _places(models: Mapping[str, History]) -> list[tuple[float, float]]:
    """The share of each place at the last look at dev, the mean over models."""
    last = [[row for row in history if f"{_PLACE}1" in row][-1:] for history in models.values()]
    looks = [look for (look,) in filter(None, last)]
    most = max(
        (len([name for name in look if name.startswith(_PLACE)]) for look in looks), default=0
    )
    # Of a place that nobody chose behind the last that somebody did there is no number.
    return [
        (place, float(np.mean([look.get(f"{_PLACE}{place}", 0.0) for look in looks])))
        for place in range(1, most + 1)
    ]


def _over_steps(history: History, name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in history if row.get(name) is not None]
