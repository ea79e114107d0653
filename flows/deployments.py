"""What the Prefect UI can start: `python -m flows.deployments` serves it until it is stopped."""

from datetime import timedelta
from typing import Any

from prefect import Flow, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Interval

from flows.pipeline import pipeline
from flows.promote import promote, rollback
from flows.sweep import sweep
from flows.watch import watch

# What is scheduled does not pile up behind a run that takes longer than its interval.
_ONE_AT_A_TIME = ConcurrencyLimitConfig(
    limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW
)


def _deployment(flow: Flow[..., Any], name: str, **settings: Any) -> RunnerDeployment:
    # The form offers what params.yaml held when this process started; what came since may be asked
    # for too, and the flow itself says what is wrong.
    settings = {"description": flow.description} | settings
    return RunnerDeployment.from_flow(flow, name, enforce_parameter_schema=False, **settings)


def main() -> None:
    """Serves the deployments; runs are processes of this one."""
    serve(
        _deployment(pipeline, "run-pipeline"),
        # An example: every Monday at three, once somebody switches the schedule on in the UI.
        _deployment(
            pipeline,
            "weekly-retrain",
            description="Trains every model again, every Monday at three.",
            parameters={"from_stage": "train"},
            schedule=Cron("0 3 * * 1", active=False),
            concurrency_limit=_ONE_AT_A_TIME,
        ),
        _deployment(
            watch,
            "watch-sources",
            schedule=Interval(timedelta(minutes=5)),
            concurrency_limit=_ONE_AT_A_TIME,
        ),
        _deployment(sweep, "run-sweep"),
        _deployment(promote, "promote-model"),
        _deployment(rollback, "roll-back-model"),
        # Schedules survive a restart of this process.
        pause_on_shutdown=False,
        print_starting_message=False,
    )


if __name__ == "__main__":
    main()
