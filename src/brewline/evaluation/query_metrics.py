"""Metrics of dev from how each of its queries was answered."""

import re
from collections.abc import Sequence

import numpy as np

from brewline.evaluation.bootstrap import ByImage, sum_by_image
from brewline.evaluation.query_ranks import QueryRanks
from brewline.evaluation.ranks import Ranks

# The means over queries that ranks give, by name: K is any number.
QUERY_METRIC = (
    r"^dev/(mean_recall_at_1|speech_to_image/recall_at_[1-9]\d*"
    r"|image_to_speech/(any_hit_)?recall_at_[1-9]\d*)$"
)


def query_ranks(
    forward: Ranks, backward: Ranks, image_of: Sequence[str], image_ids: Sequence[str]
) -> QueryRanks:
    """Sorts the ranks of both directions by image.

    Args:
        forward: Of utterances that ask for their image.
        backward: Of images that ask for their utterances.
        image_of: The image of each utterance.
        image_ids: The images.
    """
    of_image: dict[str, list[int]] = {one: [] for one in image_ids}
    for image, rank in zip(image_of, forward.best.tolist(), strict=True):
        of_image[image].append(rank)
    of_utterances: dict[str, list[int]] = {one: [] for one in image_ids}
    for query, rank in zip(backward.query.tolist(), backward.rank.tolist(), strict=True):
        of_utterances[image_ids[query]].append(rank)
    return QueryRanks(of_image, {one: sorted(ranks) for one, ranks in of_utterances.items()})


def parts_of(metric: str, ranks: QueryRanks) -> list[ByImage]:
    """What a metric is the mean of: one mean over queries, or one for each direction.

    Args:
        metric: One that `QUERY_METRIC` names.
        ranks: Of a model on dev.
    """
    assert re.match(QUERY_METRIC, metric), metric
    if metric == "dev/mean_recall_at_1":
        names = ("dev/speech_to_image/recall_at_1", "dev/image_to_speech/any_hit_recall_at_1")
        return [part for name in names for part in parts_of(name, ranks)]
    _, direction, name = metric.split("/")
    k = int(name.rpartition("_")[2])
    if direction == "speech_to_image":
        pairs = [(one, float(rank <= k)) for one, all_ in ranks.of_image.items() for rank in all_]
    elif name.startswith("any_hit"):
        pairs = [(image, float(all_[0] <= k)) for image, all_ in ranks.of_utterances.items()]
    else:
        pairs = [
            (image, sum(rank <= k for rank in all_) / len(all_))
            for image, all_ in ranks.of_utterances.items()
        ]
    values = np.array([value for _, value in pairs], np.float64)
    return [sum_by_image(values, [image for image, _ in pairs])]
