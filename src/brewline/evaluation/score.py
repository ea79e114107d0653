"""What the models of a table are worth, from their vectors alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from brewline.config.evaluate import EvaluateParams
from brewline.config.experiments import TableParams
from brewline.core.errors import BrewlineError
from brewline.evaluation.asr_metrics import asr_metrics
from brewline.evaluation.bootstrap import Bootstrap, average, bootstrap_mean
from brewline.evaluation.comparisons import compare
from brewline.evaluation.examples import Texts, choose_examples, make_example
from brewline.evaluation.outputs import Evaluation, recall_rows
from brewline.evaluation.scores import RetrievalScores, score_retrieval
from brewline.evaluation.vectors import SplitEmbeddings

_SPLITS = ("dev", "test")


@dataclass(frozen=True)
class ModelVectors:
    """The vectors of one model; `name` is `<experiment>/<seed-n|frozen>`."""

    row: str
    name: str
    splits: Mapping[str, SplitEmbeddings]


def score_table(
    models: Iterable[ModelVectors],
    texts: Mapping[str, Texts],
    table: TableParams,
    params: EvaluateParams,
) -> Evaluation:
    """Scores the models of a table on dev and test, one after the other.

    Args:
        models: May read each model's vectors when they are asked for; those of a row are its seeds.
        texts: What was heard and written, by utterance.
        table: Its comparisons, and what examples are chosen by.
        params: What is computed.

    Raises:
        BrewlineError: two models saw different utterances.
    """
    scores: dict[str, dict[str, RetrievalScores]] = {}
    test: dict[str, SplitEmbeddings] = {}
    asked: dict[str, tuple[str, list[str]]] = {}
    for model in models:
        found = RetrievalScores({})
        for split in _SPLITS:
            embeddings = model.splits[split]
            first, ids = asked.setdefault(split, (model.name, embeddings.utterance_ids))
            _check_ids(model.name, first, embeddings.utterance_ids, ids, texts)
            one = score_retrieval(embeddings, split, params.recall_at)
            found = RetrievalScores(
                found.metrics | one.metrics,
                found.by_image | one.by_image,
                one.rank_of,
                found.dev_ranks or one.dev_ranks,
            )
        scores.setdefault(model.row, {})[model.name] = found
        # Examples show one model of each row, the first.
        test.setdefault(model.row, model.splits["test"])
    bootstrap = Bootstrap(params.bootstrap_samples, params.bootstrap_seed, params.confidence)
    by_model = {name: one for found in scores.values() for name, one in found.items()}
    by_row = {row: list(found.values()) for row, found in scores.items()}
    metrics = {row: _aggregate(found, bootstrap) for row, found in by_row.items()}
    shown = {row: found[0] for row, found in by_row.items()}
    chosen = choose_examples(shown, metrics, table.baseline, params)
    asr: dict[str, float] = {}
    for split, (_, ids) in asked.items():
        asr |= asr_metrics(split, {one: texts[one] for one in ids})
    return Evaluation(
        metrics=metrics,
        asr=asr,
        models={name: one.metrics for name, one in by_model.items()},
        dev_ranks={name: one.dev_ranks for name, one in by_model.items() if one.dev_ranks},
        comparisons=compare(by_row, table.pairs, bootstrap),
        examples={
            row: [
                make_example(one, texts[one], embeddings, shown[row].rank_of[one]) for one in chosen
            ]
            for row, embeddings in test.items()
        },
        recall_rows=list(recall_rows(metrics, params.recall_at)),
    )


def _check_ids(
    model: str, first: str, own: Sequence[str], ids: Sequence[str], texts: Mapping[str, Texts]
) -> None:
    """Models are compared on the same utterances, and these are those of the manifest."""
    if set(ids) != set(own):
        raise BrewlineError(
            f"{model} and {first} were measured on different utterances; run `dvc repro`"
        )
    unknown = next((one for one in own if one not in texts), None)
    if unknown is not None:
        raise BrewlineError(
            f"{model} was measured on utterance {unknown!r}, which the manifest does not have; run "
            "`dvc repro`"
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
