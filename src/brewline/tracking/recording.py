"""The run of a model, made or completed from the model's files."""

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
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
from brewline.media.corpus_media import project_media
from brewline.models.names import model_folder, model_name, model_names
from brewline.tracking import runs
from brewline.tracking.store import (
    RefusedError,
    Store,
    interpreted,
    lock_file,
    open_store,
    public_uri,
    say_once,
    tracking_uri,
)

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
) -> str | None:
    """Finds or makes the run of a model, and completes it from the model's files.

    The run is the one in `run_id_path`, else the one that is tagged with the digest of
    `model_dir`, else a new one. Whatever it holds already is left alone, so recording twice
    changes nothing.

    Args:
        model_dir: `models/<experiment>/<seed-n|frozen>`, or a copy of it.
        params: Name the experiment of MLflow, and say which corpora are generated.
        evaluation: Adds the metrics, the recall plot and the examples, once they exist.
        run_id_path: Is read, and holds the run's id afterwards.

    Returns:
        The run's id, or None where the store cannot be reached.

    Raises:
        BrewlineError: the model's files are missing, or the store refuses them.
    """
    if not (model_dir / "model.json").exists():
        raise BrewlineError(f"{model_dir / 'model.json'} is missing; run `dvc repro`")
    uri = tracking_uri()
    try:
        store = open_store(params.tracking)
        with interpreted():
            run_id = _record(store, model_dir, params, evaluation, run_id_path)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        say_once(uri)
        run_id = None
    except RefusedError as error:
        raise BrewlineError(f"MLflow at {public_uri(uri)} refuses: {error}", "settings") from None
    runs.save_run_id(run_id_path, run_id, uri)
    return run_id


def record_corpus(params: Params, corpus: str, project: Path = Path()) -> dict[Path, str | None]:
    """Records every model in the tables on a corpus; see `record_table`."""
    found: dict[Path, str | None] = {}
    for name in params.tables_on(corpus):
        found |= record_table(params, name, project)
    return found


def record_table(params: Params, name: str, project: Path = Path()) -> dict[Path, str | None]:
    """Records every model of a table's rows; see `record`.

    A model that several tables show is recorded with what the first one says of it.

    Args:
        params: The tables.
        name: The table; its evaluation is taken from `reports/evaluation`, once it is there.
        project: The project's folder.

    Returns:
        The run's id by the model's folder; None where the store could not be reached.

    Raises:
        BrewlineError: files of a model are missing, or the store refuses them.
    """
    folder, corpus = project / "reports/evaluation" / name, params.tables[name].data
    image, notice = project_media(corpus, project).image, synthetic_notice(params, [corpus])
    validation = project / "reports/validation" / corpus
    found = {}
    for row, experiment in params.tables[name].rows.items():
        if params.row_of(experiment) != (name, row):
            continue
        evaluation = None
        if (folder / "models.json").exists():
            evaluation = EvaluationFiles(folder, row, image, notice, validation)
        for model in model_names(params, experiment):
            model_dir = model_folder(experiment, model, project)
            found[model_dir] = record(model_dir, params, evaluation)
    return found


def _record(
    store: Store,
    model_dir: Path,
    params: Params,
    evaluation: EvaluationFiles | None,
    run_id_path: Path | None,
) -> str:
    facts = runs.model_facts(params, read_json(model_dir / "model.json"))
    digest = sha256_tree(model_dir)
    with locked(Path(f"{lock_file(store.uri)}-record")):
        run = _matching_run(store, digest, run_id_path)
        if run is None:
            tags = {"model_digest": digest, "recorded_from_files": "true"}
            run = runs.create_run(store, facts, tags)
        run_id = str(run.info.run_id)
        if "model_digest" not in run.data.tags:
            store.client.set_tag(run_id, "model_digest", digest)
        runs.log_missing_facts(store, run, facts)
        _log_missing_points(store, run, model_dir, _measured(facts, evaluation))
        _log_changed_artifacts(store, run, model_dir, facts, evaluation)
        if evaluation and evaluation.validation and evaluation.validation.exists():
            _log_changed_validation(store, run, facts["corpus"], evaluation.validation)
        if run.info.status != "FINISHED":
            store.client.set_terminated(run_id, "FINISHED")
            runs.set_parent_status(store, run, child_starts=False)
    return run_id


def _matching_run(store: Store, digest: str, run_id_path: Path | None) -> "Run | None":
    saved = runs.saved_run(store, run_id_path)
    # A run without digest was cut off from its store before its model was ready.
    if saved and saved.data.tags.get("model_digest", digest) == digest:
        return saved
    return runs.find_run(store, f"tags.model_digest = '{digest}'")


def _log_missing_points(
    store: Store, run: "Run", model_dir: Path, measured: Mapping[str, float]
) -> None:
    history = model_dir / "history.jsonl"
    lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
    curves = [point for line in lines if line for point in runs.row_points(json.loads(line))]
    logged = runs.logged_points(store, run)
    points = [point for point in curves if (point[0], point[2]) not in logged]
    last_step = max((step for _, _, step in curves), default=-1)
    latest = dict(run.data.metrics)
    points += [
        (name, value, last_step + 1)
        for name, value in measured.items()
        if latest.get(name) != value or (name, last_step + 1) not in logged
    ]
    runs.log_points(store, run.info.run_id, points)


def _measured(facts: Mapping[str, Any], evaluation: EvaluationFiles | None) -> dict[str, float]:
    """The metrics of one model in `models.json`, by name."""
    if evaluation is None:
        return {}
    path = evaluation.folder / "models.json"
    name = f"{facts['experiment']}/{model_name(facts['seed'])}"
    metrics = read_json(path).get(name)
    if metrics is None:
        raise BrewlineError(f"{path} has no metrics of {name}; run `dvc repro score`")
    return {metric: float(value) for metric, value in metrics.items() if value is not None}


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
    artifacts["evaluation/recall.png"] = recall_png(mine, runs.run_name(facts))
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
