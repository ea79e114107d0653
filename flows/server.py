"""The Prefect and MLflow servers of this machine: those that are there, or ones of our own."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests

from brewline.config import load_params
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json
from brewline.core.loopback import ask_loopback_directly
from brewline.core.system import flock
from brewline.tracking.store import open_store, public_uri, tracking_uri
from flows.children import stop_groups
from flows.dead_runs import end_dead_runs

HOME = Path(".prefect")
# What `make ui` writes down of a server that it runs.
SERVER_FILE = HOME / "server.json"
_START_S = 90.0
_LOOK_EVERY_S = 0.5
# A server that dies more often than this within so long will not live.
_MOST_RESTARTS = 5
_RESTARTS_WITHIN_S = 600.0

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
    ask_loopback_directly()
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
    """The configured server, else the one that `make ui` runs, else None.

    Raises:
        BrewlineError: nothing answers where one is configured.
    """
    ask_loopback_directly()
    configured = os.environ.get("PREFECT_API_URL")
    if configured:
        try:
            # Whatever it says, it is there; not every server tells strangers how it is.
            requests.get(f"{configured}/health", timeout=10)
        except requests.RequestException as error:
            raise BrewlineError(
                f"no Prefect server answers at PREFECT_API_URL={public_uri(configured)} "
                f"({type(error).__name__}); start it, or unset the variable, and this command "
                "starts a server of its own",
                "network",
            ) from None
        return configured
    file = project / SERVER_FILE
    url = str(read_json(file)["api_url"]) if file.exists() else None
    return url if url and answers(f"{url}/health") else None


@dataclass
class Service:
    """A server that is there already, or one of our own, with a command, that is kept alive.

    `ready_url` answers once it is ready; `log` gets what it writes.
    """

    name: str
    url: str
    ready_url: str
    log: Path
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    child: "subprocess.Popen[bytes] | None" = None
    gave_up: bool = False

    def __post_init__(self) -> None:
        self._is_over = threading.Event()
        self._keeper: threading.Thread | None = None

    @contextmanager
    def running(self) -> Iterator["Service"]:
        """Runs it until the block ends; it also ends when this process is killed."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_text("")
        self._start()
        try:
            yield self
        finally:
            self._is_over.set()
            if self._keeper:
                self._keeper.join()
            if self.child:
                stop_groups([self.child])

    def wait_until_ready(self) -> None:
        """Returns once it answers, and keeps it alive from then on; one that was found is not.

        Raises:
            BrewlineError: it does not come up; the message quotes its log.
        """
        if self.child is None:
            return
        end = time.monotonic() + _START_S
        while not answers(self.ready_url):
            if self.child.poll() is not None or time.monotonic() > end:
                raise BrewlineError(
                    f"the {self.name} did not come up ({self.log}): {self._last_words()}", "crash"
                )
            time.sleep(0.2)
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._keeper.start()

    def _start(self) -> None:
        with self.log.open("a") as file:
            self.child = subprocess.Popen(
                [sys.executable, "-m", "brewline.core.system", str(os.getpid()), *self.command],
                env=dict(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _keep(self) -> None:
        """Starts it again where it ends by itself: what is at work would lose hours with it."""
        starts: list[float] = []
        while not self._is_over.wait(_LOOK_EVERY_S):
            assert self.child is not None
            if self.child.poll() is None:
                continue
            now = time.monotonic()
            starts = [*(one for one in starts if now - one < _RESTARTS_WITHIN_S), now]
            if len(starts) > _MOST_RESTARTS:
                self.gave_up = True
                return
            # What of its group lives on would keep its port.
            stop_groups([self.child])
            self._start()
            print(f"the {self.name} ended ({self.log}): started again", file=sys.stderr, flush=True)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return next((line for line in reversed(lines) if "rror" in line), "".join(lines[-1:]))


@contextmanager
def prefect_server(project: Path, port: int = 0) -> Iterator[Service]:
    """Starts a Prefect server on loopback, waits for it, and stops it in the end.

    Its URL is that of its API. Its database lies in `.prefect/` of the project, so runs are there
    the next time; those whose process is gone are marked as crashed.

    Raises:
        BrewlineError: it does not come up; the message quotes its log.
    """
    port = free_port(port)
    url = f"http://127.0.0.1:{port}/api"
    settings = environment(project, url)
    home = Path(settings["PREFECT_HOME"])
    # The UI learns the address from the environment; told on the command line, it would not.
    own = {"PREFECT_SERVER_API_HOST": "127.0.0.1", "PREFECT_SERVER_API_PORT": str(port)}
    service = Service(
        name="Prefect server",
        url=url,
        ready_url=f"{url}/health",
        log=project / "work/prefect-server.log",
        command=[sys.executable, "-m", "prefect", "server", "start"],
        environment=settings | own,
    )
    home.mkdir(parents=True, exist_ok=True)
    # The kernel's lock: that of a killed server is free.
    with (home / "server.lock").open("w") as lock:
        is_alone = flock(lock, wait=False)
        with service.running():
            service.wait_until_ready()
            if is_alone:
                end_dead_runs(url, project)
            # Whoever comes up in the meantime waits here.
            flock(lock, shared=True)
            yield service


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
    service = Service(
        "MLflow server", url, f"{url}/health", log, command, environment(project) | own
    )
    with service.running():
        yield service
