"""Runs: one per model under one parent per pipeline run, their facts and their points."""

import contextlib
import getpass
import hashlib
import json
import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewline.config import Params
from brewline.core.files import read_partial_json, write_json
from brewline.core.locks import locked
from brewline.models.card import flatten
from brewline.models.names import model_name
from brewline.tracking.store import Store, lock_file, public_uri

if TYPE_CHECKING:
    from mlflow.entities import Run

PIPELINE_VARIABLE = "BREWLINE_PIPELINE_RUN"
# Where a run's commit stands otherwise: the project may be a ZIP.
NO_COMMIT = "no commit"
_METRICS_PER_REQUEST = 1000
# The column of a data set's digest in MLflow's schema is this wide.
_DIGEST_LENGTH = 36


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
    tags = {"git_sha": _git("rev-parse", "HEAD") or NO_COMMIT}
    if tags["git_sha"] != NO_COMMIT:
        tags["git_dirty"] = str(bool(_git("status", "--porcelain"))).lower()
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


def model_facts(params: Params, card: Mapping[str, Any]) -> dict[str, Any]:
    """What a run of a model is about: its card, and whether a program made its corpus."""
    source = params.sources.get(card["corpus"])
    return {**card, "synthetic": source is not None and source.synthetic}


def transcription_facts(params: Params, corpus: str, whisper: str, manifest: str) -> dict[str, Any]:
    """What a run of stage `transcribe` is about: its settings, and the hashes of what it reads."""
    return {
        "corpus": corpus,
        "synthetic": params.sources[corpus].synthetic,
        "asr": params.asr.model_dump(),
        "backbones": {"whisper": whisper},
        "data": {"manifest": manifest},
    }


def _is_model(facts: Mapping[str, Any]) -> bool:
    return "experiment" in facts


def run_name(facts: Mapping[str, Any]) -> str:
    if not _is_model(facts):
        return f"{facts['corpus']} transcription"
    return f"{facts['experiment']} {model_name(facts['seed'])}"


def _tags(facts: Mapping[str, Any]) -> dict[str, str]:
    tags = {"kind": "transcription"}
    if _is_model(facts):
        tags = {"kind": "model", "seed": str(facts["seed"])}
        tags |= {name: facts[name] for name in ("experiment", "task", "variant")}
        tags |= {"trained_on": facts["trained_on"]} if facts["trained_on"] else {}
        tags |= {"init": facts["init"]["experiment"]} if facts["init"] else {}
    tags |= {
        "corpus": facts["corpus"],
        **{f"data.{name}": str(digest) for name, digest in (facts.get("data") or {}).items()},
    }
    if facts["synthetic"]:
        tags["mlflow.note.content"] = (
            "A generated corpus: these numbers show that the pipeline works. They say nothing "
            "about real recordings and must not stand beside published ones."
        )
    return tags


def _params(facts: Mapping[str, Any]) -> dict[str, str]:
    """The settings of a run: `variant.*`, `recipe.*` and so on, as they stand in `params.yaml`."""
    sections = {
        "variant": facts.get("switches"),
        "recipe": facts.get("recipe"),
        "asr": facts.get("asr"),
        "backbones": facts["backbones"],
    }
    params = {
        f"{section}.{name}": str(value)
        for section, values in sections.items()
        for name, value in flatten(values or {})
        if value is not None
    }
    # Of a model that is yet to be trained the number is not known, and MLflow takes no second one.
    number = facts.get("num_trained_parameters")
    if number or (number == 0 and facts.get("seed") is None):
        params["num_trained_parameters"] = str(number)
    return params


def log_missing_facts(store: Store, run: "Run", facts: Mapping[str, Any]) -> None:
    """Adds the parameters, tags and data sets that the run lacks; touches no other."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, Param, RunTag
    from mlflow.exceptions import MlflowException

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


def create_run(store: Store, facts: Mapping[str, Any], extra_tags: Mapping[str, str]) -> "Run":
    parent_id = _find_or_make_parent(store)
    tags = {**_source_tags(), **_tags(facts), **extra_tags}
    if parent_id:
        tags["mlflow.parentRunId"] = parent_id
    return store.client.create_run(store.experiment_id, tags=tags, run_name=run_name(facts))


def find_run(store: Store, condition: str) -> "Run | None":
    """The oldest run of the experiment under a condition in MLflow's filter language."""
    found = store.client.search_runs(
        [store.experiment_id], condition, max_results=1, order_by=["attributes.start_time ASC"]
    )
    return found[0] if found else None


def _find_or_make_parent(store: Store) -> str | None:
    key = pipeline_key()
    if key is None:
        return None
    # Two stages of one pipeline start at the same moment, and one of them makes the parent.
    with locked(lock_file(store.uri)):
        parent = find_run(store, f"tags.kind = 'pipeline' and tags.pipeline_run = '{key}'")
        if parent is None:
            tags = {**_source_tags(), "kind": "pipeline", "pipeline_run": key}
            parent = store.client.create_run(
                store.experiment_id, tags=tags, run_name=f"pipeline {key}"
            )
    return str(parent.info.run_id)


def set_parent_status(store: Store, run: "Run", child_starts: bool) -> None:
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


def log_points(store: Store, run_id: str, points: list[tuple[str, float, int]]) -> None:
    """Logs (metric, value, step) in as few requests as MLflow allows."""
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    metrics = [Metric(name, value, now_ms, step) for name, value, step in points]
    for start in range(0, len(metrics), _METRICS_PER_REQUEST):
        store.client.log_batch(run_id, metrics=metrics[start : start + _METRICS_PER_REQUEST])


def row_points(row: Mapping[str, Any]) -> list[tuple[str, float, int]]:
    """The points of a row of `history.jsonl`."""
    return [
        (name, float(value), int(row["step"]))
        for name, value in row.items()
        if name != "step" and value is not None
    ]
