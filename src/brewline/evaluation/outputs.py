"""What stage `evaluate` writes about a corpus, and how it is read again."""

import collections
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewline.config import Params
from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path, read_stage_output, write_json

# Under this name word error rates stand beside the variants.
ASR_KEY = "asr"
SPEECH_TO_IMAGE = "speech_to_image"
IMAGE_TO_SPEECH = "image_to_speech"
DIRECTION_NAMES = {SPEECH_TO_IMAGE: "speech to image", IMAGE_TO_SPEECH: "image to speech"}

Metrics = dict[str, dict[str, dict[str, float]]]


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
    write_json(metrics_file, {**evaluation.metrics, ASR_KEY: dict(asr)})


def recall_rows(
    metrics: Mapping[str, Mapping[str, float]], recall_at: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yields the rows of `recall.csv`: a point of a curve each."""
    names = {SPEECH_TO_IMAGE: "recall_at", IMAGE_TO_SPEECH: "any_hit_recall_at"}
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


def read_metrics(params: Params, metrics_dir: Path) -> Metrics:
    """Reads `metrics/<corpus>.json` of every corpus in the lists.

    Returns:
        Corpus to variant to metric to value, in the order of `params.yaml`; the word error rates
        stand under the variant `asr`.

    Raises:
        BrewlineError: a file is missing, or lacks a variant of the lists.
    """
    metrics: Metrics = {}
    for corpus in params.retrieval_corpora:
        path = metrics_dir / f"{corpus}.json"
        found = read_stage_output(path, "evaluate")
        names = params.retrieval_corpora[corpus]
        missing = [name for name in names if name not in found]
        if missing:
            raise BrewlineError(f"{path} lacks {', '.join(missing)}; run `dvc repro evaluate`")
        metrics[corpus] = {name: found[name] for name in names}
        metrics[corpus][ASR_KEY] = found.get(ASR_KEY, {})
    return metrics


def read_recall(path: Path, split: str) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Reads the curves of one split from `recall.csv`.

    Returns:
        (variant, direction) to points (K, recall as a fraction), by rising K.

    Raises:
        BrewlineError: the file is missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; run `dvc repro evaluate`") from None
    curves: dict[tuple[str, str], list[tuple[float, float]]] = collections.defaultdict(list)
    for row in csv.DictReader(io.StringIO(text)):
        if row["split"] == split:
            key = (row["variant"], row["direction"])
            curves[key].append((float(row["k"]), float(row["recall"])))
    return {key: sorted(points) for key, points in curves.items()}


def read_examples(path: Path, names: Sequence[str]) -> list[dict[str, dict[str, Any]]]:
    """Reads `examples.json`.

    Returns:
        For each recording the entry of every variant in `names`.
    """
    found = read_stage_output(path, "evaluate")
    missing = [name for name in names if name not in found]
    if missing:
        raise BrewlineError(f"{path} lacks {', '.join(missing)}; run `dvc repro evaluate`")
    by_variant = {name: {entry["utterance_id"]: entry for entry in found[name]} for name in names}
    order = [entry["utterance_id"] for entry in found[names[0]]]
    return [{name: by_variant[name][utterance_id] for name in names} for utterance_id in order]


def read_model_metrics(evaluation_dir: Path, corpus: str) -> dict[str, dict[str, float]]:
    """Reads `models.json`: metrics by model, as in `full/seed-0`.

    Args:
        evaluation_dir: `reports/evaluation`.
        corpus: One of the retrieval corpora.

    Raises:
        BrewlineError: the file is missing.
    """
    models: dict[str, dict[str, float]] = read_stage_output(
        evaluation_dir / corpus / "models.json", "evaluate"
    )
    return models
