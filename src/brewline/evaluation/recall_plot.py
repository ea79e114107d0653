"""Recall over K as a PNG, for MLflow and Prefect."""

import io
from collections.abc import Mapping, Sequence


def recall_png(
    curves: Mapping[tuple[str, str], Sequence[tuple[float, float]]], title: str
) -> bytes:
    """Draws recall@K as a PNG.

    Args:
        curves: (row, direction) to points (K, recall as a fraction).
        title: Stands above the plot.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for (row, direction), points in curves.items():
        ks = [k for k, _ in points]
        name = f"{row}, {direction.replace('_', ' ')}"
        axes.plot(ks, [100 * recall for _, recall in points], marker="o", label=name)
    axes.set(title=title, xlabel="K", ylabel="recall@K in %", ylim=(0, 100))
    axes.grid(alpha=0.3)
    if curves:
        axes.legend()
    buffer = io.BytesIO()
    # The version of matplotlib would otherwise stand in the file.
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
