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
from collections.abc import Iterator
from pathlib import Path

from brewline.errors import BrewlineError
from brewline.files import remove, write_json
from brewline.params import load_params
from brewline.tracking import open_store, tracking_uri
from flows.server import SERVER_FILE, environment, free_port, running_server, service


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
        mlflow_url = stack.enter_context(_mlflow(project, mlflow_port))
        os.environ["MLFLOW_TRACKING_URI"] = mlflow_url
        api_url = stack.enter_context(running_server(project, prefect_port))
        write_json(project / SERVER_FILE, {"api_url": api_url, "mlflow_url": mlflow_url})
        stack.callback(remove, project / SERVER_FILE)
        command = [sys.executable, "-m", "flows.deployments"]
        log = project / "work/deployments.log"
        ready = f"{api_url}/deployments/name/pipeline/on-demand"
        children = environment(project, api_url)
        served = stack.enter_context(service(command, children, ready, log))
        print(f"Prefect: {api_url.removesuffix('/api')}   start and watch flows")
        print(f"MLflow:  {mlflow_url}   compare runs, see models")
        print("Ctrl-C stops all of it.", flush=True)
        while not stop.wait(1.0):
            if served.poll() is not None:
                raise BrewlineError(f"the deployments ended by themselves; see {log}", "crash")
        print("stopping", flush=True)


@contextlib.contextmanager
def _mlflow(project: Path, port: int) -> "Iterator[str]":
    """The configured MLflow server, or one of our own over the project's store."""
    configured = os.environ.get("MLFLOW_TRACKING_URI", "")
    if configured.startswith("http"):
        yield configured
        return
    # Makes the schema and the experiment, so that nothing races to do it.
    open_store(load_params().tracking)
    port = free_port(port)
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1", "--backend-store-uri", tracking_uri()]
    command += ["--artifacts-destination", (project / "mlartifacts").absolute().as_uri()]
    # Its job runners, which nothing here uses, would take most of a gigabyte.
    own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    log = project / "work/mlflow-server.log"
    with service(command, environment(project) | own, f"{url}/health", log):
        yield url


if __name__ == "__main__":
    main()
