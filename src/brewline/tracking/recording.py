"""The run of a model, made or completed from the model's files."""

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewline.config import Params
from brewline.config.synthetic import synthetic_notice
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json, sha256_file, sha256_tree
from brewline.core.locks import locked
from brewline.evaluation.example_page import examples_page
from brewline.evaluation.outputs import read_recall
from brewline.evaluation.recall_plot import recall_png
from brewline.evaluation.sound_table import sound_report_folder
from brewline.media.corpus_media import project_media
from brewline.models.names import EXTERNAL, SKIPPED_FILE, model_folder, model_names
from brewline.tracking import runs
from brewline.tracking.facts import (
    external_facts,
    metric_in_mlflow,
    model_facts,
    model_key,
    run_name,
)
from brewline.tracking.finished_run import complete_run, record_numbers
from brewline.tracking.pipeline_runs import find_or_make_parent, log_headline, log_report
from brewline.tracking.probe_run import record_probes
from brewline.tracking.store import Store, harmless, lock_file, open_store, tracking_uri
from brewline.tracking.transcription_run import record_transcriptions

if TYPE_CHECKING:
    from mlflow.entities import Run


@dataclass(frozen=True)
class EvaluationFiles:
    """What `score` wrote about a row of a table.

    `folder` is `reports/evaluation/<table>`; `image` gives a picture's bytes by its image id;
    `notice` is about a generated corpus; `validation` is `reports/validation/<corpus>`, which goes
    to the run of the whole pipeline.
    """

    folder: Path
    row: str
    image: Callable[[str], bytes]
    notice: str = ""
    validation: Path | None = None


def record(
    model_dir: Path,
    params: Params,
    evaluation: EvaluationFiles | None = None,
    run_id_path: Path | None = None,
    measured: Mapping[str, float] | None = None,
) -> str | None:
    """Finds or makes the run of a model, and completes it from the model's files.

    How it is found `complete_run` says. Whatever it holds already is left alone, so recording twice
    changes nothing.

    Args:
        model_dir: `models/<experiment>/<seed-n|frozen>`, or a copy of it.
        params: Name the experiment of MLflow, and say which corpora are generated.
        evaluation: Adds the metrics, the recall plot and the examples, once they exist.
        run_id_path: Is read, and holds the run's id afterwards.
        measured: Metrics by their names in MLflow, of what has no such files.

    Returns:
        The run's id, or None where the store cannot be reached or does not take it, which is said
        in one sentence.

    Raises:
        BrewlineError: the model's files are missing.
    """
    if not (model_dir / "model.json").exists():
        raise BrewlineError(f"{model_dir / 'model.json'} is missing; run `dvc repro`")
    uri, run_id = tracking_uri(), None
    with harmless(uri):
        store = open_store(params.tracking)
        run_id = _record(store, model_dir, params, evaluation, run_id_path, measured or {})
        runs.save_run_id(run_id_path, run_id, uri)
    if run_id is None and run_id_path and not run_id_path.exists():
        runs.save_run_id(run_id_path, None, uri)
    return run_id


def record_corpus(params: Params, corpus: str, project: Path = Path()) -> dict[Path, str | None]:
    """Records every model in the tables on a corpus; see `record_table`."""
    found: dict[Path, str | None] = {}
    for name in params.tables_on(corpus):
        found |= record_table(params, name, project)
    return found


def record_table(params: Params, name: str, project: Path = Path()) -> dict[Path, str | None]:
    """Records every model of a table's rows; see `record`.

    A model that several tables show is recorded with what the first one says of it. The run of
    the pipeline that this process belongs to gets the table's numbers on dev.

    Args:
        params: The tables.
        name: The table; its evaluation is taken from `reports/evaluation`, once it is there.
        project: The project's folder.

    Returns:
        The run's id by the model's folder; None where the store did not take it.

    Raises:
        BrewlineError: files of a model are missing.
    """
    folder, corpus = project / "reports/evaluation" / name, params.tables[name].data
    image, notice = project_media(corpus, project).image, synthetic_notice(params, [corpus])
    validation = project / "reports/validation" / corpus
    found = {}
    for row, experiment in params.tables[name].rows.items():
        if params.row_of(experiment) != (name, row):
            continue
        is_measured = (folder / "models.json").exists()
        if experiment in params.external:
            vectors = project / f"data/embeddings/{corpus}/{experiment}/{EXTERNAL}.safetensors"
            if is_measured:
                found[vectors] = _record_external(params, experiment, vectors, folder)
            continue
        evaluation = None
        if is_measured:
            evaluation = EvaluationFiles(folder, row, image, notice, validation)
        for model in model_names(params, experiment):
            model_dir = model_folder(experiment, model, project)
            found[model_dir] = record(model_dir, params, evaluation)
    with harmless(tracking_uri()):
        log_headline(open_store(params.tracking), params, name, project / "metrics")
    return found


def record_sound_table(params: Params, name: str, project: Path = Path()) -> dict[Path, str | None]:
    """Records every model of the rows of a table of sounds, with its numbers once it is scored.

    Returns:
        The run's id by the model's folder; None where the store did not take it.

    Raises:
        BrewlineError: files of a model are missing.
    """
    folder, found = project / sound_report_folder(name), {}
    for experiment in params.sound_tables[name].rows.values():
        for model in model_names(params, experiment):
            is_measured = (folder / "models.json").exists()
            measured = _measured(f"{experiment}/{model}", folder) if is_measured else None
            model_dir = model_folder(experiment, model, project)
            found[model_dir] = record(model_dir, params, measured=measured)
    return found


def _record_external(params: Params, name: str, vectors: Path, folder: Path) -> str | None:
    """The run of vectors that others computed, with all their numbers: they have no model here."""
    measured = _measured(f"{name}/{EXTERNAL}", folder)
    result = (runs.VECTORS_TAG, sha256_file(vectors))
    return record_numbers(params, external_facts(params, name), result, measured)


def _record(
    store: Store,
    model_dir: Path,
    params: Params,
    evaluation: EvaluationFiles | None,
    run_id_path: Path | None,
    measured: Mapping[str, float],
) -> str:
    facts = model_facts(params, read_json(model_dir / "model.json"))
    digest = sha256_tree(model_dir)
    if evaluation:
        measured = _measured(model_key(facts), evaluation.folder)

    def missing_points(run: "Run", logged: set[tuple[str, int]]) -> list[runs.Point]:
        return _missing_points(run, logged, model_dir, measured)

    run = complete_run(store, facts, (runs.DIGEST_TAG, digest), missing_points, run_id_path)
    # Last, and apart: what keeps files may be another server, which may be away.
    with harmless(store.uri), locked(Path(f"{lock_file(store.uri)}-record")):
        _log_changed_artifacts(store, run, model_dir, facts, evaluation)
        if evaluation and evaluation.validation and evaluation.validation.exists():
            _log_changed_validation(store, run, facts["corpus"], evaluation.validation)
    return str(run.info.run_id)


def _missing_points(
    run: "Run", logged: set[tuple[str, int]], model_dir: Path, measured: Mapping[str, float]
) -> list[runs.Point]:
    """The curves of training, and what was measured, one step after them."""
    history = model_dir / "history.jsonl"
    lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
    curves = [point for line in lines if line for point in runs.row_points(json.loads(line))]
    skipped = model_dir / SKIPPED_FILE
    if skipped.exists():
        step = max(point.step for point in curves)
        curves += runs.row_points({"step": step, "skipped_samples": len(read_json(skipped))})
    points = [point for point in curves if (point.metric, point.step) not in logged]
    last_step = max((point.step for point in curves), default=-1)
    latest, now_ms = dict(run.data.metrics), int(time.time() * 1000)
    points += [
        runs.Point(name, value, last_step + 1, now_ms)
        for name, value in measured.items()
        if latest.get(name) != value or (name, last_step + 1) not in logged
    ]
    return points


def _measured(key: str, folder: Path) -> dict[str, float]:
    """The metrics of one model in `models.json` of a table, by their names in MLflow."""
    path = folder / "models.json"
    metrics = read_json(path).get(key)
    if metrics is None:
        raise BrewlineError(f"{path} has no metrics of {key}; run `dvc repro`")
    return {
        metric_in_mlflow(metric): float(value)
        for metric, value in metrics.items()
        if value is not None
    }


def _artifacts(
    model_dir: Path, facts: Mapping[str, Any], evaluation: EvaluationFiles | None
) -> dict[str, bytes]:
    """Files to keep beside the run, by their path in it."""
    names = ("model.json", "history.jsonl")
    artifacts = {
        f"model/{name}": (model_dir / name).read_bytes()
        for name in names
        if (model_dir / name).exists()
    }
    if evaluation is None:
        return artifacts
    curves = read_recall(evaluation.folder / "recall.csv", "test")
    mine = {key: points for key, points in curves.items() if key[0] == evaluation.row}
    artifacts["evaluation/recall.png"] = recall_png(mine, run_name(facts))
    artifacts["evaluation/examples.html"] = examples_page(
        f"{facts['experiment']}: examples from test of {facts['corpus']}",
        evaluation.row,
        evaluation.folder / "examples.json",
        evaluation.image,
        evaluation.notice,
    ).encode()
    return artifacts


def _log_changed_artifacts(
    store: Store,
    run: "Run",
    model_dir: Path,
    facts: Mapping[str, Any],
    evaluation: EvaluationFiles | None,
) -> None:
    # Of what they are made from: drawing them anew takes longer than all else.
    made_from = [sha256_tree(model_dir)]
    if evaluation is not None:
        names = ("recall.csv", "examples.json")
        made_from += [sha256_file(evaluation.folder / name) for name in names]
        made_from += [evaluation.row, evaluation.notice]
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    if run.data.tags.get("artifacts_digest") == digest:
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, data in _artifacts(model_dir, facts, evaluation).items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        store.client.log_artifacts(run.info.run_id, folder)
    store.client.set_tag(run.info.run_id, "artifacts_digest", digest)


def _log_changed_validation(store: Store, run: "Run", corpus: str, folder: Path) -> None:
    """Keeps the validation of a corpus once, beside the run that all its models stand under."""
    parent_id = run.data.tags.get("mlflow.parentRunId")
    if parent_id is None:
        return
    digest, tag = sha256_tree(folder), f"validation_digest.{corpus}"
    if store.client.get_run(parent_id).data.tags.get(tag) != digest:
        store.client.log_artifacts(parent_id, str(folder), f"validation/{corpus}")
        store.client.set_tag(parent_id, tag, digest)


def record_everything(
    params: Params, tables: Sequence[str], project: Path = Path()
) -> dict[str, str | None]:
    """Records transcriptions, models and probes from their files; ends what was left RUNNING.

    In a pipeline run (see `pipeline_key`), its own run gets the report and its end too.

    Args:
        params: The corpora and the tables.
        tables: Those whose models and numbers are up to date, of speech or of sounds.
        project: The project's folder.

    Returns:
        The run's id by what it is about; None where the store did not take it.

    Raises:
        BrewlineError: files of a model are missing.
    """
    found = record_transcriptions(params, project)
    for name in tables:
        recorded: dict[Path, str | None] = {}
        if name in params.tables:
            recorded |= record_table(params, name, project)
        if name in params.sound_tables:
            recorded |= record_sound_table(params, name, project)
        found |= {str(path): one for path, one in recorded.items()}
    found |= record_probes(params, project)
    with harmless(tracking_uri()):
        store = open_store(params.tracking)
        runs.end_abandoned_runs(store)
        parent_id = find_or_make_parent(store)
        if parent_id is not None:
            log_report(store, project / "reports/index.html", parent_id)
            runs.settle_parent(store, parent_id)
    return found
