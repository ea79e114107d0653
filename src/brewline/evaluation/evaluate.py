"""What the models of a corpus are worth, one after the other on dev and test."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from brewline.config.evaluate import EvaluateParams
from brewline.evaluation.bootstrap import Bootstrap, average, bootstrap_mean
from brewline.evaluation.comparisons import compare
from brewline.evaluation.embedding import SplitEmbeddings, embed_split
from brewline.evaluation.examples import choose_examples, make_example
from brewline.evaluation.outputs import Evaluation, recall_rows
from brewline.evaluation.scores import RetrievalScores, score_retrieval
from brewline.models.brewclip import BrewClip
from brewline.samples.collator import Collator
from brewline.samples.shards import Utterance


@dataclass(frozen=True)
class Candidate:
    """A model to evaluate; `seed` is None where nothing was trained."""

    variant: str
    seed: int | None
    model: BrewClip
    collator: Collator

    @property
    def name(self) -> str:
        """`<variant>/seed-<n>` or `<variant>/frozen`."""
        return f"{self.variant}/{'frozen' if self.seed is None else f'seed-{self.seed}'}"


def evaluate(
    candidates: Iterable[Candidate],
    read_split: Callable[[str, bool], Iterable[Utterance]],
    params: EvaluateParams,
) -> Evaluation:
    """Scores the models of one corpus on dev and test, one model after the other.

    Args:
        candidates: May load each model when it is asked for.
        read_split: Gives the utterances of a split, with encoder states or without.
        params: What is computed.
    """
    scores: dict[str, dict[str, RetrievalScores]] = {}
    test: dict[str, SplitEmbeddings] = {}
    for candidate in candidates:
        found = RetrievalScores({})
        for split in ("dev", "test"):
            embeddings = embed_split(
                candidate.model,
                candidate.collator,
                read_split(split, candidate.model.switches.acoustic),
                params.batch_size,
            )
            one = score_retrieval(embeddings, split, params.recall_at)
            found = RetrievalScores(
                found.metrics | one.metrics, found.by_image | one.by_image, one.rank_of
            )
        scores.setdefault(candidate.variant, {})[candidate.name] = found
        # Examples show one model of each variant, the first.
        test.setdefault(candidate.variant, embeddings)
    bootstrap = Bootstrap(params.bootstrap_samples, params.bootstrap_seed, params.confidence)
    metrics = {
        variant: _aggregate(list(models.values()), bootstrap) for variant, models in scores.items()
    }
    shown = {variant: next(iter(models.values())) for variant, models in scores.items()}
    chosen = choose_examples(shown, metrics, params)
    texts = {u.utterance_id: u for u in read_split("test", False) if u.utterance_id in chosen}
    return Evaluation(
        metrics=metrics,
        models={
            name: found.metrics for models in scores.values() for name, found in models.items()
        },
        comparisons=compare(
            {name: list(models.values()) for name, models in scores.items()}, bootstrap
        ),
        examples={
            variant: [
                make_example(texts[one], embeddings, shown[variant].rank_of[one]) for one in chosen
            ]
            for variant, embeddings in test.items()
        },
        recall_rows=list(recall_rows(metrics, params.recall_at)),
    )


def _aggregate(models: Sequence[RetrievalScores], bootstrap: Bootstrap) -> dict[str, float]:
    """Means over seeds, with intervals over images and deviations over seeds."""
    result: dict[str, float] = {"num_seeds": float(len(models))}
    for name in models[0].metrics:
        values = [model.metrics[name] for model in models]
        result[name] = float(np.mean(values))
        if len(models) > 1 and not name.endswith(("num_queries", "gallery_size")):
            result[f"{name}_std"] = float(np.std(values, ddof=1))
    for name in models[0].by_image:
        table = average([model.by_image[name] for model in models])
        result[f"{name}_low"], result[f"{name}_high"] = bootstrap_mean(table, bootstrap)
    return result
