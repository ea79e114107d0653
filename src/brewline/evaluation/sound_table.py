"""What the models of a table of sounds are worth, from their vectors alone, and the files of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewline.config import Params
from brewline.config.evaluate import EvaluateParams
from brewline.config.experiments import TableParams
from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path, read_stage_output, write_json
from brewline.evaluation.bootstrap import Bootstrap
from brewline.evaluation.comparisons import compare
from brewline.evaluation.model_scores import ModelScores, row_metrics
from brewline.evaluation.sound_scores import score_sounds
from brewline.evaluation.sound_vectors import SoundEmbeddings

_SPLITS = ("dev", "test")
# What rows are compared by, as far as they have it.
_COMPARED = ("_to_", "/time/")


@dataclass(frozen=True)
class SoundModelVectors:
    """The vectors of one model; `name` is `<experiment>/<seed-n>`."""

    row: str
    name: str
    splits: Mapping[str, SoundEmbeddings]


@dataclass(frozen=True)
class SoundEvaluation:
    """Metrics by row and by model, and comparisons as `compare` gives them."""

    metrics: dict[str, dict[str, float]]
    models: dict[str, dict[str, float]]
    comparisons: list[dict[str, Any]]


def score_sound_table(
    models: Iterable[SoundModelVectors], table: TableParams, params: EvaluateParams
) -> SoundEvaluation:
    """Scores the models of a table on dev and test, one after the other.

    Means are over seeds, intervals over clips and seeds, as in other tables.

    Args:
        models: May read each model's vectors when they are asked for; those of a row are its seeds.
        table: Its comparisons.
        params: What is computed.

    Raises:
        BrewlineError: two models heard different clips.
    """
    bootstrap = Bootstrap(params.bootstrap_samples, params.bootstrap_seed, params.confidence)
    scores: dict[str, dict[str, ModelScores]] = {}
    first: tuple[str, dict[str, list[str]]] | None = None
    for model in models:
        heard = {split: model.splits[split].clip_ids for split in _SPLITS}
        first = first or (model.name, heard)
        if heard != first[1]:
            raise BrewlineError(
                f"{model.name} and {first[0]} were measured on different clips; run `dvc repro`"
            )
        scores.setdefault(model.row, {})[model.name] = _score(model, params, bootstrap)
    by_row = {row: list(found.values()) for row, found in scores.items()}
    metrics = {row: row_metrics(found, bootstrap) for row, found in by_row.items()}
    comparisons = []
    for pair in table.pairs:
        known = [by_row[row][0].drawn.keys() for row in pair]
        names = [
            name
            for name in by_row[pair[0]][0].drawn
            if name in known[1] and any(part in name for part in _COMPARED) and _is_headline(name)
        ]
        comparisons += compare(by_row, [pair], bootstrap, names)
    return SoundEvaluation(
        metrics,
        {name: one.metrics for found in scores.values() for name, one in found.items()},
        comparisons,
    )


def _is_headline(name: str) -> bool:
    return name.endswith(("recall_at_1", "_accuracy"))


def _score(model: SoundModelVectors, params: EvaluateParams, bootstrap: Bootstrap) -> ModelScores:
    found = [score_sounds(model.splits[split], split, params.recall_at) for split in _SPLITS]
    metrics = {name: value for one in found for name, value in one.metrics.items()}
    drawn = {
        name: bootstrap.drawn(statistic)
        for one in found
        for name, statistic in one.statistics.items()
    }
    return ModelScores(metrics, drawn, {}, {}, None)


def sound_report_folder(name: str) -> Path:
    """Where everything of a table of sounds stands but its numbers."""
    return Path("reports/sounds") / name


def write_sound_evaluation(evaluation: SoundEvaluation, name: str, project: Path = Path()) -> None:
    """Writes `metrics/sounds/<table>.json`, and `models.json` and `comparisons.json` of it."""
    with atomic_path(project / sound_report_folder(name)) as partial:
        partial.mkdir()
        write_json(partial / "models.json", evaluation.models)
        write_json(partial / "comparisons.json", evaluation.comparisons)
    write_json(project / f"metrics/sounds/{name}.json", evaluation.metrics)


def read_sound_metrics(params: Params, metrics_dir: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Reads the numbers of all tables of sounds, below `metrics`: by table, row and metric.

    Raises:
        BrewlineError: a file is missing, or lacks a row.
    """
    metrics = {}
    for name, table in params.sound_tables.items():
        path = metrics_dir / f"sounds/{name}.json"
        found = read_stage_output(path, "score_sounds")
        missing = [row for row in table.rows if row not in found]
        if missing:
            raise BrewlineError(f"{path} lacks {', '.join(missing)}; run `dvc repro score_sounds`")
        metrics[name] = {row: found[row] for row in table.rows}
    return metrics
