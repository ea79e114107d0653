"""The run of a probe, made from its files: which emotions are heard in which vectors."""

from pathlib import Path

from brewline.config import Params
from brewline.config.loading import parse
from brewline.config.probes import ProbeParams
from brewline.core.files import read_json, sha256_file
from brewline.tracking import runs
from brewline.tracking.dvc_lock import locked_stage
from brewline.tracking.facts import probe_facts, probe_metric_in_mlflow
from brewline.tracking.finished_run import record_numbers


def record_probe(
    params: Params, name: str, probe: ProbeParams, project: Path = Path()
) -> str | None:
    """Finds or makes the run of a probe, with all its numbers; see `record_numbers`.

    Args:
        params: Name the experiment of MLflow, and say which corpora are generated.
        name: The probe; its numbers are those of `metrics/probe/<name>.json`.
        probe: What they were made with.
        project: The project's folder.

    Returns:
        The run's id; None where the store does not take it, which is said.
    """
    path = project / _metrics(name)
    values = {
        probe_metric_in_mlflow(feature, metric): float(value)
        for feature, values in read_json(path).items()
        for metric, value in values.items()
    }
    result = (runs.PROBE_TAG, sha256_file(path))
    return record_numbers(params, probe_facts(params, name, probe), result, values)


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
