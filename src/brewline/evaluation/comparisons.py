"""Paired comparisons of the rows of a table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from brewline.evaluation.bootstrap import Bootstrap
from brewline.evaluation.model_scores import ModelScores

RECALL_METRICS = tuple(
    f"{split}/{name}"
    for split in ("dev", "test")
    for name in ("speech_to_image/recall_at_1", "image_to_speech/any_hit_recall_at_1")
)


def compare(
    scores: Mapping[str, Sequence[ModelScores]],
    pairs: Iterable[tuple[str, str]],
    bootstrap: Bootstrap,
    metrics: Sequence[str] = RECALL_METRICS,
) -> list[dict[str, Any]]:
    """Compares metrics, mostly recall@1 both ways on dev and test, paired over images.

    Several seeds count as their mean, and are drawn for each row apart.

    Args:
        scores: Of each row's models.
        pairs: Rows: the first of each is compared with the second.
        bootstrap: How intervals are estimated.
        metrics: Those that all rows have.
    """
    comparisons = []
    for row, baseline in pairs:
        for metric in metrics:
            drawn = [
                bootstrap.over_seeds([one.drawn[metric] for one in scores[name]], stream)
                for stream, name in enumerate((row, baseline))
            ]
            ours, theirs = (
                np.mean([one.metrics[metric] for one in scores[name]]) for name in (row, baseline)
            )
            low, high = bootstrap.interval(drawn[0] - drawn[1])
            comparisons.append(
                {
                    "row": row,
                    "baseline": baseline,
                    "metric": metric,
                    "difference": float(ours - theirs),
                    "low": low,
                    "high": high,
                }
            )
    return comparisons
