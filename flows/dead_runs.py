"""Which flow runs live, by a lock of the kernel; what Prefect calls running without one is dead.

Prefect writes down that a run began and waits for it to say that it ended: a run that was killed,
or whose server went away first, would count as running for ever.
"""

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

from brewline.core.files import remove
from brewline.core.locks import is_held, locked

RUNS = Path("work/runs")
_BEGUN = ["RUNNING", "PENDING", "PAUSED", "CANCELLING"]
_MOST = 200
_PATIENCE_S = 30.0
_WHY = "its process is gone: it was killed, or `make ui` was stopped"


@contextmanager
def alive(project: Path, run_id: str) -> Iterator[None]:
    """Shows while the block runs that the process of a flow run lives."""
    path = _lock_of(project, run_id)
    try:
        with locked(path):
            yield
    finally:
        remove(path)


def _lock_of(project: Path, run_id: str) -> Path:
    return project / RUNS / f"{run_id}.lock"


def end_dead_runs(api_url: str, project: Path) -> None:
    """Marks runs as crashed whose process is gone; does nothing where the server does not answer.

    Args:
        api_url: Of a server that knows this project's runs alone.
        project: Where their locks are.
    """
    with contextlib.suppress(requests.RequestException):
        dead = [
            run["id"]
            for run in _post(f"{api_url}/flow_runs/filter", _with_state("flow_runs"))
            if not is_held(_lock_of(project, run["id"]))
        ]
        for run_id in dead:
            of_run = {"flow_runs": {"id": {"any_": [run_id]}}}
            for task in _post(f"{api_url}/task_runs/filter", _with_state("task_runs") | of_run):
                _end(f"{api_url}/task_runs/{task['id']}")
            _end(f"{api_url}/flow_runs/{run_id}")


def _with_state(kind: str) -> dict[str, Any]:
    return {kind: {"state": {"type": {"any_": _BEGUN}}}, "limit": _MOST}


def _end(run: str) -> None:
    state = {"type": "CRASHED", "name": "Crashed", "message": _WHY}
    _post(f"{run}/set_state", {"state": state, "force": True})


def _post(url: str, body: dict[str, Any]) -> Any:
    end = time.monotonic() + _PATIENCE_S
    while True:
        answer = requests.post(url, json=body, timeout=30)
        # A server that has just come up says 503 while its database is busy.
        if answer.status_code != requests.codes.unavailable or time.monotonic() > end:
            answer.raise_for_status()
            return answer.json()
        time.sleep(0.5)
