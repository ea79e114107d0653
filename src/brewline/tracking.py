"""What was measured, in MLflow: one run per trained model under one parent per pipeline run.

The files of a model are the source of truth; a run is a copy of them that people can compare and
search. `live` writes it while a model trains, `record` completes or makes it from the files, as
often as one likes. A tracking server that cannot be reached never stops the work: one sentence
says so, and the next `record` brings everything in.

A run holds parameters under their names in `params.yaml` (`train.steps`), the curves of
`history.jsonl` under their own names, and the evaluation of the finished model, logged one step
after the last of the curves: MLflow lists and filters by the latest value, and that must be the
chosen checkpoint's. MLflow refuses `@` in names, so recall is `recall_at_1`.

A parent run ends when its children do: it is RUNNING while a child trains, and each child that
ends sets it to FINISHED, or to the worst status among its children.
"""

import contextlib
import fcntl
import functools
import getpass
import hashlib
import json
import logging
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from brewline.errors import BrewlineError
from brewline.files import read_json, sha256_tree, write_json
from brewline.params import Params, TrackingParams

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient

PIPELINE_VARIABLE = "BREWLINE_PIPELINE_RUN"

# MLflow's own defaults phone home, chat, and wait four minutes for a server that is down.
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
_NOISY_LOGGERS = ("mlflow", "alembic", "urllib3.connectionpool")
_METRICS_PER_REQUEST = 1000
_FLUSH_AFTER_METRICS = 500
_FLUSH_AFTER_S = 10.0
# The column of a data set's digest in MLflow's schema is this wide.
_DIGEST_LENGTH = 36
_OUTAGES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` wrote about a corpus.

    `folder` is `reports/evaluation/<corpus>`; `image` gives a picture's bytes by its image id.
    """

    folder: Path
    image: Callable[[str], bytes]


@dataclass(frozen=True)
class _Store:
    """An open tracking store and the experiment in it."""

    client: "MlflowClient"
    uri: str
    experiment_id: str


class _RefusedError(Exception):
    """The store is there, but did not take what it was given."""


def tracking_uri(project: Path = Path()) -> str:
    """Returns `MLFLOW_TRACKING_URI`, else the SQLite file in the project's folder, absolute."""
    configured = os.environ.get("MLFLOW_TRACKING_URI")
    return configured or f"sqlite:///{_lasting(project.absolute())}/mlflow.db"


def _lasting(project: Path) -> Path:
    """The project around a workspace of `dvc exp run --temp`, which is removed at its end."""
    for folder in project.parents:
        if folder.parts[-3:] == (".dvc", "tmp", "exps"):
            return folder.parents[2]
    return project


def public_uri(uri: str) -> str:
    """Returns the URI without user, password and query, fit to be written down."""
    parts = urlsplit(uri)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", "")) if host else uri.split("?")[0]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock among the processes of this machine; a killed holder frees it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _database(uri: str) -> Path | None:
    """The file of a SQLite store, else None."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])


def _lock_file(uri: str) -> Path:
    database = _database(uri)
    # A server's runs are looked for and made by processes of this project: lock in its folder.
    return Path(f"{database}.lock") if database else Path("work/tracking.lock")


@contextmanager
def _interpreted() -> Iterator[None]:
    """Turns every way in which a store fails into OSError (an outage) or _RefusedError."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except MlflowException as error:
        if error.error_code in _OUTAGES:
            raise OSError(str(error)) from error
        raise _RefusedError(str(error).splitlines()[0]) from error
    except (SQLAlchemyError, sqlite3.Error) as error:
        raise OSError(str(error)) from error


@functools.cache
def _say_once(uri: str) -> None:
    sys.stderr.write(
        f"brewline: MLflow at {public_uri(uri)} cannot be reached; the work goes on, and "
        "`brewline record` brings its runs in later.\n"
    )


def open_store(tracking: TrackingParams, project: Path = Path()) -> _Store:
    """Opens the tracking store; makes its schema and the experiment where they are new.

    Args:
        tracking: Names the experiment.
        project: The folder of the SQLite file, where no server is configured.

    Raises:
        OSError: the store cannot be reached.
        BrewlineError: it is there, but its schema is old or the experiment was deleted.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from mlflow.tracking import MlflowClient

    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    uri = tracking_uri(project)
    database = _database(uri)
    try:
        # Four processes that open a new database at once race in its migrations, and three die.
        with _locked(_lock_file(uri)), _interpreted():
            if database:
                sqlite3.connect(database).close()
            client = MlflowClient(tracking_uri=uri)
            return _Store(client, uri, _experiment(client, tracking.experiment, database))
    except _RefusedError as error:
        raise BrewlineError(f"MLflow at {public_uri(uri)} refuses: {error}", "settings") from None


def _experiment(client: "MlflowClient", name: str, database: Path | None) -> str:
    """Finds or makes the experiment; returns its id."""
    found = client.get_experiment_by_name(name)
    if found is None:
        # Without a server MLflow would put artifacts under whatever folder it was started in.
        folder = database.absolute().parent / "mlartifacts" / name if database else None
        return str(client.create_experiment(name, folder.as_uri() if folder else None))
    if found.lifecycle_stage != "active":
        raise BrewlineError(
            f"the MLflow experiment {name!r} was deleted; restore it, or name another one in "
            "tracking.experiment of params.yaml",
            "settings",
        )
    return str(found.experiment_id)


def pipeline_key() -> str | None:
    """Names the pipeline run that this process belongs to.

    It is `BREWLINE_PIPELINE_RUN`, else the nearest ancestor process that is DVC, by its id and
    start, else None.
    """
    import psutil

    given = os.environ.get(PIPELINE_VARIABLE)
    if given:
        return re.sub(r"[^A-Za-z0-9_.:-]", "-", given)
    # A parent that ends while we look, or that belongs to somebody else, ends the search.
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process().parents():
            if _is_dvc(process.name(), process.cmdline()):
                return f"dvc-{process.pid}-{int(process.create_time() * 1000)}"
    return None


def _is_dvc(name: str, command: list[str]) -> bool:
    runs_module = command[1:3] == ["-m", "dvc"]
    return name == "dvc" or runs_module or any(Path(part).name == "dvc" for part in command[:2])


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _source_tags() -> dict[str, str]:
    """Which code, graph and flow made this: joins MLflow with git, DVC and Prefect."""
    tags = {}
    revision = _git("rev-parse", "HEAD")
    if revision:
        tags = {"git_sha": revision, "git_dirty": str(bool(_git("status", "--porcelain"))).lower()}
    lock = Path("dvc.lock")
    if lock.exists():
        tags["dvc_lock_md5"] = hashlib.md5(lock.read_bytes(), usedforsecurity=False).hexdigest()
    flow_run = os.environ.get("PREFECT__FLOW_RUN_ID") or os.environ.get("PREFECT_FLOW_RUN_ID")
    if flow_run:
        tags["prefect_flow_run_id"] = flow_run
    # An account without a name is common in containers.
    with contextlib.suppress(KeyError, OSError):
        tags["mlflow.user"] = getpass.getuser()
    return tags


def _seed_name(facts: Mapping[str, Any]) -> str:
    return "frozen" if facts["seed"] is None else f"seed-{facts['seed']}"


def _run_name(facts: Mapping[str, Any]) -> str:
    return f"{facts['corpus']} {facts['variant']} {_seed_name(facts)}"


def _tags(facts: Mapping[str, Any]) -> dict[str, str]:
    tags = {
        "kind": "model",
        "corpus": facts["corpus"],
        "variant": facts["variant"],
        "seed": str(facts["seed"]),
        **{f"data.{name}": str(digest) for name, digest in (facts.get("data") or {}).items()},
    }
    if facts["corpus"].startswith("mini-"):
        tags["mlflow.note.content"] = (
            "Miniature corpus: these numbers show that the pipeline works. They say nothing about "
            "real recordings and must not stand beside published ones."
        )
    return tags


def _params(facts: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a model under their names in `params.yaml`."""
    sections = {
        "variant": facts["switches"],
        "acoustic": facts.get("acoustic"),
        "train": facts.get("train") if facts["seed"] is not None else None,
        "backbones": facts["backbones"],
    }
    params = {
        f"{section}.{name}": str(value)
        for section, values in sections.items()
        for name, value in (values or {}).items()
        if value is not None
    }
    # Of a model that is yet to be trained the number is not known, and MLflow takes no second one.
    number = facts.get("num_trained_parameters")
    if number or (number == 0 and facts["seed"] is None):
        params["num_trained_parameters"] = str(number)
    return params


def _log_missing_facts(store: _Store, run: "Run", facts: Mapping[str, Any]) -> None:
    """Adds the parameters, tags and data sets that the run lacks; touches no other."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag

    params = [
        Param(name, value) for name, value in _params(facts).items() if name not in run.data.params
    ]
    tags = [
        RunTag(name, value) for name, value in _tags(facts).items() if name not in run.data.tags
    ]
    if params or tags:
        store.client.log_batch(run.info.run_id, params=params, tags=tags)
    if run.inputs and run.inputs.dataset_inputs:
        return
    # The entities themselves: mlflow.data would import pandas to say the same.
    datasets = [
        DatasetInput(
            Dataset(
                name=f"{facts['corpus']} {name}",
                digest=str(digest)[:_DIGEST_LENGTH],
                source_type="local",
                source=json.dumps({"uri": f"data/{name}/{facts['corpus']}"}),
            ),
            [InputTag("mlflow.data.context", "training")],
        )
        for name, digest in (facts.get("data") or {}).items()
    ]
    if datasets:
        store.client.log_inputs(run.info.run_id, datasets)


def _create_run(store: _Store, facts: Mapping[str, Any], extra_tags: Mapping[str, str]) -> "Run":
    parent_id = _find_or_make_parent(store)
    tags = {**_source_tags(), **_tags(facts), **extra_tags}
    if parent_id:
        tags["mlflow.parentRunId"] = parent_id
    return store.client.create_run(store.experiment_id, tags=tags, run_name=_run_name(facts))


def _find_run(store: _Store, condition: str) -> "Run | None":
    """The oldest run of the experiment under a condition in MLflow's filter language."""
    found = store.client.search_runs(
        [store.experiment_id], condition, max_results=1, order_by=["attributes.start_time ASC"]
    )
    return found[0] if found else None


def _find_or_make_parent(store: _Store) -> str | None:
    key = pipeline_key()
    if key is None:
        return None
    # Two stages of one pipeline start at the same moment, and one of them makes the parent.
    with _locked(_lock_file(store.uri)):
        parent = _find_run(store, f"tags.kind = 'pipeline' and tags.pipeline_run = '{key}'")
        if parent is None:
            tags = {**_source_tags(), "kind": "pipeline", "pipeline_run": key}
            parent = store.client.create_run(
                store.experiment_id, tags=tags, run_name=f"pipeline {key}"
            )
    return str(parent.info.run_id)


def _set_parent_status(store: _Store, run: "Run", child_starts: bool) -> None:
    parent_id = run.data.tags.get("mlflow.parentRunId")
    if parent_id is None:
        return
    if child_starts:
        store.client.update_run(parent_id, status="RUNNING")
        return
    children = store.client.search_runs(
        [store.experiment_id], f"tags.`mlflow.parentRunId` = '{parent_id}'"
    )
    statuses = {child.info.status for child in children}
    worst = next((status for status in ("FAILED", "KILLED") if status in statuses), "FINISHED")
    store.client.set_terminated(parent_id, worst)


def _saved_run(store: _Store, run_id_path: Path | None) -> "Run | None":
    """The run that an earlier attempt began, where this store still has it."""
    from mlflow.exceptions import MlflowException

    saved = read_json(run_id_path) if run_id_path and run_id_path.exists() else {}
    if saved.get("run_id") is None or saved["tracking_uri"] != public_uri(store.uri):
        return None
    try:
        run = store.client.get_run(saved["run_id"])
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    in_use = run.info.lifecycle_stage == "active"
    return run if in_use and run.info.experiment_id == store.experiment_id else None


def _save_run_id(run_id_path: Path | None, run_id: str | None, uri: str) -> None:
    if run_id_path:
        write_json(run_id_path, {"run_id": run_id, "tracking_uri": public_uri(uri)})


def _logged_points(store: _Store, run: "Run") -> set[tuple[str, int]]:
    """(metric, step) of every point that the run holds already, but for system metrics."""
    return {
        (name, point.step)
        for name in run.data.metrics
        if not name.startswith("system/")
        for point in store.client.get_metric_history(run.info.run_id, name)
    }


def _log_points(store: _Store, run_id: str, points: list[tuple[str, float, int]]) -> None:
    """Logs (metric, value, step) in as few requests as MLflow allows."""
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    metrics = [Metric(name, value, now_ms, step) for name, value, step in points]
    for start in range(0, len(metrics), _METRICS_PER_REQUEST):
        store.client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_REQUEST])


def _row_points(row: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    """The points of a row of `history.jsonl`."""
    return [
        (name, float(value), int(row["step"]))
        for name, value in row.items()
        if name != "step" and value is not None
    ]


@dataclass
class LiveRun:
    """A run that is being written while its model trains; made by `live`.

    Without a store, or once the store is out of reach, every method does nothing.
    """

    _uri: str
    _store: _Store | None = None
    _run: "Run | None" = None
    _logged: set[tuple[str, int]] = field(default_factory=set)
    _waiting: list[tuple[str, float, int]] = field(default_factory=list)
    _last_flush_s: float = field(default_factory=time.monotonic)
    _monitor: Any = None

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, or None where there is no store."""
        return self._run.info.run_id if self._run else None

    def log_row(self, row: Mapping[str, Any]) -> None:
        """Logs a row of `history.jsonl`; a step that the run already has is skipped.

        Args:
            row: `step`, and metrics by name; None is left out.
        """
        if self._store is None:
            return
        for name, value, step in _row_points(row):
            if (name, step) not in self._logged:
                self._logged.add((name, step))
                self._waiting.append((name, value, step))
        waited_s = time.monotonic() - self._last_flush_s
        if len(self._waiting) >= _FLUSH_AFTER_METRICS or waited_s > _FLUSH_AFTER_S:
            self._do(self._flush)

    def model_made(self, model_dir: Path) -> None:
        """Marks the run with the digest of the model's folder, by which `record` finds it."""
        digest = sha256_tree(model_dir)

        def action(store: _Store, run: "Run") -> None:
            store.client.set_tag(run.info.run_id, "model_digest", digest)

        self._do(action)

    def _do(self, action: Callable[[_Store, "Run"], None]) -> None:
        if self._store is None or self._run is None:
            return
        try:
            with _interpreted():
                action(self._store, self._run)
        except OSError:
            _say_once(self._uri)
            self._store = None
        except _RefusedError as error:
            sys.stderr.write(f"brewline: MLflow refuses what training logs: {error}\n")
            self._store = None

    def _flush(self, store: _Store, run: "Run") -> None:
        points, self._waiting = self._waiting, []
        self._last_flush_s = time.monotonic()
        _log_points(store, run.info.run_id, points)

    def _begin(self, system_metrics: bool) -> None:
        def action(store: _Store, run: "Run") -> None:
            store.client.update_run(run.info.run_id, status="RUNNING")
            _set_parent_status(store, run, child_starts=True)
            if system_metrics:
                from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

                self._monitor = SystemMetricsMonitor(  # type: ignore[no-untyped-call]
                    run.info.run_id, resume_logging=True, tracking_uri=store.uri
                )
                self._monitor.start()

        self._do(action)

    def _end(self, status: str) -> None:
        if self._monitor:
            self._monitor.finish()
        self._do(self._flush)

        def action(store: _Store, run: "Run") -> None:
            store.client.set_terminated(run.info.run_id, status)
            _set_parent_status(store, run, child_starts=False)

        self._do(action)


def _start(facts: Mapping[str, Any], tracking: TrackingParams, run_id_path: Path) -> LiveRun:
    uri = tracking_uri()
    try:
        store = open_store(tracking)
        with _interpreted():
            run = _saved_run(store, run_id_path)
            logged = _logged_points(store, run) if run else set()
            run = run or _create_run(store, facts, {})
            _log_missing_facts(store, run, facts)
    except OSError:
        _say_once(uri)
        if not run_id_path.exists():
            _save_run_id(run_id_path, None, uri)
        return LiveRun(uri)
    except _RefusedError as error:
        raise BrewlineError(f"MLflow at {public_uri(uri)} refuses: {error}", "settings") from None
    _save_run_id(run_id_path, run.info.run_id, uri)
    return LiveRun(uri, store, run, logged)


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Lets SIGTERM unwind the stack, unless somebody handles it already."""

    def handler(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    try:
        ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if ours:
            signal.signal(signal.SIGTERM, handler)
    except ValueError:
        # Only the main thread may set handlers; in another one the signal is not ours to see.
        ours = False
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def live(
    facts: Mapping[str, Any], tracking: TrackingParams, run_id_path: Path
) -> Iterator[LiveRun]:
    """Keeps an MLflow run while a model trains.

    The run ends FINISHED; FAILED after an exception; KILLED after Ctrl-C or SIGTERM. A store that
    is out of reach stops nothing.

    Args:
        facts: What `model.json` will say and is known already: corpus, variant, seed, switches,
            backbones, and where they apply acoustic, train and data.
        tracking: The experiment, and whether the machine is watched too.
        run_id_path: Keeps the run's id (`{"run_id", "tracking_uri"}`, the id null without a
            store). A training that is started again with the same file goes on in the same run,
            so it belongs in the stage's work folder.

    Raises:
        BrewlineError: the store is there but refuses the run.
    """
    run = _start(facts, tracking, run_id_path)
    with _sigterm_raises():
        run._begin(tracking.system_metrics)
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except (KeyboardInterrupt, SystemExit):
            status = "KILLED"
            raise
        finally:
            run._end(status)


def record(
    model_dir: Path,
    tracking: TrackingParams,
    evaluation: Evaluation | None = None,
    run_id_path: Path | None = None,
) -> str | None:
    """Finds or makes the run of a model, and completes it from the model's files.

    The run is the one in `run_id_path`, else the one that is tagged with the digest of
    `model_dir`, else a new one. Whatever it holds already is left alone, so recording twice
    changes nothing.

    Args:
        model_dir: `models/<corpus>/<variant>/<seed-n|frozen>`.
        tracking: Names the experiment.
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
        store = open_store(tracking)
        with _interpreted():
            run_id = _record(store, model_dir, evaluation, run_id_path)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise
        _say_once(uri)
        run_id = None
    except _RefusedError as error:
        raise BrewlineError(f"MLflow at {public_uri(uri)} refuses: {error}", "settings") from None
    _save_run_id(run_id_path, run_id, uri)
    return run_id


def record_corpus(params: Params, corpus: str, project: Path = Path()) -> dict[Path, str | None]:
    """Records every model of a corpus that is in the lists; see `record`.

    The evaluation is taken from `reports/evaluation/<corpus>`, once it is there.

    Args:
        params: The lists.
        corpus: One of the retrieval corpora.
        project: The project's folder.

    Returns:
        The run's id by the model's folder; None where the store could not be reached.

    Raises:
        BrewlineError: files of a model are missing, or the store refuses them.
    """
    from brewline import reporting, results

    inputs = reporting.project_inputs(project)
    folder = inputs.evaluation_dir / corpus
    evaluation = None
    if folder.exists():
        manifest = inputs.manifest_dir / f"{corpus}.parquet"
        media = reporting.CorpusMedia(corpus, manifest, inputs.media)
        evaluation = Evaluation(folder, media.image)
    folders = [
        inputs.models_dir / corpus / variant / name
        for variant in params.retrieval_corpora[corpus]
        for name in results.model_names(params, variant)
    ]
    return {folder: record(folder, params.tracking, evaluation) for folder in folders}


def _record(
    store: _Store, model_dir: Path, evaluation: Evaluation | None, run_id_path: Path | None
) -> str:
    facts = read_json(model_dir / "model.json")
    digest = sha256_tree(model_dir)
    with _locked(Path(f"{_lock_file(store.uri)}-record")):
        run = _matching_run(store, digest, run_id_path)
        if run is None:
            tags = {"model_digest": digest, "recorded_from_files": "true"}
            run = _create_run(store, facts, tags)
        run_id = str(run.info.run_id)
        if "model_digest" not in run.data.tags:
            store.client.set_tag(run_id, "model_digest", digest)
        _log_missing_facts(store, run, facts)
        _log_missing_points(store, run, model_dir, evaluation)
        _log_changed_artifacts(store, run, _artifacts(model_dir, facts, evaluation))
        if run.info.status != "FINISHED":
            store.client.set_terminated(run_id, "FINISHED")
            _set_parent_status(store, run, child_starts=False)
    return run_id


def _matching_run(store: _Store, digest: str, run_id_path: Path | None) -> "Run | None":
    saved = _saved_run(store, run_id_path)
    # A run without digest was cut off from its store before its model was ready.
    if saved and saved.data.tags.get("model_digest", digest) == digest:
        return saved
    return _find_run(store, f"tags.model_digest = '{digest}'")


def _log_missing_points(
    store: _Store, run: "Run", model_dir: Path, evaluation: Evaluation | None
) -> None:
    history = model_dir / "history.jsonl"
    lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
    curves = [point for line in lines if line for point in _row_points(json.loads(line))]
    logged = _logged_points(store, run)
    points = [point for point in curves if (point[0], point[2]) not in logged]
    last_step = max((step for _, _, step in curves), default=-1)
    latest = dict(run.data.metrics)
    points += [
        (name, value, last_step + 1)
        for name, value in _evaluated(model_dir, evaluation).items()
        if latest.get(name) != value or (name, last_step + 1) not in logged
    ]
    _log_points(store, run.info.run_id, points)


def _evaluated(model_dir: Path, evaluation: Evaluation | None) -> dict[str, float]:
    """The metrics of one model in `models.json`, by name."""
    if evaluation is None:
        return {}
    path = evaluation.folder / "models.json"
    name = f"{model_dir.parent.name}/{model_dir.name}"
    metrics = read_json(path).get(name) if path.exists() else None
    if metrics is None:
        raise BrewlineError(f"{path} has no metrics of {name}; run `dvc repro evaluate`")
    return {metric: float(value) for metric, value in metrics.items() if value is not None}


def _artifacts(
    model_dir: Path, facts: Mapping[str, Any], evaluation: Evaluation | None
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
    from brewline import charts, reporting

    curves = reporting.read_recall(evaluation.folder / "recall.csv", "test")
    mine = {key: points for key, points in curves.items() if key[0] == facts["variant"]}
    artifacts["evaluation/recall.png"] = charts.recall_png(mine, _run_name(facts))
    artifacts["evaluation/examples.html"] = reporting.examples_page(
        facts["corpus"], facts["variant"], evaluation.folder / "examples.json", evaluation.image
    ).encode()
    return artifacts


def _log_changed_artifacts(store: _Store, run: "Run", artifacts: Mapping[str, bytes]) -> None:
    import tempfile

    digests = {name: hashlib.sha256(data).hexdigest() for name, data in artifacts.items()}
    digest = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    if run.data.tags.get("artifacts_digest") == digest:
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, data in artifacts.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        store.client.log_artifacts(run.info.run_id, folder)
    store.client.set_tag(run.info.run_id, "artifacts_digest", digest)
