"""`make ui`: the Prefect server, the MLflow server and the deployments, until Ctrl-C.

python -m flows.ui [--prefect-port 4200] [--mlflow-port 5000]

All of it listens on loopback alone. A port that is taken is replaced by a free one.
"""

import argparse
import contextlib
import os
import signal
import sys
import threading
from pathlib import Path

from brewline.errors import BrewlineError
from brewline.files import remove, write_json
from flows.server import SERVER_FILE, environment, running_mlflow, running_server, service


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
    with contextlib.ExitStack() as stack:
        mlflow_url = stack.enter_context(running_mlflow(project, mlflow_port))
        os.environ["MLFLOW_TRACKING_URI"] = mlflow_url
        api_url = stack.enter_context(running_server(project, prefect_port))
        write_json(project / SERVER_FILE, {"api_url": api_url, "mlflow_url": mlflow_url})
        stack.callback(remove, project / SERVER_FILE)
        command = [sys.executable, "-m", "flows.deployments"]
        log = project / "work/deployments.log"
        # The last one that it registers.
        ready = f"{api_url}/deployments/name/rollback/on-demand"
        children = environment(project, api_url)
        served = stack.enter_context(service(command, children, ready, log))
        print(f"Prefect: {api_url.removesuffix('/api')}   start and watch flows")
        print(f"MLflow:  {mlflow_url}   compare runs, see models")
        print("Ctrl-C stops all of it.", flush=True)
        while not stop.wait(1.0):
            if served.poll() is not None:
                raise BrewlineError(f"the deployments ended by themselves; see {log}", "crash")
        print("stopping", flush=True)


if __name__ == "__main__":
    main()
