"""The run of work that is done: found again by what came out of it, or made, completed, ended."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewline.config import Params
from brewline.core.locks import locked
from brewline.tracking import runs
from brewline.tracking.pipeline_runs import find_or_make_parent
from brewline.tracking.store import Store, harmless, lock_file, open_store, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import Run


def complete_run(
    store: Store,
    facts: Mapping[str, Any],
    result: tuple[str, str],
    missing_points: "Callable[[Run, set[tuple[str, int]]], Sequence[runs.Point]]",
    run_id_path: Path | None,
) -> "Run":
    """Finds or makes the run of a result, tells it what it lacks, and ends it.

    The run is the oldest one about the same with the same result, else the one in `run_id_path`,
    else one about the same that lost its store before it had a result, else a new one. Where the
    same result was made twice, the run in `run_id_path` is deleted.

    Args:
        store: The tracking store.
        facts: What the run is about.
        result: The tag that names results of this kind, and the digest of this one.
        missing_points: Gives the points to log, from the run and the (metric, step) that it has.
        run_id_path: Is read, where `live` wrote the run's id.
    """
    tag, digest = result
    with locked(Path(f"{lock_file(store.uri)}-record")):
        run = _find(store, facts, tag, digest, run_id_path)
        if run is None:
            tags = {tag: digest, "recorded_from_files": "true"}
            run = runs.create_run(store, facts, find_or_make_parent(store), tags)
        run_id = str(run.info.run_id)
        if tag not in run.data.tags:
            store.client.set_tag(run_id, tag, digest)
        runs.log_missing_facts(store, run, facts)
        points = missing_points(run, runs.logged_points(store, run))
        runs.log_points(store, run_id, list(points))
        if run.info.status != "FINISHED":
            store.client.set_terminated(run_id, "FINISHED")
            runs.set_parent_status(store, run, child_starts=False)
    return run


def record_numbers(
    params: Params, facts: Mapping[str, Any], result: tuple[str, str], values: Mapping[str, float]
) -> str | None:
    """Finds or makes the run of a result that is numbers alone; see `complete_run`.

    Args:
        params: Name the experiment of MLflow.
        facts: What the run is about.
        result: As of `complete_run`.
        values: The numbers by their names in MLflow.

    Returns:
        The run's id; None where the store does not take it, which is said.
    """
    now_ms, run_id = int(time.time() * 1000), None
    points = [runs.Point(name, value, 0, now_ms) for name, value in values.items()]

    def missing_points(_: "Run", logged: set[tuple[str, int]]) -> Sequence[runs.Point]:
        return [point for point in points if (point.metric, point.step) not in logged]

    with harmless(tracking_uri()):
        store = open_store(params.tracking)
        run_id = str(complete_run(store, facts, result, missing_points, None).info.run_id)
    return run_id


def _find(
    store: Store, facts: Mapping[str, Any], tag: str, digest: str, run_id_path: Path | None
) -> "Run | None":
    saved = runs.saved_run(store, run_id_path)
    about = runs.runs_about(store, facts)
    same = next((run for run in about if run.data.tags.get(tag) == digest), None)
    if same is None:
        # A run without a digest was cut off from its store before its result was ready.
        if saved and saved.data.tags.get(tag, digest) == digest:
            return saved
        return runs.find_unfinished(store, facts)
    if saved and saved.info.run_id != same.info.run_id:
        store.client.delete_run(saved.info.run_id)
        runs.set_parent_status(store, saved, child_starts=False)
    return same
