"""What the models of a corpus are worth: metrics, comparisons, examples, word error rates."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brewline.config.params import EvaluateParams
from brewline.core.files import atomic_path, write_json
from brewline.evaluation.embedding import (
    SELECTION_METRIC,
    Measures,
    SplitEmbeddings,
    embed_split,
    measure,
)
from brewline.evaluation.ranks import Bootstrap, average, bootstrap_difference, bootstrap_mean
from brewline.models.brewclip import BrewClip
from brewline.samples.collator import Collator
from brewline.samples.shards import Utterance
from brewline.speech.error_rates import Rate, align

ZERO_SHOT = "zero-shot"
_NUM_SHOWN = 5


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


@dataclass(frozen=True)
class Evaluation:
    """Everything that is reported of a corpus, ready to be written as files.

    `metrics` and `models` are metrics by variant and by model; `comparisons`, `examples` and
    `recall_rows` are as the files of the same names hold them.
    """

    metrics: dict[str, dict[str, float]]
    models: dict[str, dict[str, float]]
    comparisons: list[dict[str, Any]]
    examples: dict[str, list[dict[str, Any]]]
    recall_rows: list[dict[str, Any]]


def evaluate(
    candidates: Iterable[Candidate],
    read_split: Callable[[str, bool], Iterable[Utterance]],
    params: EvaluateParams,
) -> Evaluation:
    """Measures the models of one corpus on dev and test, one model after the other.

    Args:
        candidates: May load each model when it is asked for.
        read_split: Gives the utterances of a split, with encoder states or without.
        params: What to measure.
    """
    measures: dict[str, dict[str, Measures]] = {}
    test: dict[str, SplitEmbeddings] = {}
    for candidate in candidates:
        found = Measures({})
        for split in ("dev", "test"):
            embeddings = embed_split(
                candidate.model,
                candidate.collator,
                read_split(split, candidate.model.switches.acoustic),
                params.batch_size,
            )
            one = measure(embeddings, split, params.recall_at)
            found = Measures(
                found.metrics | one.metrics, found.by_image | one.by_image, one.rank_of
            )
        measures.setdefault(candidate.variant, {})[candidate.name] = found
        # Examples show one model of each variant, the first.
        test.setdefault(candidate.variant, embeddings)
    bootstrap = Bootstrap(params.bootstrap_samples, params.bootstrap_seed, params.confidence)
    metrics = {
        variant: _aggregate(list(models.values()), bootstrap)
        for variant, models in measures.items()
    }
    shown = {variant: next(iter(models.values())) for variant, models in measures.items()}
    chosen = choose_examples(shown, metrics, params)
    texts = {u.utterance_id: u for u in read_split("test", False) if u.utterance_id in chosen}
    return Evaluation(
        metrics=metrics,
        models={
            name: found.metrics for models in measures.values() for name, found in models.items()
        },
        comparisons=compare(
            {name: list(models.values()) for name, models in measures.items()}, bootstrap
        ),
        examples={
            variant: [
                _example(texts[one], embeddings, shown[variant].rank_of[one]) for one in chosen
            ]
            for variant, embeddings in test.items()
        },
        recall_rows=list(_recall_rows(metrics, params.recall_at)),
    )


def write_evaluation(
    evaluation: Evaluation, asr: Mapping[str, float], metrics_file: Path, folder: Path
) -> None:
    """Writes everything that is reported of a corpus.

    Args:
        evaluation: What `evaluate` found.
        asr: Word error rates; they stand beside the variants under `asr`.
        metrics_file: `metrics/<corpus>.json`.
        folder: `reports/evaluation/<corpus>`, replaced as a whole.
    """
    with atomic_path(folder) as partial:
        partial.mkdir()
        write_json(partial / "models.json", evaluation.models)
        write_json(partial / "comparisons.json", evaluation.comparisons)
        write_json(partial / "examples.json", evaluation.examples)
        with (partial / "recall.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(evaluation.recall_rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(evaluation.recall_rows)
    write_json(metrics_file, {**evaluation.metrics, "asr": dict(asr)})


def _aggregate(models: Sequence[Measures], bootstrap: Bootstrap) -> dict[str, float]:
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


def compare(
    measures: Mapping[str, Sequence[Measures]], bootstrap: Bootstrap
) -> list[dict[str, Any]]:
    """Compares recall@1 both ways, on dev and test, paired over images.

    Every variant against zero-shot, and `full` against `prompted`, where both exist. Several
    seeds count as their mean.
    """
    pairs = [(name, ZERO_SHOT) for name in measures if name != ZERO_SHOT]
    pairs = [*pairs, ("full", "prompted")]
    comparisons = []
    for variant, baseline in pairs:
        if variant not in measures or baseline not in measures:
            continue
        for metric in (
            f"{split}/{name}"
            for split in ("dev", "test")
            for name in ("speech_to_image/recall_at_1", "image_to_speech/any_hit_recall_at_1")
        ):
            ours, theirs = (
                average([one.by_image[metric] for one in measures[name]])
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


def choose_examples(
    shown: Mapping[str, Measures],
    metrics: Mapping[str, Mapping[str, float]],
    params: EvaluateParams,
) -> list[str]:
    """Chooses test utterances to show: half by lot, half where two variants differ most.

    The two are zero-shot and `full`, or else the variant that is best on dev.
    """
    ids = sorted(next(iter(shown.values())).rank_of)
    rng = np.random.default_rng(params.bootstrap_seed)
    num_drawn = min(len(ids), (params.num_examples + 1) // 2)
    drawn = [ids[index] for index in sorted(rng.permutation(len(ids))[:num_drawn])]
    others = [name for name in shown if name != ZERO_SHOT]
    if ZERO_SHOT not in shown or not others:
        return drawn
    best = "full" if "full" in others else max(others, key=lambda v: metrics[v][SELECTION_METRIC])
    ours, theirs = shown[best].rank_of, shown[ZERO_SHOT].rank_of
    left = sorted(set(ids) - set(drawn), key=lambda one: (-abs(ours[one] - theirs[one]), one))
    return drawn + left[: params.num_examples - num_drawn]


def _example(utterance: Utterance, embeddings: SplitEmbeddings, rank: int) -> dict[str, Any]:
    row = embeddings.utterance_ids.index(utterance.utterance_id)
    scores = embeddings.image_embeddings @ embeddings.utterance_embeddings[row]
    top = np.argsort(-scores, kind="stable")[:_NUM_SHOWN]
    return {
        "utterance_id": utterance.utterance_id,
        "image_id": utterance.image_id,
        "transcript": utterance.transcript,
        "caption": utterance.caption,
        "rank": rank,
        "top": [
            {"image_id": embeddings.image_ids[index], "score": float(scores[index])}
            for index in top
        ],
    }


def _recall_rows(
    metrics: Mapping[str, Mapping[str, float]], recall_at: Sequence[int]
) -> Iterator[dict[str, Any]]:
    names = {"speech_to_image": "recall_at", "image_to_speech": "any_hit_recall_at"}
    for variant, values in metrics.items():
        for split in ("dev", "test"):
            for direction, name in names.items():
                for k in recall_at:
                    recall = values[f"{split}/{direction}/{name}_{k}"]
                    yield {
                        "variant": variant,
                        "split": split,
                        "direction": direction,
                        "k": k,
                        "recall": recall,
                    }


def asr_metrics(split: str, utterances: Iterable[Utterance]) -> dict[str, float]:
    """Word and character error rates of the transcripts of a split; see `align`.

    Returns:
        `<split>/asr/wer`, `<split>/asr/cer` and `<split>/asr/num_utterances`; nothing where no
        utterance has a caption.
    """
    rate = Rate()
    for heard in align((one.utterance_id, one.caption, one.transcript) for one in utterances):
        rate.add(heard)
    if not rate.num_recordings:
        return {}
    return {
        f"{split}/asr/wer": rate.wer,
        f"{split}/asr/cer": rate.cer,
        f"{split}/asr/num_utterances": float(rate.num_recordings),
    }
