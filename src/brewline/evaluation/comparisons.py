"""Paired comparisons of variants."""

from collections.abc import Mapping, Sequence
from typing import Any

from brewline.config.models import UNTRAINED
from brewline.evaluation.bootstrap import Bootstrap, average, bootstrap_difference
from brewline.evaluation.scores import RetrievalScores


def compare(
    scores: Mapping[str, Sequence[RetrievalScores]], bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Compares recall@1 both ways, on dev and test, paired over images.

    Every variant against zero-shot, and `full` against `prompted`, where both exist. Several
    seeds count as their mean.
    """
    pairs = [(name, UNTRAINED) for name in scores if name != UNTRAINED]
    pairs = [*pairs, ("full", "prompted")]
    comparisons = []
    for variant, baseline in pairs:
        if variant not in scores or baseline not in scores:
            continue
        for metric in (
            f"{split}/{name}"
            for split in ("dev", "test")
            for name in ("speech_to_image/recall_at_1", "image_to_speech/any_hit_recall_at_1")
        ):
            ours, theirs = (
                average([one.by_image[metric] for one in scores[name]])
                for name in (variant, baseline)
            )
            difference, low, high = bootstrap_difference(ours, theirs, bootstrap)
            comparisons.append(
                {
                    "variant": variant,
                    "baseline": baseline,
                    "metric": metric,
                    "difference": difference,
                    "low": low,
                    "high": high,
                }
            )
    return comparisons
