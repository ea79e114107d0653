"""What the Prefect UI can start: `python -m flows.deployments` serves it until it is stopped."""

from datetime import timedelta

from prefect import serve
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Interval

from flows.pipeline import pipeline
from flows.promote import promote, rollback
from flows.server import make_compute_slot
from flows.sweep import sweep
from flows.watch import watch


def main() -> None:
    """Serves the deployments; runs are processes of this one."""
    make_compute_slot()
    serve(
        RunnerDeployment.from_flow(pipeline, "on-demand", description=pipeline.description),
        # An example: every Monday at three, once somebody switches the schedule on in the UI.
        RunnerDeployment.from_flow(
            pipeline,
            "weekly-retrain",
            description="Trains every model again, every Monday at three.",
            parameters={"from_stage": "train"},
            schedule=Cron("0 3 * * 1", active=False),
        ),
        RunnerDeployment.from_flow(
            watch,
            "every-five-minutes",
            description=watch.description,
            schedule=Interval(timedelta(minutes=5)),
        ),
        RunnerDeployment.from_flow(sweep, "on-demand", description=sweep.description),
        RunnerDeployment.from_flow(promote, "on-demand", description=promote.description),
        RunnerDeployment.from_flow(rollback, "on-demand", description=rollback.description),
        # Schedules survive a restart of this process.
        pause_on_shutdown=False,
        print_starting_message=False,
    )


if __name__ == "__main__":
    main()
