"""Flow `sweep`: the pipeline once for each of several overrides, and a table, best on dev first."""

import itertools
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run

from brewline.config import load_params
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json
from brewline.evaluation.scores import SELECTION_METRIC
from brewline.tracking.runs import PIPELINE_VARIABLE
from flows.children import stop_groups
from flows.dead_runs import alive
from flows.graph import changes, read_graph, with_descendants
from flows.pipeline import Corpora, Experiments
from flows.workspace import make_workspace

_LOG_FOLDER = Path("work/sweeps")


@flow(name="sweep")
def sweep(
    grid: dict[str, list[Any]] = {},
    runs: list[dict[str, Any]] = [],
    corpora: Corpora = [],
    experiments: Experiments = [],
    parallel: int = 1,
) -> list[dict[str, Any]]:
    """Runs the pipeline once for each of several overrides.

    Every run is a flow run of its own, in a workspace of its own. In MLflow all their models stand
    under one parent.

    Args:
        grid: All combinations of these (`{"variants.full.alpha": [0.1, 0.2]}`).
        runs: These as they are (`[{"recipes.mini.steps": 60}, {"recipes.mini.steps": 120}]`).
        corpora: Only these corpora; empty: all.
        experiments: Only these experiments; empty: all.
        parallel: How many runs go on at a time. Stages still take turns, unless
            `runtime.parallel_stages` is raised.

    Returns:
        A row for each run and row of a table, the best on dev first.
    """
    project = Path.cwd()
    with alive(project, str(flow_run.get_id())):
        return _sweep(project, combinations(grid, runs), corpora, experiments, parallel)


def _sweep(
    project: Path,
    chosen: list[dict[str, Any]],
    corpora: list[str],
    experiments: list[str],
    parallel: int,
) -> list[dict[str, Any]]:
    # Bad overrides show before anything runs.
    folders = [make_workspace(project, overrides) for overrides in chosen]
    _run_all(chosen, corpora, experiments, parallel)
    rows = [
        row
        for overrides, folder in zip(chosen, folders, strict=True)
        for row in _dev_results(folder, overrides, SELECTION_METRIC)
        if (not corpora or row["corpus"] in corpora)
        and (not experiments or row["experiment"] in experiments)
    ]
    if not rows:
        raise BrewlineError(
            "no table was measured, because something that it shows is stale and was not chosen: "
            "see the artifact `stages` of a run, and choose its experiments or corpora too",
            "settings",
        )
    rows.sort(key=lambda row: -row[SELECTION_METRIC])
    create_table_artifact(rows, key="sweep", description="The runs of a sweep, best on dev first")
    return rows


def combinations(
    grid: dict[str, list[Any]], runs: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """All combinations of a grid, then the runs that are given whole, each once.

    Raises:
        BrewlineError: there are none.
    """
    crossed = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    found: list[dict[str, Any]] = []
    for one in [*(crossed if grid else []), *runs]:
        if one and one not in found:
            found.append(one)
    if not found:
        raise BrewlineError("a sweep needs a grid or a list of overrides", "settings")
    return found


def _run_all(
    chosen: Sequence[dict[str, Any]], corpora: list[str], experiments: list[str], parallel: int
) -> None:
    """Runs a process for each of the overrides, a few at a time; stops them if we are stopped.

    Everything is done in this thread: a signal could not interrupt any other.
    """
    logger = get_run_logger()
    waiting = deque(enumerate(chosen))
    running: dict[int, subprocess.Popen[bytes]] = {}
    failed: list[int] = []
    try:
        while waiting or running:
            while waiting and len(running) < max(1, parallel):
                number, overrides = waiting.popleft()
                logger.info("run %d of %d: %s", number + 1, len(chosen), json.dumps(overrides))
                running[number] = _start(number, overrides, corpora, experiments)
            time.sleep(0.5)
            for number, child in list(running.items()):
                if child.poll() is not None:
                    stop_groups([running.pop(number)])
                    failed += [number] if child.returncode else []
    finally:
        stop_groups(running.values())
    if failed:
        log = _log_folder() / f"{failed[0]}.log"
        raise BrewlineError(
            f"{len(failed)} of {len(chosen)} runs failed, the first with "
            f"{json.dumps(chosen[failed[0]])}: see its flow run, or {log}",
            "crash",
        )


def _start(
    number: int, overrides: dict[str, Any], corpora: list[str], experiments: list[str]
) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "brewline.core.system", str(os.getpid())]
    command += [sys.executable, "-m", "flows", "pipeline", "--overrides", json.dumps(overrides)]
    command += ["--corpora", *corpora] if corpora else []
    command += ["--experiments", *experiments] if experiments else []
    log = _log_folder() / f"{number}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        return subprocess.Popen(
            command,
            env=os.environ | {PIPELINE_VARIABLE: f"sweep-{flow_run.get_id()}"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _log_folder() -> Path:
    return _LOG_FOLDER / str(flow_run.get_id())


def _dev_results(folder: Path, overrides: dict[str, Any], metric: str) -> list[dict[str, Any]]:
    rows = []
    stale = with_descendants(read_graph(folder), {*changes(folder)})
    for name, table in load_params(folder / "params.yaml").tables.items():
        # It was left out, and its numbers are those of other parameters.
        if f"score@{name}" in stale:
            continue
        measured = read_json(folder / f"metrics/{name}.json")
        for row, experiment in table.rows.items():
            if metric in measured.get(row, {}):
                rows.append(
                    {
                        "overrides": json.dumps(overrides),
                        "corpus": table.data,
                        "table": name,
                        "experiment": experiment,
                        metric: measured[row][metric],
                    }
                )
    return rows
