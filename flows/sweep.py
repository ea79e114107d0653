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

from brewline.core.errors import BrewlineError
from brewline.core.files import read_json
from brewline.tracking.runs import PIPELINE_VARIABLE
from flows.children import stop_group
from flows.workspace import make_workspace

_LOG_FOLDER = Path("work/sweeps")


@flow(name="sweep")
def sweep(
    grid: dict[str, list[Any]] = {},
    runs: list[dict[str, Any]] = [],
    corpora: list[str] = [],
    variants: list[str] = [],
    parallel: int = 1,
) -> list[dict[str, Any]]:
    """Runs the pipeline once for each of several overrides.

    Every run is a flow run of its own, in a workspace of its own. In MLflow all their models stand
    under one parent.

    Args:
        grid: All combinations of these (`{"train.alpha": [0.1, 0.2], "train.seeds": [[0]]}`).
        runs: These as they are (`[{"train.alpha": 0.1}, {"train.alpha": 0.2}]`).
        corpora: Only these corpora; empty: all.
        variants: Only models of these variants; empty: all.
        parallel: How many runs go on at a time. Stages still take turns, unless the limit
            `brewline-compute` is raised.

    Returns:
        A row for each run, corpus and variant, the best on dev first.
    """
    # Imported late, with torch: the process that serves the flows can do without.
    from brewline.evaluation.scores import SELECTION_METRIC

    project = Path.cwd()
    chosen = combinations(grid, runs)
    # Bad overrides show before anything runs.
    folders = [make_workspace(project, overrides) for overrides in chosen]
    _run_all(chosen, corpora, variants, parallel)
    rows = [
        row
        for overrides, folder in zip(chosen, folders, strict=True)
        for row in _dev_results(folder, overrides, SELECTION_METRIC)
        if (not corpora or row["corpus"] in corpora)
        and (not variants or row["variant"] in variants)
    ]
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
    chosen: Sequence[dict[str, Any]], corpora: list[str], variants: list[str], parallel: int
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
                running[number] = _start(number, overrides, corpora, variants)
            time.sleep(0.5)
            for number, child in list(running.items()):
                if child.poll() is not None:
                    stop_group(running.pop(number))
                    failed += [number] if child.returncode else []
    finally:
        for child in running.values():
            stop_group(child)
    if failed:
        log = _log_folder() / f"{failed[0]}.log"
        raise BrewlineError(
            f"{len(failed)} of {len(chosen)} runs failed, the first with "
            f"{json.dumps(chosen[failed[0]])}: see its flow run, or {log}",
            "crash",
        )


def _start(
    number: int, overrides: dict[str, Any], corpora: list[str], variants: list[str]
) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "brewline.core.system", str(os.getpid())]
    command += [sys.executable, "-m", "flows", "pipeline", "--overrides", json.dumps(overrides)]
    command += ["--corpora", *corpora] if corpora else []
    command += ["--variants", *variants] if variants else []
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
    for path in sorted((folder / "metrics").glob("*.json")):
        for variant, metrics in read_json(path).items():
            if metric in metrics:
                rows.append(
                    {
                        "overrides": json.dumps(overrides),
                        "corpus": path.stem,
                        "variant": variant,
                        metric: metrics[metric],
                    }
                )
    return rows
