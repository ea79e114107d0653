"""Paired comparisons of the rows of a table."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from brewline.evaluation.bootstrap import Bootstrap, average, bootstrap_difference
from brewline.evaluation.scores import RetrievalScores

_METRICS = tuple(
    f"{split}/{name}"
    for split in ("dev", "test")
    for name in ("speech_to_image/recall_at_1", "image_to_speech/any_hit_recall_at_1")
)


def compare(
    scores: Mapping[str, Sequence[RetrievalScores]],
    pairs: Iterable[tuple[str, str]],
    bootstrap: Bootstrap,
) -> list[dict[str, Any]]:
    """Compares recall@1 both ways, on dev and test, paired over images.

    Several seeds count as their mean.

    Args:
        scores: Of each row's models.
        pairs: Rows: the first of each is compared with the second.
        bootstrap: How intervals are estimated.
    """
    comparisons = []
    for row, baseline in pairs:
        for metric in _METRICS:
            ours, theirs = (
                average([one.by_image[metric] for one in scores[name]]) for name in (row, baseline)
            )
            difference, low, high = bootstrap_difference(ours, theirs, bootstrap)
            comparisons.append(
                {
                    "row": row,
                    "baseline": baseline,
                    "metric": metric,
                    "difference": difference,
                    "low": low,
                    "high": high,
                }
            )
    return comparisons
