"""What stage `score` writes about a table, and how it is read again."""

import collections
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from brewline.config import Params
from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path, read_stage_output, write_csv, write_json
from brewline.evaluation.query_ranks import QueryRanks
from brewline.tables.parquet import INT, TEXT, read_table, table_schema, write_table

# Under this name word error rates stand beside the rows.
ASR_KEY = "asr"
DEV_RANKS_FILE = "dev_ranks.json"
BUCKETS_FILE = "buckets.csv"
TEST_RANKS_FILE = "test_ranks.parquet"
TEST_RANKS = table_schema(model=TEXT, utterance_id=TEXT, rank=INT)
EXAMPLES_FILE = "examples.json"
PICTURE_EXAMPLES_FILE = "picture_examples.json"
SPEECH_TO_IMAGE = "speech_to_image"
IMAGE_TO_SPEECH = "image_to_speech"
DIRECTION_NAMES = {SPEECH_TO_IMAGE: "speech to image", IMAGE_TO_SPEECH: "image to speech"}

Metrics = dict[str, dict[str, dict[str, float]]]


@dataclass(frozen=True)
class Evaluation:
    """Everything that is reported of a table, ready to be written as files.

    `metrics` and `models` are metrics by row and by model, `asr` word error rates, `dev_ranks` the
    ranks of dev's queries by model, `test_ranks` those of the right image by model and utterance;
    `comparisons`, `examples`, `picture_examples`, `recall_rows` and `bucket_rows` are as the files
    of the same names hold them.
    """

    metrics: dict[str, dict[str, float]]
    asr: dict[str, float]
    models: dict[str, dict[str, float]]
    dev_ranks: dict[str, QueryRanks]
    comparisons: list[dict[str, Any]]
    examples: dict[str, list[dict[str, Any]]]
    picture_examples: dict[str, list[dict[str, Any]]]
    test_ranks: dict[str, dict[str, int]]
    recall_rows: list[dict[str, Any]]
    bucket_rows: list[dict[str, Any]]


def write_evaluation(evaluation: Evaluation, metrics_file: Path, folder: Path) -> None:
    """Writes everything that is reported of a table.

    Args:
        evaluation: What `score_table` found.
        metrics_file: `metrics/<table>.json`; word error rates stand beside the rows under `asr`.
        folder: `reports/evaluation/<table>`, replaced as a whole.
    """
    with atomic_path(folder) as partial:
        partial.mkdir()
        write_json(partial / "models.json", evaluation.models)
        ranks = {name: asdict(one) for name, one in evaluation.dev_ranks.items()}
        # Two numbers for each query and model: on one line, not on two million.
        (partial / DEV_RANKS_FILE).write_text(json.dumps(ranks, sort_keys=True), encoding="utf-8")
        write_json(partial / "comparisons.json", evaluation.comparisons)
        write_json(partial / EXAMPLES_FILE, evaluation.examples)
        write_json(partial / PICTURE_EXAMPLES_FILE, evaluation.picture_examples)
        rows = (
            {"model": model, "utterance_id": name, "rank": rank}
            for model, rank_of in evaluation.test_ranks.items()
            for name, rank in rank_of.items()
        )
        write_table(partial / TEST_RANKS_FILE, TEST_RANKS, rows)
        write_csv(partial / "recall.csv", evaluation.recall_rows)
        write_csv(partial / BUCKETS_FILE, evaluation.bucket_rows)
    write_json(metrics_file, {**evaluation.metrics, ASR_KEY: evaluation.asr})


def _read_csv(path: Path) -> list[dict[str, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; run `dvc repro score`") from None
    return list(csv.DictReader(io.StringIO(text)))


def recall_rows(
    metrics: Mapping[str, Mapping[str, float]], recall_at: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yields the rows of `recall.csv`: a point of a curve each."""
    names = {SPEECH_TO_IMAGE: "recall_at", IMAGE_TO_SPEECH: "any_hit_recall_at"}
    for row, values in metrics.items():
        for split in ("dev", "test"):
            for direction, name in names.items():
                for k in recall_at:
                    recall = values[f"{split}/{direction}/{name}_{k}"]
                    yield {
                        "row": row,
                        "split": split,
                        "direction": direction,
                        "k": k,
                        "recall": recall,
                    }


def read_metrics(params: Params, metrics_dir: Path) -> Metrics:
    """Reads `metrics/<table>.json` of every table.

    Returns:
        Table to row to metric to value, in the order of `params.yaml`; the word error rates stand
        under the row `asr`.

    Raises:
        BrewlineError: a file is missing, or lacks a row.
    """
    metrics: Metrics = {}
    for name, table in params.tables.items():
        path = metrics_dir / f"{name}.json"
        found = read_stage_output(path, "score")
        missing = [row for row in table.rows if row not in found]
        if missing:
            raise BrewlineError(f"{path} lacks {', '.join(missing)}; run `dvc repro score`")
        metrics[name] = {row: found[row] for row in table.rows}
        metrics[name][ASR_KEY] = found.get(ASR_KEY, {})
    return metrics


def read_recall(path: Path, split: str) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """Reads the curves of one split from `recall.csv`.

    Returns:
        (row, direction) to points (K, recall as a fraction), by rising K.

    Raises:
        BrewlineError: the file is missing.
    """
    curves: dict[tuple[str, str], list[tuple[float, float]]] = collections.defaultdict(list)
    for point in _read_csv(path):
        if point["split"] == split:
            key = (point["row"], point["direction"])
            curves[key].append((float(point["k"]), float(point["recall"])))
    return {key: sorted(points) for key, points in curves.items()}


def read_buckets(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of `buckets.csv`, see `score_buckets`; no recall is None.

    Raises:
        BrewlineError: the file is missing.
    """
    for found in _read_csv(path):
        counts = {name: int(found[name]) for name in ("num_queries", "num_images", "k")}
        values = {
            name: float(found[name]) if found[name] else None for name in ("recall", "low", "high")
        }
        yield {**found, **counts, **values}


def read_examples(path: Path, rows: Sequence[str]) -> list[dict[str, dict[str, Any]]]:
    """Reads `examples.json` or `picture_examples.json`.

    Returns:
        For each query the entry of every row in `rows`.
    """
    found = read_stage_output(path, "score")
    missing = [row for row in rows if row not in found]
    if missing:
        raise BrewlineError(f"{path} lacks {', '.join(missing)}; run `dvc repro score`")
    # The rows have the same queries in one order.
    return [
        dict(zip(rows, each, strict=True)) for each in zip(*(found[r] for r in rows), strict=True)
    ]


def read_test_ranks(path: Path) -> dict[str, dict[str, int]]:
    """Reads `test_ranks.parquet`: by model and utterance, the rank of the right image.

    Raises:
        BrewlineError: the file is missing or damaged.
    """
    ranks: dict[str, dict[str, int]] = {}
    for row in read_table(path):
        ranks.setdefault(row["model"], {})[row["utterance_id"]] = row["rank"]
    return ranks


def read_model_metrics(
    params: Params, corpus: str, evaluation_dir: Path
) -> dict[str, dict[str, float]]:
    """Reads `models.json` of the tables on a corpus: metrics by model, as in `mini-full/seed-0`.

    Args:
        params: The tables.
        corpus: What the models were measured on.
        evaluation_dir: `reports/evaluation`.

    Raises:
        BrewlineError: a file is missing.
    """
    models: dict[str, dict[str, float]] = {}
    for name, table in params.tables.items():
        if table.data == corpus:
            models |= read_stage_output(evaluation_dir / name / "models.json", "score")
    return models


def read_dev_ranks(params: Params, corpus: str, model: str, evaluation_dir: Path) -> QueryRanks:
    """Reads `dev_ranks.json` of the tables on a corpus: how a model answered each query of dev.

    Args:
        params: The tables.
        corpus: What the model was measured on.
        model: As in `mini-full/seed-0`.
        evaluation_dir: `reports/evaluation`.

    Raises:
        BrewlineError: a file is missing, or none has the model.
    """
    for name in params.tables_on(corpus):
        found = read_stage_output(evaluation_dir / name / DEV_RANKS_FILE, "score")
        if model in found:
            return QueryRanks(**found[model])
    raise BrewlineError(
        f"the ranks of {model} on dev of {corpus} are missing; run `dvc repro score`"
    )
