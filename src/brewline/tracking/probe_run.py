"""The run of a probe, made from its files: which emotions are heard in which vectors."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from brewline.config import Params
from brewline.config.loading import parse
from brewline.config.probes import ProbeParams
from brewline.core.files import read_json, sha256_file
from brewline.tracking import runs
from brewline.tracking.dvc_lock import locked_stage
from brewline.tracking.facts import probe_facts, probe_metric_in_mlflow
from brewline.tracking.finished_run import complete_run
from brewline.tracking.store import harmless, open_store, tracking_uri

if TYPE_CHECKING:
    from mlflow.entities import Run


def record_probe(
    params: Params, name: str, probe: ProbeParams, project: Path = Path()
) -> str | None:
    """Finds or makes the run of a probe, with all its numbers; see `complete_run`.

    Args:
        params: Name the experiment of MLflow, and say which corpora are generated.
        name: The probe; its numbers are those of `metrics/probe/<name>.json`.
        probe: What they were made with.
        project: The project's folder.

    Returns:
        The run's id; None where the store does not take it, which is said.
    """
    path, run_id = project / _metrics(name), None
    now_ms = int(time.time() * 1000)
    measured = [
        runs.Point(probe_metric_in_mlflow(feature, metric), float(value), 0, now_ms)
        for feature, values in read_json(path).items()
        for metric, value in values.items()
    ]

    def missing_points(_: "Run", logged: set[tuple[str, int]]) -> Sequence[runs.Point]:
        return [point for point in measured if (point.metric, point.step) not in logged]

    with harmless(tracking_uri()):
        store, result = open_store(params.tracking), (runs.PROBE_TAG, sha256_file(path))
        about = probe_facts(params, name, probe)
        run = complete_run(store, about, result, missing_points, None)
        run_id = str(run.info.run_id)
    return run_id


def record_probes(params: Params, project: Path = Path()) -> dict[str, str | None]:
    """Records every probe whose numbers DVC knows.

    Returns:
        The run's id by what it is about; None where the store did not take it.
    """
    found = {}
    for name in params.probes:
        stage = locked_stage(f"probe@{name}", [_metrics(name)], project)
        if stage is not None:
            # Numbers do not name their settings, and `params.yaml` may have others by now.
            of_then = stage["params"]["params.yaml"][f"probes.{name}"]
            probe = parse(ProbeParams, of_then, "dvc.lock")
            found[f"probe {name}"] = record_probe(params, name, probe, project)
    return found


def _metrics(name: str) -> str:
    return f"metrics/probe/{name}.json"
