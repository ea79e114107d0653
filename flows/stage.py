"""A stage of the pipeline as a task: run by DVC, heard, limited in time, tried again if useful."""

import contextlib
import os
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import flow_run, task_run
from prefect.tasks import Task

from brewline.core.errors import BrewlineError, FailureKind
from brewline.core.files import read_json, remove
from brewline.core.locks import slot
from brewline.core.programs import failure_file
from brewline.tracking.pipeline_runs import NAME_VARIABLE
from brewline.tracking.runs import PIPELINE_VARIABLE
from brewline.tracking.store import tracking_uri
from flows import artifacts
from flows.children import Children, Line, TimeLimitError
from flows.graph import DVC_IS_BUSY

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
_OF_DVC = "|memory://"
_BUSY = ("Unable to acquire lock", "is busy, it is being blocked by")
_RESTORED = "is cached - skipping run"
_STATUS = re.compile(r"exited with (-?\d+)$")
_KEPT_LINES = 40
_RECORD_LIMIT_S = 600.0


class StageFailedError(BrewlineError):
    """A stage failed."""

    def __init__(self, stage: str, kind: FailureKind, message: str) -> None:
        super().__init__(f"{stage} failed ({kind}): {message}", kind)


@dataclass(frozen=True)
class Work:
    """Where and how the stages of a run work.

    `project` is the project's folder; `folder` that, or a workspace in it; `parallel` how many
    stages may use the machine at a time; `run_key` names the run in MLflow, where it gathers the
    models; `children` are the processes in which it works.
    """

    project: Path
    folder: Path
    time_limit_h: float
    parallel: int
    run_key: str
    children: Children = field(default_factory=Children)


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
    retry_condition_fn=another_try_helps,
    cache_policy=NO_CACHE,
)
def run_stage(stage: str, work: Work, force: bool) -> str:
    """Runs one stage with DVC, in a process group that ends with this task.

    Args:
        stage: Its address in `dvc.yaml`.
        work: Where and how.
        force: Runs it even if nothing changed.

    Returns:
        `ran`, or `restored` where DVC's run cache had the result.

    Raises:
        StageFailedError: it failed; the kind is that of its file in `work/failures/`.
        Stopped: the flow is being stopped.
    """
    logger = get_run_logger()
    # DVC keeps its lock for moments; another stage may have it in any of them.
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", stage]
    reporter = _Reporter(stage)
    num_tries = task_run.get_run_count() or 1
    if num_tries > 1:
        # Not by Prefect, which sleeps in a thread that nothing can wake.
        delay_s = RETRY_DELAYS_S[num_tries - 2]
        logger.info("%s: the next try is in %.0f seconds", stage, delay_s)
        work.children.pause(delay_s)

    def wait(holder: str) -> None:
        logger.info("%s: waiting for the machine, which process %s uses", stage, holder)

    with slot(work.project, work.parallel, wait, work.children.pause):
        # DVC may fail before the stage begins.
        remove(work.folder / failure_file(stage))
        try:
            status = work.children.run(
                [*command, "--force"] if force else command,
                work.folder,
                _environment(work.run_key),
                reporter,
                work.time_limit_h * 3600,
            )
        except TimeLimitError:
            message = f"it took more than {work.time_limit_h:g} hours and was stopped"
            raise StageFailedError(stage, "time", message) from None
    if status != 0:
        raise _failure(stage, work.folder, reporter.last_lines)
    reporter.done()
    restored = any(_RESTORED in line for line in reporter.last_lines)
    if restored:
        logger.info("%s: DVC's run cache had the result", stage)
    return "restored" if restored else "ran"


def record_tables(tables: list[str], work: Work) -> None:
    """Completes MLflow's runs of these tables: no stage has recorded what DVC's cache had."""
    command = [sys.executable, "-m", "brewline.cli", "record", "--tables", *tables]
    said: list[Line] = []
    environment = _environment(work.run_key)
    try:
        status = work.children.run(command, work.folder, environment, said.append, _RECORD_LIMIT_S)
    except TimeLimitError:
        status = 1
    if status != 0:
        last = said[-1].text if said else "it said nothing"
        get_run_logger().warning("`brewline record` has to be run again: %s", last)


class _Reporter:
    """Logs what a stage writes; of a progress bar it keeps an artifact and few log lines."""

    def __init__(self, stage: str) -> None:
        self.last_lines: list[str] = []
        self._logger = get_run_logger()
        self._key = f"progress-{artifacts.key_of(stage)}"
        self._artifact: Any = None
        self._next_update = self._next_log = time.monotonic() + _PROGRESS_EVERY_S

    def __call__(self, line: Line) -> None:
        if not line.redraw and not line.is_unfinished_bar:
            self.last_lines = [*self.last_lines, line.text][-_KEPT_LINES:]
            if not line.text.strip().startswith(_CHATTER):
                self._logger.info("%s", line.text)
        now = time.monotonic()
        # DVC draws bars of other kinds over what it does in a moment.
        if line.percent is None or _OF_DVC in line.text:
            return
        if now > self._next_log:
            self._next_log = now + _LOG_PROGRESS_EVERY_S
            self._logger.info("%s", line.text)
        if now > self._next_update:
            self._next_update = now + _PROGRESS_EVERY_S
            self._show(line.percent)

    def done(self) -> None:
        if self._artifact is not None:
            self._show(100.0)

    def _show(self, percent: float) -> None:
        with artifacts.never_in_the_way():
            if self._artifact is None:
                self._artifact = create_progress_artifact(progress=percent, key=self._key)
            else:
                update_progress_artifact(self._artifact, progress=percent)


def _failure(stage: str, folder: Path, last_lines: list[str]) -> StageFailedError:
    """What went wrong, from the stage's own words where it left any."""
    # There is none where a stage was killed, or where the disk had no room for it.
    with contextlib.suppress(OSError, ValueError, KeyError):
        failure = read_json(folder / failure_file(stage))
        return StageFailedError(stage, failure["kind"], failure["message"])
    busy = next((line for line in last_lines if any(words in line for words in _BUSY)), None)
    if busy:
        # What DVC says of its lock sends people to remove it, under whoever holds it.
        is_locked = _BUSY[0] in busy
        return StageFailedError(stage, "busy", DVC_IS_BUSY if is_locked else busy)
    own = [line.removeprefix("error: ") for line in last_lines if line.startswith("error: ")]
    if own:
        return StageFailedError(stage, "crash", own[-1])
    of_dvc = [line for line in last_lines if "ERROR" in line]
    last = ["no message", *last_lines[-1:], *of_dvc][-1]
    status = _STATUS.search(last)
    # Of the shell, which says 128 and more, or of the stage itself.
    if status and (int(status[1]) < 0 or int(status[1]) > 128):
        number = abs(int(status[1])) % 128
        last = f"it was killed (signal {number})"
        last += "; the system does that where no memory is left" if number == 9 else ""
    return StageFailedError(stage, "crash", last)


def _environment(run_key: str) -> dict[str, str]:
    """Of a stage: this Python first, and the tracking store of the project, not of a workspace."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return os.environ | {
        "PATH": path,
        PIPELINE_VARIABLE: run_key,
        NAME_VARIABLE: str(flow_run.get_name()),
        # A sweep's runs would otherwise hand on the sweep's.
        "PREFECT__FLOW_RUN_ID": str(flow_run.get_id()),
        "MLFLOW_TRACKING_URI": tracking_uri(),
        "DVC_NO_ANALYTICS": "1",
    }
