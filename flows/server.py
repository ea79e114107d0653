"""The Prefect and MLflow servers of this machine: those that are there, or ones of our own."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import requests

from brewline.config import load_params
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json
from brewline.core.system import flock
from brewline.tracking.store import open_store, tracking_uri
from flows.children import stop_group

# One stage at a time uses the machine; raise the limit in the UI where there is more of it.
COMPUTE_SLOT = "brewline-compute"
HOME = Path(".prefect")
# What `make ui` writes down of a server that it runs.
SERVER_FILE = HOME / "server.json"
_START_S = 90.0

# Nothing phones home, and no banner asks to.
_QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def environment(project: Path, api_url: str | None = None) -> dict[str, str]:
    """The environment of every process that uses Prefect."""
    home = {"PREFECT_HOME": os.environ.get("PREFECT_HOME", str((project / HOME).absolute()))}
    return os.environ | _QUIET | home | ({"PREFECT_API_URL": api_url} if api_url else {})


def free_port(wanted: int = 0) -> int:
    """Returns the wanted port if nobody listens on it, else one that the system chooses."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            # As servers do; else the port of one that has just ended counts as taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return int(probe.getsockname()[1])
    raise BrewlineError("no port is free on 127.0.0.1", "crash")


def answers(url: str) -> bool:
    """Whether a server says at this address that it is well."""
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def known_api_url(project: Path) -> str | None:
    """The configured server, else the one that `make ui` runs, else None."""
    configured = os.environ.get("PREFECT_API_URL")
    if configured:
        return configured
    file = project / SERVER_FILE
    url = str(read_json(file)["api_url"]) if file.exists() else None
    return url if url and answers(f"{url}/health") else None


@dataclass(frozen=True)
class Service:
    """What was started, or found: where it is, and what answers once it is ready."""

    name: str
    url: str
    ready_url: str
    log: Path
    child: "subprocess.Popen[bytes] | None" = None

    def wait_until_ready(self) -> None:
        """Returns once it answers; one that was found is not asked.

        Raises:
            BrewlineError: it does not come up; the message quotes its log.
        """
        if self.child is None:
            return
        end = time.monotonic() + _START_S
        while not answers(self.ready_url):
            if self.child.poll() is not None or time.monotonic() > end:
                last = self.log.read_text(errors="replace").strip().rpartition("\n")[2]
                raise BrewlineError(
                    f"the {self.name} did not come up ({self.log}): {last}", "crash"
                )
            time.sleep(0.2)

    @property
    def has_ended(self) -> bool:
        """Whether it stopped by itself."""
        return self.child is not None and self.child.poll() is not None


@contextmanager
def prefect_server(project: Path, port: int = 0) -> Iterator[Service]:
    """Starts a Prefect server on loopback, waits for it, and stops it in the end.

    Its URL is that of its API. Its database lies in `.prefect/` of the project, so runs are there
    the next time. Compute slots that a killed run still held are free again.

    Raises:
        BrewlineError: it does not come up; the message quotes its log.
    """
    port = free_port(port)
    url = f"http://127.0.0.1:{port}/api"
    # The UI learns the address from the environment; told on the command line, it would not.
    own = {"PREFECT_SERVER_API_HOST": "127.0.0.1", "PREFECT_SERVER_API_PORT": str(port)}
    command = [sys.executable, "-m", "prefect", "server", "start"]
    service = Service("Prefect server", url, f"{url}/health", project / "work/prefect-server.log")
    settings = environment(project, url) | own
    home = Path(settings["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)
    # The kernel's lock: that of a killed server is free.
    with (home / "server.lock").open("w") as lock:
        is_alone = flock(lock, wait=False)
        with started(service, command, settings) as running:
            running.wait_until_ready()
            if is_alone:
                _free_slots(url)
            # Whoever comes up in the meantime waits here.
            flock(lock, shared=True)
            yield running


def _free_slots(url: str) -> None:
    """Frees the compute slots of a database that no other server uses.

    Nobody holds them, whatever the database says: a server knows its holders by memory, so those
    of one that was killed are forgotten, and their slots would be taken for ever.
    """
    limit = f"{url}/v2/concurrency_limits/{COMPUTE_SLOT}"
    end = time.monotonic() + _START_S
    while True:
        answer = requests.patch(limit, json={"active_slots": 0}, timeout=30)
        # 404: there is no such limit yet.
        if answer.ok or answer.status_code == requests.codes.not_found:
            return
        # A server that has just come up answers 503 while its database is busy.
        if time.monotonic() > end:
            raise BrewlineError(f"Prefect does not free its slots: {answer.text}", "busy")
        time.sleep(0.5)


@contextmanager
def mlflow_server(project: Path, port: int) -> Iterator[Service]:
    """Finds the configured MLflow server, or starts one on loopback and stops it in the end.

    Its own lies over the project's store.
    """
    configured = os.environ.get("MLFLOW_TRACKING_URI", "")
    log = project / "work/mlflow-server.log"
    if configured.startswith("http"):
        yield Service("MLflow server", configured, configured, log)
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
    service = Service("MLflow server", url, f"{url}/health", log)
    with started(service, command, environment(project) | own) as running:
        yield running


@contextmanager
def started(
    service: Service, command: list[str], environment: Mapping[str, str]
) -> Iterator[Service]:
    """Runs a server until the block ends; it also ends when this process is killed.

    Args:
        service: What is to be there; its log gets what the server writes.
        command: Program and arguments.
        environment: The whole environment of it.
    """
    service.log.parent.mkdir(parents=True, exist_ok=True)
    with service.log.open("w") as file:
        child = subprocess.Popen(
            [sys.executable, "-m", "brewline.core.system", str(os.getpid()), *command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield replace(service, child=child)
    finally:
        stop_group(child)


def make_compute_slot() -> None:
    """Makes the limit that lets one stage run at a time; leaves one that is there as it is."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
    from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound

    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(COMPUTE_SLOT)
        except ObjectNotFound:
            with contextlib.suppress(ObjectAlreadyExists):
                client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=COMPUTE_SLOT, limit=1)
                )
