"""Flow `pipeline`: `dvc repro` with eyes, each stale stage a task of its own."""

import os
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from prefect.futures import PrefectFuture
from prefect.runtime import flow_run
from pydantic import Field

from brewline.config import load_params
from brewline.core.errors import BrewlineError
from brewline.core.files import remove
from brewline.report.changes import METRICS, metrics_here
from brewline.tracking.runs import PIPELINE_VARIABLE
from flows import artifacts, form
from flows.dead_runs import alive
from flows.graph import Plan, Stage, changes, plan, read_graph, with_descendants
from flows.repository import let_dvc_run_without_git
from flows.stage import StageFailedError, Work, record_tables, run_stage
from flows.workspace import held, make_workspace, narrow_to


@dataclass
class Outcome:
    """What became of a stage in a run."""

    stage: str
    state: str
    why: str
    seconds: float | None = None


@dataclass(frozen=True)
class _Started:
    """A stage at work: why, since when (of `time.monotonic`), and its task."""

    why: str
    at: float
    future: PrefectFuture[str]


# What the form offers.
Corpora = Annotated[list[str], form.Choice(form.corpora)]
Experiments = Annotated[list[str], form.Choice(form.experiments)]
StageName = Annotated[str, form.Choice(form.stages, ("",))]


@flow(name="pipeline", flow_run_name=lambda: form.run_name(flow_run.parameters))
def pipeline(
    corpora: Corpora = [],
    experiments: Experiments = [],
    overrides: dict[str, Any] = {},
    force: bool = False,
    from_stage: StageName = "",
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
    logger, run_id = get_run_logger(), str(flow_run.get_id())
    place = make_workspace(project, overrides) if overrides else project
    with alive(project, run_id), held(place, logger.info) as folder:
        parallel = load_params(project / "params.yaml").runtime.num_parallel_stages
        run_key = os.environ.get(PIPELINE_VARIABLE) or run_id
        stages = read_graph(folder, logger.info)
        chosen = plan(stages, corpora, experiments, from_stage, force)
        if overrides and experiments:
            narrow_to(folder, _up_to_date_after(folder, stages, chosen))
            stages = read_graph(folder, logger.info)
            chosen = plan(stages, corpora, experiments, from_stage, force)
        params = load_params(folder / "params.yaml")
        before = metrics_here(folder / METRICS)
        work = Work(project, folder, time_limit_h, parallel, run_key)
        run = _Run(work, stages, chosen)
        try:
            run.bring_up_to_date()
            run.record()
        finally:
            # A signal ends this thread alone, and Prefect would wait for the others.
            work.children.stop()
            artifacts.stages_table(run.outcomes, folder, params)
        artifacts.results(folder, params, before)
        run.check_delivered()
    return {outcome.stage: outcome.state for outcome in run.outcomes}


def _up_to_date_after(folder: Path, stages: list[Stage], chosen: Plan) -> set[str]:
    """The experiments whose vectors are up to date once the chosen stages have run."""
    names = {stage.name for stage in chosen.stages}
    left = with_descendants(stages, {*changes(folder), *chosen.forced}) - names
    return {
        stage.experiment
        for stage in stages
        if stage.kind == "embed" and stage.experiment and stage.name not in left
    }


class _Run:
    """A walk over the stages, a few at a time, which goes round whatever failed."""

    def __init__(self, work: Work, stages: list[Stage], chosen: Plan) -> None:
        self.outcomes: list[Outcome] = []
        self._work = work
        self._stages = stages
        self._chosen = chosen
        self._logger = get_run_logger()
        # Of each stage that is stale now and stays so, why.
        self._left: dict[str, str] = {}
        self._failures: list[StageFailedError] = []
        self._running: dict[str, _Started] = {}
        self._ended: queue.SimpleQueue[str] = queue.SimpleQueue()

    def bring_up_to_date(self) -> None:
        """Runs every chosen stage that is stale, and all of whose inputs are as they should be."""
        try:
            # First, so that DVC is asked once what that makes stale.
            looking = [stage for stage in self._chosen.stages if stage.looks]
            self._walk(looking, lambda stage: self._start(stage, ["looks every time"]))
            stale = {*changes(self._work.folder, on_wait=self._logger.info), *self._chosen.forced}
            maybe_stale = with_descendants(self._stages, {*stale, *self._left})
            self._walk(
                [stage for stage in self._stages if not stage.looks],
                lambda stage: self._settle(stage, stage.name in maybe_stale),
            )
        finally:
            place = {stage.name: number for number, stage in enumerate(self._stages)}
            self.outcomes.sort(key=lambda outcome: place[outcome.stage])

    def _walk(self, stages: list[Stage], settle: Callable[[Stage], None]) -> None:
        """Settles stages, each after those that it depends on: starts them, or says why not."""
        waiting = {stage.name: stage for stage in stages}
        while waiting or self._running:
            ready = next(
                (one for one in waiting.values() if not one.upstream & {*waiting, *self._running}),
                None,
            )
            if ready and len(self._running) < self._work.parallel:
                settle(waiting.pop(ready.name))
            else:
                self._end(self._ended.get())

    def _settle(self, stage: Stage, maybe_stale: bool) -> None:
        is_chosen = stage in self._chosen.stages
        missing = sorted(stage.upstream & {*self._left})
        if not maybe_stale:
            if is_chosen:
                self.outcomes.append(Outcome(stage.name, "up to date", ""))
        elif not is_chosen:
            # What stands behind a stage that ran may turn out to be as it was.
            if missing or self._changes(stage):
                self._left[stage.name] = f"{stage.name} is stale and not chosen"
        elif missing:
            # DVC would run it on whatever lies there, with `--single-item`.
            why = self._left[stage.name] = self._left[missing[0]]
            self._logger.warning("%s is left out: %s", stage.name, why)
            self.outcomes.append(Outcome(stage.name, "left out", why))
        else:
            self._start_if_stale(stage)

    def record(self) -> None:
        """Brings what this run measured, or took from DVC's cache, into MLflow as its own."""
        measured = [
            outcome.stage.removeprefix("score@")
            for outcome in self.outcomes
            # Of a stage that ran too: only now is there the report to link to.
            if outcome.stage.startswith("score@") and outcome.state in ("ran", "restored")
        ]
        if measured:
            record_tables(measured, self._work)

    def check_delivered(self) -> None:
        """Raises what failed, or what was asked for and could not be done.

        Raises:
            StageFailedError: the only stage that failed.
            BrewlineError: several failed, or something is left out.
        """
        if len(self._failures) == 1:
            raise self._failures[0]
        if self._failures:
            told = "\n".join(f"  {failure}" for failure in self._failures)
            raise BrewlineError(f"{len(self._failures)} stages failed:\n{told}", "crash")
        undone = [
            outcome
            for outcome in self.outcomes
            if outcome.state == "left out" and outcome.stage in self._chosen.asked
        ]
        if undone:
            raise BrewlineError(
                f"{', '.join(outcome.stage for outcome in undone)} could not be done: "
                f"{undone[0].why}; choose that too, or everything",
                "settings",
            )

    def _changes(self, stage: Stage) -> list[str]:
        # Where a stage of ours is at work, it is its DVC that is waited for now and then.
        tell = self._logger.debug if self._running else self._logger.info
        return changes(self._work.folder, stage.name, tell).get(stage.name, [])

    def _start_if_stale(self, stage: Stage) -> None:
        forced = stage.name in self._chosen.forced
        reasons = ["forced"] if forced else self._changes(stage)
        if not reasons:
            self.outcomes.append(Outcome(stage.name, "up to date", ""))
            return
        if forced and stage.kind == "train":
            # Else it would find every seed finished, and train none.
            for finished in self._work.folder.glob(f"work/train/{stage.subject}/*/finished.json"):
                remove(finished.parent)
        self._start(stage, reasons)

    def _start(self, stage: Stage, reasons: list[str]) -> None:
        name = stage.name
        self._logger.info("%s: %s", name, "; ".join(reasons[:3]))
        future = run_stage.submit(name, self._work, name in self._chosen.forced)
        self._running[name] = _Started("; ".join(reasons), time.monotonic(), future)
        future.add_done_callback(lambda _: self._ended.put(name))

    def _end(self, name: str) -> None:
        started = self._running.pop(name)
        try:
            state = started.future.result()
        except StageFailedError as failure:
            # What does not depend on it goes on: a night should not be lost for one corpus.
            state = "failed"
            self._failures.append(failure)
            self._left[name] = f"{name} failed"
        seconds = time.monotonic() - started.at
        self.outcomes.append(Outcome(name, state, started.why, seconds))
