"""Drives Prefect and MLflow over HTTP, as their UIs do."""

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import requests

ONE_MODEL = {"corpora": ["mini-flickr8k"], "experiments": ["mini-flickr8k-full"]}
# Work takes how long it takes on a machine that others use too: no more than a guard against what
# never ends. What is promised within some seconds says so where it is tested.
PATIENCE_S = 900.0
TERMINAL = {"COMPLETED", "FAILED", "CANCELLED", "CRASHED"}


@dataclass
class Services:
    """What `make ui` runs, and the project it runs in."""

    project: Path
    process: subprocess.Popen[str]
    prefect: str
    mlflow: str

    def post(self, path: str, **body: Any) -> Any:
        """Asks Prefect."""
        answer = self._ask("post", path, body)
        return answer.json() if answer.content else None

    def get(self, path: str) -> Any:
        """Asks Prefect."""
        return self._ask("get", path, None).json()

    def _ask(self, method: str, path: str, body: Any) -> requests.Response:
        """Asks again, as Prefect's clients do, while its database is busy (503)."""
        for _ in range(20):
            url = f"{self.prefect}/api/{path}"
            answer = requests.request(method, url, json=body, timeout=30)
            if answer.status_code != requests.codes.unavailable:
                break
            time.sleep(0.5)
        assert answer.ok, answer.text
        return answer

    def start(self, deployment: str, **parameters: Any) -> str:
        """Starts a deployment with the UI's own request; returns the flow run's id."""
        found = self.get(f"deployments/name/{deployment}")
        run = self.post(
            f"deployments/{found['id']}/create_flow_run",
            parameters=parameters,
            state={"type": "SCHEDULED"},
        )
        return str(run["id"])

    def state(self, run_id: str) -> str:
        return str(self.get(f"flow_runs/{run_id}")["state"]["type"])

    def finish(self, run_id: str) -> str:
        """Waits for the end of a flow run; returns its state."""
        wait_for(lambda: self.state(run_id) in TERMINAL)
        return self.state(run_id)

    def tasks(self, run_id: str) -> set[str]:
        """The names of a flow run's task runs."""
        found = self.post("task_runs/filter", flow_runs={"id": {"any_": [run_id]}})
        return {task["name"] for task in found}

    def logs(self, run_id: str) -> str:
        """Everything that a flow run has logged, task runs too."""
        found = self.post(
            "logs/filter", logs={"flow_run_id": {"any_": [run_id]}}, sort="TIMESTAMP_ASC"
        )
        return "\n".join(entry["message"] for entry in found)

    def wait_for_log(self, run_id: str, words: str, timeout_s: float = 60) -> None:
        """Waits until a flow run has logged something; lines arrive a little after they happen."""
        try:
            wait_for(lambda: words in self.logs(run_id), timeout_s)
        except AssertionError:
            raise AssertionError(f"{words!r} is not in:\n{self.logs(run_id)}") from None

    def artifact(self, run_id: str, key: str) -> Any:
        """The data of a flow run's artifact."""
        found = self.post(
            "artifacts/filter",
            artifacts={"key": {"any_": [key]}, "flow_run_id": {"any_": [run_id]}},
        )
        assert found, f"{run_id} has no artifact {key}"
        data = found[0]["data"]
        return json.loads(data) if found[0]["type"] == "table" else data

    def models(self) -> list[dict[str, Any]]:
        """The runs of models in MLflow, the newest first."""
        url = f"{self.mlflow}/api/2.0/mlflow/"
        named = requests.get(
            f"{url}experiments/get-by-name", params={"experiment_name": "brewline"}, timeout=30
        ).json()
        body = {
            "experiment_ids": [named["experiment"]["experiment_id"]],
            "filter": "tags.kind = 'model'",
            "order_by": ["attributes.start_time DESC"],
        }
        answer = requests.post(f"{url}runs/search", json=body, timeout=30).json()
        return list(answer.get("runs", []))


def wait_for(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> float:
    """Waits until something is true; returns the seconds it took."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, "waited in vain"
        time.sleep(0.2)
    return time.monotonic() - started


def working_on(folder: Path) -> list[psutil.Process]:
    """The processes of stages, and of DVC, that work in a folder or below it."""
    found = []
    for process in psutil.process_iter():
        try:
            words = " ".join(process.cmdline())
            inside = Path(process.cwd()).is_relative_to(folder)
        except (psutil.Error, OSError):
            continue
        if inside and ("brewline.stages" in words or "dvc" in words):
            found.append(process)
    return found
