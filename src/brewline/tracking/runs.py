"""Runs: one per model, transcription, probe or set of vectors; their points.

They are found again by what they are about.
"""

import contextlib
import getpass
import hashlib
import json
import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from brewline.core.files import read_partial_json, write_json
from brewline.tracking.facts import (
    GENERATED,
    facts_params,
    facts_tags,
    metric_in_mlflow,
    run_name,
)
from brewline.tracking.overrides import git, overrides, overrides_text
from brewline.tracking.store import Store, public_uri

if TYPE_CHECKING:
    from mlflow.entities import Run

PIPELINE_VARIABLE = "BREWLINE_PIPELINE_RUN"
# Where a run's commit stands otherwise: the project may be a ZIP.
NO_COMMIT = "no commit"
# What a run's result is known by: the model's folder, or the table of transcripts.
DIGEST_TAG = "model_digest"
TRANSCRIPTS_TAG = "transcripts_digest"
PROBE_TAG = "probe_digest"
VECTORS_TAG = "vectors_digest"
# The kinds of runs that have a result; the other kind is that of a pipeline run.
_OF_RESULTS = ("model", "transcription", "probe", "external")
NOTE = "mlflow.note.content"
# The process that writes a run, so that one that was left behind is known.
_PROCESS_TAG = "process"
_METRICS_PER_REQUEST = 1000
_SAME_START_MS = 10_000
# The column of a data set's digest in MLflow's schema is this wide.
_DIGEST_LENGTH = 36


class Point(NamedTuple):
    """A value of a metric; one with the same time is logged once, however often it is sent."""

    metric: str
    value: float
    step: int
    time_ms: int


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


def source_tags() -> dict[str, str]:
    """Which code, graph, flow and parameters made this: joins MLflow with git, DVC and Prefect."""
    tags = {"git_sha": git("rev-parse", "HEAD") or NO_COMMIT}
    if tags["git_sha"] != NO_COMMIT:
        tags["git_dirty"] = str(bool(git("status", "--porcelain"))).lower()
        # MLflow's own column.
        tags["mlflow.source.git.commit"] = tags["git_sha"]
    lock = Path("dvc.lock")
    if lock.exists():
        tags["dvc_lock_md5"] = hashlib.md5(lock.read_bytes(), usedforsecurity=False).hexdigest()
    flow_run = os.environ.get("PREFECT__FLOW_RUN_ID") or os.environ.get("PREFECT_FLOW_RUN_ID")
    if flow_run:
        tags["prefect_flow_run_id"] = flow_run
    # An account without a name is common in containers.
    with contextlib.suppress(KeyError, OSError):
        tags["mlflow.user"] = getpass.getuser()
    changed = overrides()
    if changed:
        tags["overrides"] = overrides_text(changed)
    return tags


def log_missing_facts(store: Store, run: "Run", facts: Mapping[str, Any]) -> None:
    """Adds the parameters, tags and data sets that the run lacks; touches no other."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag
    from mlflow.exceptions import MlflowException

    wanted = facts_tags(facts) | {NOTE: _note(store, run, facts)}
    params = [
        Param(name, value)
        for name, value in facts_params(facts).items()
        if name not in run.data.params
    ]
    tags = [RunTag(name, value) for name, value in wanted.items() if name not in run.data.tags]
    if params or tags:
        store.client.log_batch(run.info.run_id, params=params, tags=tags)
    if run.inputs and run.inputs.dataset_inputs:
        return
    # The entities themselves: mlflow.data would import pandas to say the same.
    datasets = [
        DatasetInput(
            Dataset(
                name=f"{facts.get('trained_on') or facts['corpus']} {name}",
                digest=str(digest)[:_DIGEST_LENGTH],
                source_type="local",
                source=json.dumps(
                    {"uri": f"data/{name}/{facts.get('trained_on') or facts['corpus']}"}
                ),
            ),
            [InputTag("mlflow.data.context", "training")],
        )
        for name, digest in (facts.get("data") or {}).items()
    ]
    if datasets:
        try:
            store.client.log_inputs(run.info.run_id, datasets)
        except MlflowException:
            # Of several runs that bring a new data set at once MLflow serves one; the others find
            # it there the second time.
            store.client.log_inputs(run.info.run_id, datasets)


def _note(store: Store, run: "Run", facts: Mapping[str, Any]) -> str:
    """The description of a run: where to read on, and what its numbers are worth."""
    here = f"#/experiments/{store.experiment_id}/runs"
    parent = run.data.tags.get("mlflow.parentRunId")
    lines = (
        [f"Part of [this pipeline run]({here}/{parent}), which has the report."] if parent else []
    )
    if "experiment" in facts:
        page = f"{here}/{run.info.run_id}/artifacts/evaluation/examples.html"
        lines.append(f"Examples to look at and to hear, once it was measured: [examples]({page}).")
    if facts["synthetic"]:
        lines.append(GENERATED)
    return "\n\n".join(lines)


def create_run(
    store: Store, facts: Mapping[str, Any], parent_id: str | None, extra_tags: Mapping[str, str]
) -> "Run":
    """Makes the run of a result, under its pipeline run."""
    tags = {**source_tags(), **facts_tags(facts), **extra_tags}
    if parent_id:
        tags["mlflow.parentRunId"] = parent_id
    return store.client.create_run(store.experiment_id, tags=tags, run_name=run_name(facts))


def find_run(store: Store, condition: str) -> "Run | None":
    """The oldest run of the experiment under a condition in MLflow's filter language."""
    found = store.client.search_runs(
        [store.experiment_id], condition, max_results=1, order_by=["attributes.start_time ASC"]
    )
    return found[0] if found else None


def find_unfinished(store: Store, facts: Mapping[str, Any]) -> "Run | None":
    """The oldest run about the same that never learned its result, and that nobody writes.

    Its store went away, or its process was killed.
    """
    for run in runs_about(store, facts):
        is_open = not {DIGEST_TAG, TRANSCRIPTS_TAG, PROBE_TAG, VECTORS_TAG} & set(run.data.tags)
        if is_open and not is_being_written(run):
            return run
    return None


def runs_about(store: Store, facts: Mapping[str, Any]) -> "list[Run]":
    """The runs about just this, the oldest first; what one was never told counts as equal."""
    wanted, settings = facts_tags(facts), facts_params(facts)
    names = ("kind", "corpus", "experiment", "seed", "probe", "external")
    condition = " and ".join(f"tags.{name} = '{wanted[name]}'" for name in names if name in wanted)
    found = store.client.search_runs(
        [store.experiment_id], condition, order_by=["attributes.start_time ASC"]
    )
    return [
        run
        for run in found
        if all(run.data.tags.get(name, value) == value for name, value in wanted.items())
        and all(run.data.params.get(name, value) == value for name, value in settings.items())
    ]


def process_tag() -> dict[str, str]:
    """Names this process, on this machine."""
    import psutil

    started_ms = int(psutil.Process().create_time() * 1000)
    return {_PROCESS_TAG: f"{socket.gethostname()} {os.getpid()} {started_ms}"}


def is_being_written(run: "Run") -> bool:
    """Whether the run is RUNNING, and its process may live: one elsewhere always may."""
    import psutil

    if run.info.status != "RUNNING":
        return False
    host, _, process = run.data.tags.get(_PROCESS_TAG, "").partition(" ")
    if host != socket.gethostname():
        return bool(host)
    number, _, started_ms = process.partition(" ")
    try:
        known_ms = psutil.Process(int(number)).create_time() * 1000
        # When a process started is computed from a clock that is set now and then.
        return abs(known_ms - int(started_ms)) < _SAME_START_MS
    except (psutil.Error, ValueError):
        return False


def end_abandoned_runs(store: Store) -> list[str]:
    """Ends as KILLED what is RUNNING though its process is gone; returns the names.

    A pipeline run of which nothing is RUNNING any more ends too.
    """
    running = list(store.client.search_runs([store.experiment_id], "attributes.status = 'RUNNING'"))
    ended = [
        run
        for run in running
        if run.data.tags.get("kind") in _OF_RESULTS and not is_being_written(run)
    ]
    for run in ended:
        store.client.set_terminated(run.info.run_id, "KILLED")
    for run in running:
        if run.data.tags.get("kind") == "pipeline":
            settle_parent(store, run.info.run_id)
    return [str(run.info.run_name) for run in ended]


def set_parent_status(store: Store, run: "Run", child_starts: bool) -> None:
    """Tells the pipeline run that one of its runs starts, or has ended."""
    parent_id = run.data.tags.get("mlflow.parentRunId")
    if parent_id is None:
        return
    if child_starts:
        store.client.update_run(parent_id, status="RUNNING")
    else:
        settle_parent(store, parent_id)


def settle_parent(store: Store, parent_id: str) -> None:
    """Ends a pipeline run with the worst status among its runs, unless one is RUNNING."""
    children = store.client.search_runs(
        [store.experiment_id], f"tags.`mlflow.parentRunId` = '{parent_id}'"
    )
    statuses = {child.info.status for child in children}
    if "RUNNING" in statuses:
        return
    worst = next((status for status in ("FAILED", "KILLED") if status in statuses), "FINISHED")
    store.client.set_terminated(parent_id, worst)


def saved_run(store: Store, run_id_path: Path | None) -> "Run | None":
    """The run that an earlier attempt began, where this store still has it."""
    from mlflow.exceptions import MlflowException

    saved = run_id_path and read_partial_json(run_id_path, "another MLflow run is begun")
    if not saved or saved["run_id"] is None or saved["tracking_uri"] != public_uri(store.uri):
        return None
    try:
        run = store.client.get_run(saved["run_id"])
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    in_use = run.info.lifecycle_stage == "active"
    return run if in_use and run.info.experiment_id == store.experiment_id else None


def save_run_id(run_id_path: Path | None, run_id: str | None, uri: str) -> None:
    """Writes down which run an attempt writes, for the next attempt."""
    if run_id_path:
        write_json(run_id_path, {"run_id": run_id, "tracking_uri": public_uri(uri)})


def logged_points(store: Store, run: "Run") -> set[tuple[str, int]]:
    """(metric, step) of every point that the run holds already, but for system metrics."""
    return {
        (name, point.step)
        for name in run.data.metrics
        if not name.startswith("system/")
        for point in store.client.get_metric_history(run.info.run_id, name)
    }


def log_points(store: Store, run_id: str, points: list[Point]) -> None:
    """Logs points in as few requests as MLflow allows."""
    from mlflow.entities import Metric

    metrics = [Metric(point.metric, point.value, point.time_ms, point.step) for point in points]
    for start in range(0, len(metrics), _METRICS_PER_REQUEST):
        store.client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_REQUEST])


def row_points(row: Mapping[str, Any]) -> list[Point]:
    """The points of a row of `history.jsonl`, by their names in MLflow."""
    now_ms = int(time.time() * 1000)
    return [
        Point(metric_in_mlflow(name), float(value), int(row["step"]), now_ms)
        for name, value in row.items()
        if name != "step" and value is not None
    ]
