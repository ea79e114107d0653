"""Flow `pipeline`: `dvc repro` with eyes, each stale stage a task of its own."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.concurrency.sync import concurrency
from prefect.runtime import flow_run
from prefect.tasks import Task
from pydantic import Field

from brewline.config import load_params
from brewline.core.errors import BrewlineError, FailureKind
from brewline.core.files import read_json, remove
from brewline.core.programs import FAILURE_FILE
from brewline.tracking.runs import PIPELINE_VARIABLE
from brewline.tracking.store import tracking_uri
from flows import artifacts
from flows.children import Line, TimeLimitError, run_child
from flows.graph import DVC_IS_BUSY, Stage, changes, plan, read_graph, with_descendants
from flows.repository import let_dvc_run_without_git
from flows.server import COMPUTE_SLOT, make_compute_slot
from flows.workspace import held, make_workspace

# Prefect writes down that a task runs while the task already does. A request for a slot that meets
# this finds SQLite busy, and is repeated only two seconds later, at every stage.
_RECORDED_S = 0.2
# How often a stage is tried, by the kind of its failure; every other kind is tried once.
TRIES = {"network": 4, "busy": 4, "crash": 2}
RETRY_DELAYS_S = [10.0, 60.0, 300.0]
_PROGRESS_EVERY_S = 5.0
_LOG_PROGRESS_EVERY_S = 60.0
# What DVC says after every stage and nobody needs to read again.
_CHATTER = (
    "Updating lock file",
    "To track the changes",
    "git add",
    "To enable auto",
    "dvc config",
    "Use `dvc push`",
)
_BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
_RESTORED = "is cached - skipping run"
_KEPT_LINES = 40


class StageFailedError(BrewlineError):
    """A stage failed."""

    def __init__(self, stage: str, kind: FailureKind, message: str) -> None:
        super().__init__(f"{stage} failed ({kind}): {message}", kind)


@dataclass
class Outcome:
    """What became of a stage in a run."""

    stage: str
    state: str
    why: str
    seconds: float | None = None


def another_try_helps(
    task: Task[..., Any],
    run: TaskRun,
    state: "State[Any]",
) -> bool:
    """Whether a failed stage is to be tried again."""
    error = state.result(raise_on_failure=False)
    tries = TRIES.get(error.kind, 1) if isinstance(error, StageFailedError) else 1
    return run.run_count < tries


@task(
    task_run_name="{stage}",
    retries=max(TRIES.values()) - 1,
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=another_try_helps,
    cache_policy=NO_CACHE,
)
def run_stage(stage: str, folder: Path, force: bool, time_limit_h: float, run_key: str) -> str:
    """Runs one stage with DVC, in a process group that ends with this task.

    Args:
        stage: Its address in `dvc.yaml`.
        folder: The tree or workspace.
        force: Runs it even if nothing changed.
        time_limit_h: When to stop it.
        run_key: Names the pipeline run, under which MLflow gathers the models.

    Returns:
        `ran`, or `restored` where DVC's run cache had the result.

    Raises:
        StageFailedError: it failed; the kind is that of `work/failure.json`.
    """
    logger = get_run_logger()
    remove(folder / FAILURE_FILE)
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", stage]
    reporter = _Reporter(stage)
    time.sleep(_RECORDED_S)
    with concurrency(COMPUTE_SLOT, occupy=1, strict=True, lease_duration=60):
        try:
            status = run_child(
                [*command, "--force"] if force else command,
                folder,
                _environment(run_key),
                reporter,
                time_limit_h * 3600,
            )
        except TimeLimitError:
            message = f"it took more than {time_limit_h:g} hours and was stopped"
            raise StageFailedError(stage, "time", message) from None
    if status != 0:
        raise _failure(stage, folder, reporter.last_lines)
    reporter.done()
    restored = any(_RESTORED in line for line in reporter.last_lines)
    if restored:
        logger.info("%s: DVC's run cache had the result", stage)
    return "restored" if restored else "ran"


class _Reporter:
    """Logs what a stage writes; of a progress bar it keeps an artifact and few log lines."""

    def __init__(self, stage: str) -> None:
        self.last_lines: list[str] = []
        self._logger = get_run_logger()
        self._key = f"progress-{artifacts.key_of(stage)}"
        self._artifact: Any = None
        self._next_update = self._next_log = time.monotonic() + _PROGRESS_EVERY_S

    def __call__(self, line: Line) -> None:
        if not line.redraw:
            self.last_lines = [*self.last_lines, line.text][-_KEPT_LINES:]
            if not line.text.strip().startswith(_CHATTER):
                self._logger.info("%s", line.text)
        now = time.monotonic()
        if line.redraw and now > self._next_log:
            self._next_log = now + _LOG_PROGRESS_EVERY_S
            self._logger.info("%s", line.text)
        if line.percent is not None and now > self._next_update:
            self._next_update = now + _PROGRESS_EVERY_S
            self._show(line.percent)

    def done(self) -> None:
        if self._artifact is not None:
            self._show(100.0)

    def _show(self, percent: float) -> None:
        if self._artifact is None:
            self._artifact = create_progress_artifact(progress=percent, key=self._key)
        else:
            update_progress_artifact(self._artifact, progress=percent)


def _failure(stage: str, folder: Path, last_lines: list[str]) -> StageFailedError:
    """What went wrong, from the stage's own words where it left any."""
    # There is none where a stage was killed, or where the disk had no room for it.
    with contextlib.suppress(OSError, ValueError, KeyError):
        failure = read_json(folder / FAILURE_FILE)
        return StageFailedError(stage, failure["kind"], failure["message"])
    busy = next((line for line in last_lines if any(words in line for words in _BUSY)), None)
    if busy:
        # What DVC says of its lock sends people to remove it, under whoever holds it.
        is_locked = _BUSY[0] in busy
        return StageFailedError(stage, "busy", DVC_IS_BUSY if is_locked else busy)
    own = [line.removeprefix("error: ") for line in last_lines if line.startswith("error: ")]
    of_dvc = [line for line in last_lines if "ERROR" in line]
    last = ["no message", *of_dvc, *own][-1]
    return StageFailedError(stage, "crash", last)


def _environment(run_key: str) -> dict[str, str]:
    """Of a stage: this Python first, and the tracking store of the project, not of a workspace."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return os.environ | {
        "PATH": path,
        PIPELINE_VARIABLE: run_key,
        # A sweep's runs would otherwise hand on the sweep's.
        "PREFECT__FLOW_RUN_ID": str(flow_run.get_id()),
        "MLFLOW_TRACKING_URI": tracking_uri(),
        "DVC_NO_ANALYTICS": "1",
    }


@flow(name="pipeline")
def pipeline(
    corpora: list[str] = [],
    experiments: list[str] = [],
    overrides: dict[str, Any] = {},
    force: bool = False,
    from_stage: str = "",
    time_limit_h: Annotated[float, Field(gt=0)] = 24.0,
) -> dict[str, str]:
    """Brings everything up to date: data, transcripts, models, metrics, report.

    Args:
        corpora: Only these corpora (`mini-lncoco`); empty: all of params.yaml.
        experiments: Only these experiments (`mini-lncoco-full`); empty: all of params.yaml.
        overrides: Other values for this run alone, by their names in params.yaml
            (`{"variants.full.alpha": 0.2}`). The run then works in a workspace of its own.
        force: Run every chosen stage again, even if nothing changed.
        from_stage: Run this stage again (`train`, or `score@mini-lncoco`), and after it whatever
            its new results change.
        time_limit_h: Stop a stage that takes more hours than this.

    Returns:
        What became of each stage.
    """
    project = Path.cwd()
    let_dvc_run_without_git(project)
    run_key = os.environ.get(PIPELINE_VARIABLE) or str(flow_run.get_id())
    place = make_workspace(project, overrides) if overrides else project
    make_compute_slot()
    outcomes: list[Outcome] = []
    with held(place, get_run_logger().info) as folder:
        params = load_params(folder / "params.yaml")
        try:
            for outcome in _run_stages(
                folder, run_key, corpora, experiments, from_stage, force, time_limit_h
            ):
                outcomes.append(outcome)
        finally:
            artifacts.stages_table(outcomes)
        artifacts.results(folder, params)
    return {outcome.stage: outcome.state for outcome in outcomes}


def _run_stages(
    folder: Path,
    run_key: str,
    corpora: list[str],
    experiments: list[str],
    from_stage: str,
    force: bool,
    time_limit_h: float,
) -> Iterator[Outcome]:
    logger = get_run_logger()
    stages = read_graph(folder, logger.info)
    chosen = plan(stages, corpora, experiments, from_stage, force)
    maybe_stale = with_descendants(stages, {*changes(folder, on_wait=logger.info), *chosen.forced})
    names = {stage.name for stage in chosen.stages}
    left_out: set[str] = set()
    for stage in stages:
        missing = sorted(stage.upstream & left_out)
        if stage.name not in names:
            # What stands behind a stage that ran may turn out to be as it was.
            if stage.name in maybe_stale and (
                missing or changes(folder, stage.name, logger.info).get(stage.name)
            ):
                left_out.add(stage.name)
            continue
        if stage.name not in maybe_stale:
            yield Outcome(stage.name, "up to date", "")
        elif missing:
            # DVC would run it on whatever lies there, with `--single-item`.
            left_out.add(stage.name)
            logger.warning("%s is left out: %s is stale and not chosen", stage.name, missing[0])
            yield Outcome(stage.name, "left out", f"{missing[0]} is stale and not chosen")
        else:
            forced = stage.name in chosen.forced
            yield from _bring_up_to_date(stage, folder, forced, time_limit_h, run_key)


def _bring_up_to_date(
    stage: Stage, folder: Path, forced: bool, time_limit_h: float, run_key: str
) -> Iterator[Outcome]:
    """Runs a stage if it is stale now, or forced."""
    logger = get_run_logger()
    why = ["forced"] if forced else changes(folder, stage.name, logger.info).get(stage.name, [])
    if not why:
        yield Outcome(stage.name, "up to date", "")
        return
    logger.info("%s: %s", stage.name, "; ".join(why[:3]))
    if forced and stage.kind == "train":
        # Else it would find every seed finished, and train none.
        for finished in folder.glob(f"work/train/{stage.subject}/*/finished.json"):
            remove(finished.parent)
    started = time.monotonic()
    try:
        state = run_stage(stage.name, folder, forced, time_limit_h, run_key)
    except Exception:
        yield Outcome(stage.name, "failed", "; ".join(why), time.monotonic() - started)
        raise
    yield Outcome(stage.name, state, "; ".join(why), time.monotonic() - started)
