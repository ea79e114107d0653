"""`make ui`: the Prefect server, the MLflow server and the deployments, until Ctrl-C.

python -m flows.ui [--prefect-port 4200] [--mlflow-port 5000]

All of it listens on loopback alone. A port that is taken is replaced by a free one.
"""

import argparse
import contextlib
import signal
import sys
import threading
from pathlib import Path

from brewline.config import load_params
from brewline.core.errors import BrewlineError
from brewline.core.files import remove, write_json
from brewline.tracking.first_view import runs_link
from flows.dead_runs import end_dead_runs
from flows.repository import let_dvc_run_without_git
from flows.server import (
    SERVER_FILE,
    Service,
    environment,
    mlflow_server,
    prefect_server,
)

# With it all are registered; its module would bring the whole of Prefect into this process.
_LAST_DEPLOYMENT = "rollback/roll-back-model"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefect-port", type=int, default=4200)
    parser.add_argument("--mlflow-port", type=int, default=5000)
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        _serve(arguments.prefect_port, arguments.mlflow_port, stop)
    except BrewlineError as error:
        sys.exit(f"error: {error}")


def _serve(prefect_port: int, mlflow_port: int, stop: threading.Event) -> None:
    project = Path.cwd()
    let_dvc_run_without_git(project)
    with contextlib.ExitStack() as stack:
        # It comes up while Prefect is waited for.
        mlflow = stack.enter_context(mlflow_server(project, mlflow_port))
        prefect = stack.enter_context(prefect_server(project, prefect_port))
        mlflow.wait_until_ready()
        write_json(project / SERVER_FILE, {"api_url": prefect.url, "mlflow_url": mlflow.url})
        stack.callback(remove, project / SERVER_FILE)
        # Runs that end with us are written down as such while the server is still there.
        stack.callback(end_dead_runs, prefect.url, project)
        # A run that somebody starts begins after two seconds, not ten.
        own = {"MLFLOW_TRACKING_URI": mlflow.url, "PREFECT_RUNNER_POLL_FREQUENCY": "2"}
        deployments = Service(
            name="process that starts flows",
            url=prefect.url,
            ready_url=f"{prefect.url}/deployments/name/{_LAST_DEPLOYMENT}",
            log=project / "work/deployments.log",
            command=[sys.executable, "-m", "flows.deployments"],
            environment=environment(project, prefect.url) | own,
        )
        stack.enter_context(deployments.running())
        deployments.wait_until_ready()
        print(f"Prefect: {prefect.url.removesuffix('/api')}   start and watch flows")
        print(f"MLflow:  {runs_link(load_params(), mlflow.url)}   compare runs, see models")
        print("Ctrl-C stops all of it.", flush=True)
        while not stop.wait(1.0):
            for service in (mlflow, prefect, deployments):
                if service.gave_up:
                    raise BrewlineError(
                        f"the {service.name} ends again and again; see {service.log}", "crash"
                    )
        print("stopping", flush=True)


if __name__ == "__main__":
    main()
