"""What the models of a table are worth, from their vectors alone."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from brewline.config.evaluate import EvaluateParams
from brewline.config.experiments import TableParams
from brewline.core.errors import BrewlineError
from brewline.evaluation.asr_metrics import asr_metrics
from brewline.evaluation.bootstrap import Bootstrap
from brewline.evaluation.buckets import make_buckets, score_buckets
from brewline.evaluation.comparisons import compare
from brewline.evaluation.examples import (
    Texts,
    choose_examples,
    choose_pictures,
    make_example,
    make_picture_example,
)
from brewline.evaluation.model_scores import ModelScores, row_metrics, score_model
from brewline.evaluation.outputs import Evaluation, recall_rows
from brewline.evaluation.query_facts import QueryFacts
from brewline.evaluation.scores import SELECTION_METRIC
from brewline.evaluation.vectors import SplitEmbeddings
from brewline.speech.error_rates import Errors

_SPLITS = ("dev", "test")
# The first model that was asked, and the image of each utterance that it was asked about.
_Asked = tuple[str, dict[str, str]]
# By row, as the files of examples have it.
_Shown = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class ModelVectors:
    """The vectors of one model; `name` is `<experiment>/<seed-n|frozen>`."""

    row: str
    name: str
    splits: Mapping[str, SplitEmbeddings]


def score_table(
    models: Iterable[ModelVectors],
    texts: Mapping[str, Texts],
    facts: Mapping[str, QueryFacts],
    errors: Mapping[str, Errors],
    table: TableParams,
    contenders: Sequence[str],
    params: EvaluateParams,
) -> Evaluation:
    """Scores the models of a table on dev and test, one after the other.

    Args:
        models: May read each model's vectors when they are asked for; those of a row are its seeds.
        texts: What was heard and written, by utterance.
        facts: What the recordings of test are like, by utterance.
        errors: How those with a caption were heard, by utterance.
        table: Its comparisons, and what examples are chosen by.
        contenders: The rows among which the one that is best on dev chooses the examples.
        params: What is computed.

    Raises:
        BrewlineError: two models saw different utterances.
    """
    bootstrap = Bootstrap(params.bootstrap_samples, params.bootstrap_seed, params.confidence)
    scores: dict[str, dict[str, ModelScores]] = {}
    test: dict[str, SplitEmbeddings] = {}
    asked: dict[str, _Asked] = {}
    for model in models:
        _check_ids(model, asked, texts)
        found = score_model(model.splits, params.recall_at, bootstrap)
        scores.setdefault(model.row, {})[model.name] = found
        # Examples show one model of each row, the first.
        test.setdefault(model.row, model.splits["test"])
    by_model = {name: one for found in scores.values() for name, one in found.items()}
    by_row = {row: list(found.values()) for row, found in scores.items()}
    metrics = {row: row_metrics(found, bootstrap) for row, found in by_row.items()}
    shown = {row: found[0] for row, found in by_row.items()}
    best = max(contenders, key=lambda row: metrics[row][SELECTION_METRIC])
    examples, picture_examples = _examples(shown, test, texts, best, table.baseline, params)
    asr: dict[str, float] = {}
    for split, (_, image_of) in asked.items():
        asr |= asr_metrics(split, (errors[name] for name in image_of if name in errors))
    image_of = asked["test"][1]
    buckets = make_buckets(
        {name: facts[name] for name in image_of}, errors, image_of, params.min_bucket_images
    )
    return Evaluation(
        metrics=metrics,
        asr=asr,
        models={name: one.metrics for name, one in by_model.items()},
        dev_ranks={name: one.dev_ranks for name, one in by_model.items() if one.dev_ranks},
        test_ranks={name: one.rank_of for name, one in by_model.items()},
        comparisons=compare(by_row, table.pairs, bootstrap),
        examples=examples,
        picture_examples=picture_examples,
        recall_rows=list(recall_rows(metrics, params.recall_at)),
        bucket_rows=list(score_buckets(by_row, buckets, image_of, params, bootstrap)),
    )


def _examples(
    shown: Mapping[str, ModelScores],
    test: Mapping[str, SplitEmbeddings],
    texts: Mapping[str, Texts],
    best: str,
    baseline: str | None,
    params: EvaluateParams,
) -> tuple[_Shown, _Shown]:
    """What the first model of each row made of some recordings and pictures, the same for all."""
    chosen = choose_examples(shown, best, baseline, params)
    pictures = choose_pictures(shown[best], params)
    return (
        {
            row: [make_example(one, texts, test[row], scored.rank_of) for one in chosen]
            for row, scored in shown.items()
        },
        {
            row: [
                make_picture_example(one, texts, test[row], scored.rank_of_image)
                for one in pictures
            ]
            for row, scored in shown.items()
        },
    )


def _check_ids(model: ModelVectors, asked: dict[str, _Asked], texts: Mapping[str, Texts]) -> None:
    """Models are compared on the same utterances, and these are those of the manifest."""
    for split in _SPLITS:
        vectors = model.splits[split]
        own = dict(zip(vectors.utterance_ids, vectors.utterance_image_ids, strict=True))
        first, image_of = asked.setdefault(split, (model.name, own))
        if own != image_of:
            raise BrewlineError(
                f"{model.name} and {first} were measured on different utterances; run `dvc repro`"
            )
        unknown = next((one for one in own if one not in texts), None)
        if unknown is not None:
            raise BrewlineError(
                f"{model.name} was measured on utterance {unknown!r}, which the manifest does not "
                "have; run `dvc repro`"
            )
