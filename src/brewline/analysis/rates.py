"""Recall of recordings that are alike in a number: an error rate, or what a crop loses."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from brewline.evaluation.bootstrap import Bootstrap
from brewline.evaluation.buckets import mean_recall

# By row, of each of its models: the rank of the right image by utterance id.
RowRanks = Mapping[str, Sequence[Mapping[str, int]]]


def recall_between(
    ends: Sequence[float],
    value_of: Mapping[str, float],
    ranks: RowRanks,
    image_of: Mapping[str, str],
    k: int,
    min_images: int,
    bootstrap: Bootstrap,
) -> Iterator[dict[str, Any]]:
    """Yields recall@k of the recordings between two values, for each row.

    Args:
        ends: Upper ends, rising; a value that is one belongs below it.
        value_of: By utterance id: from 0 to the last end.
        ranks: Of the rows.
        image_of: The image of each recording.
        k: How many ranks are a hit.
        min_images: Of fewer, no rate is given.
        bootstrap: How intervals are estimated.
    """
    place_of = {name: int(np.searchsorted(ends, value)) for name, value in value_of.items()}
    for place, end in enumerate(ends):
        names = [name for name, found in place_of.items() if found == place]
        if not names:
            continue
        num_images = len({image_of[name] for name in names})
        for row, models in ranks.items():
            found: Mapping[str, float | None] = {"recall": None, "low": None, "high": None}
            if num_images >= min_images:
                found = mean_recall(names, models, image_of, k, bootstrap)
            yield {
                "from": ends[place - 1] if place else 0.0,
                "to": end,
                "mean": float(np.mean([value_of[name] for name in names])),
                "row": row,
                "num_queries": len(names),
                "num_images": num_images,
                **found,
            }
