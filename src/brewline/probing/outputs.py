"""The files of stage `probe`: written by it, and read by the report."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path, read_stage_output, write_csv, write_json

# What somebody says who says the commonest emotion always; it stands beside the features.
MAJORITY = "majority"
# The table of what each run said of each speaker: from it, whatever two features differ by is told
# with an interval.
RUNS = "runs"
# By feature (or `majority`), then by metric; as of `score`.
Metrics = Mapping[str, Mapping[str, float]]


@dataclass
class ProbeResults:
    """What came out.

    `metrics` are by feature (or `majority`) and `<protocol>/<labels>/<metric>`; the others are rows
    of tables: of the folds of each run, of the speakers of each run, of how often emotions were
    taken for others, of speakers and genders over all runs, and of the learned weights of layers.
    `checks` are of shuffled labels and of random splits.
    """

    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    folds: list[dict[str, Any]] = field(default_factory=list)
    runs: list[dict[str, Any]] = field(default_factory=list)
    confusion: list[dict[str, Any]] = field(default_factory=list)
    groups: list[dict[str, Any]] = field(default_factory=list)
    layer_weights: list[dict[str, Any]] = field(default_factory=list)
    checks: list[dict[str, Any]] = field(default_factory=list)


def write_probe(results: ProbeResults, metrics_file: Path, folder: Path) -> None:
    """Writes everything.

    Args:
        results: What came out.
        metrics_file: `metrics/probe/<probe>.json`.
        folder: `reports/emotion/<probe>`, replaced as a whole.
    """
    tables = {
        "folds": results.folds,
        RUNS: results.runs,
        "confusion": results.confusion,
        "groups": results.groups,
        "layer_weights": results.layer_weights,
    }
    with atomic_path(folder) as partial:
        partial.mkdir()
        write_json(partial / "checks.json", results.checks)
        for name, rows in tables.items():
            write_csv(partial / f"{name}.csv", rows)
    write_json(metrics_file, results.metrics)


def read_probe_metrics(path: Path) -> Metrics:
    """Reads `metrics/probe/<probe>.json`.

    Raises:
        BrewlineError: it is missing or damaged.
    """
    found: Metrics = read_stage_output(path, "probe")
    return found


def read_checks(folder: Path) -> Sequence[Mapping[str, Any]]:
    """Reads `checks.json`; see `read_probe_metrics`."""
    found: Sequence[Mapping[str, Any]] = read_stage_output(folder / "checks.json", "probe")
    return found


def read_rows(path: Path) -> list[dict[str, str]]:
    """Reads a CSV of the stage.

    Raises:
        BrewlineError: it is missing.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; run `dvc repro probe`") from None
    return list(csv.DictReader(io.StringIO(text)))
