"""What a model is worth on dev and test, and what a row of several seeds is worth."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brewline.evaluation.bootstrap import Bootstrap
from brewline.evaluation.query_ranks import QueryRanks
from brewline.evaluation.scores import score_retrieval
from brewline.evaluation.vectors import SplitEmbeddings


@dataclass(frozen=True)
class ModelScores:
    """The metrics of one model on dev and test.

    `drawn` is a metric in each sample of the bootstrap, from which intervals are made; `rank_of`
    the rank of the right image by utterance id, on test, and `rank_of_image` the best rank of an
    image's utterances; `dev_ranks` are all of dev.
    """

    metrics: dict[str, float]
    drawn: dict[str, NDArray[np.float64]]
    rank_of: dict[str, int]
    rank_of_image: dict[str, int]
    dev_ranks: QueryRanks | None


def score_model(
    splits: Mapping[str, SplitEmbeddings], recall_at: Sequence[int], bootstrap: Bootstrap
) -> ModelScores:
    """Scores the vectors of one model on dev and test."""
    found = {split: score_retrieval(splits[split], split, recall_at) for split in ("dev", "test")}
    return ModelScores(
        found["dev"].metrics | found["test"].metrics,
        {
            name: bootstrap.drawn(statistic)
            for one in found.values()
            for name, statistic in one.statistics.items()
        },
        found["test"].rank_of,
        found["test"].rank_of_image,
        found["dev"].dev_ranks,
    )


def row_metrics(models: Sequence[ModelScores], bootstrap: Bootstrap) -> dict[str, float]:
    """Means over seeds, with intervals over images and seeds, and deviations over seeds."""
    result: dict[str, float] = {"num_seeds": float(len(models))}
    for name in models[0].metrics:
        values = [model.metrics[name] for model in models]
        result[name] = float(np.mean(values))
        if len(models) > 1 and not name.endswith(("num_queries", "gallery_size")):
            result[f"{name}_std"] = float(np.std(values, ddof=1))
    for name in models[0].drawn:
        drawn = bootstrap.over_seeds([model.drawn[name] for model in models])
        result[f"{name}_low"], result[f"{name}_high"] = bootstrap.interval(drawn)
    return result
