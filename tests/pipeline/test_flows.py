"""The flows over HTTP, as the Prefect UI drives them, with real servers on the tiny project."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from conftest import copy_project, git

pytestmark = pytest.mark.slow

ONE_MODEL = {"corpora": ["mini-flickr8k"], "variants": ["full"]}
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
        answer = requests.post(f"{self.prefect}/api/{path}", json=body, timeout=30)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def get(self, path: str) -> Any:
        """Asks Prefect."""
        answer = requests.get(f"{self.prefect}/api/{path}", timeout=30)
        assert answer.ok, answer.text
        return answer.json()

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

    def finish(self, run_id: str, timeout_s: float = 120) -> str:
        """Waits for the end of a flow run; returns its state."""
        wait_for(lambda: self.state(run_id) in TERMINAL, timeout_s)
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


def wait_for(condition: Callable[[], object], timeout_s: float) -> float:
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


@pytest.fixture(scope="module")
def services(dvc_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """`make ui` in a project of its own."""
    project = copy_project(dvc_project, tmp_path_factory.mktemp("flows") / "project")
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT", "MLFLOW"))
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.ui", "--prefect-port", "0", "--mlflow-port", "0"],
        cwd=project,
        env=environment | {"PYTHONPATH": str(project / "src")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout
    printed = []
    for line in process.stdout:
        printed.append(line)
        if "Ctrl-C" in line:
            break
    addresses = re.findall(r"http://127\.0\.0\.1:\d+", "".join(printed))
    assert len(addresses) == 2, "".join(printed)
    yield Services(project, process, *addresses)
    process.send_signal(signal.SIGTERM)
    process.wait(30)


def test_a_run_with_nothing_to_do_is_green_and_quick(services: Services) -> None:
    run = services.start("pipeline/on-demand")
    started = time.monotonic()
    assert services.finish(run) == "COMPLETED"
    took_s = time.monotonic() - started
    assert services.tasks(run) == set()
    table = services.artifact(run, "stages")
    assert {row["state"] for row in table} == {"up to date"}
    assert "report" in {row["stage"] for row in table}
    assert took_s < 60
    assert "R@1" in services.artifact(run, "results")


def test_overrides_leave_the_tree_alone(services: Services) -> None:
    project = services.project
    before = git(project, "status", "--porcelain"), (project / "params.yaml").read_bytes()
    run = services.start(
        "pipeline/on-demand", overrides={"train.alpha": 0.3, "train.seeds": [0]}, **ONE_MODEL
    )
    assert services.finish(run) == "COMPLETED", services.logs(run)
    assert services.tasks(run) == {
        "train_text_acoustic@mini-flickr8k-full",
        "evaluate@mini-flickr8k",
        *({"register@mini-flickr8k"} & services.tasks(run)),
    }
    assert (git(project, "status", "--porcelain"), (project / "params.yaml").read_bytes()) == before
    newest = services.models()[0]["data"]
    params = {param["key"]: param["value"] for param in newest["params"]}
    assert params["train.alpha"] == "0.3"
    tags = {tag["key"]: tag["value"] for tag in newest["tags"]}
    assert tags["prefect_flow_run_id"] == run


def test_bad_parameters_end_with_one_sentence(services: Services) -> None:
    run = services.start("pipeline/on-demand", overrides={"train.alhpa": 0.3})
    assert services.finish(run) == "FAILED"
    assert "did you mean 'alpha'?" in services.logs(run)
    assert services.tasks(run) == set()


def workspaces(project: Path) -> set[Path]:
    return set((project / "work/workspaces").glob("*"))


def start_long_training(services: Services, **overrides: Any) -> tuple[str, Path]:
    """Starts a training of many steps; returns its run and workspace once it trains."""
    before = workspaces(services.project)
    run = services.start("pipeline/on-demand", overrides=overrides, **ONE_MODEL)

    def trains() -> bool:
        new = workspaces(services.project) - before
        return any(True for folder in new for _ in folder.glob("work/train/*/seed-0/*.pt"))

    wait_for(trains, 90)
    return run, (workspaces(services.project) - before).pop()


def test_cancelling_stops_the_stage_and_closes_its_run(services: Services) -> None:
    run, folder = start_long_training(services, **{"train.steps": 200_000, "train.seeds": [0]})
    assert working_on(folder)
    services.post(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})
    took_s = wait_for(lambda: not working_on(folder), 30)
    assert took_s < 20
    assert services.finish(run) == "CANCELLED"
    assert not list(folder.glob("models/mini-flickr8k/full/seed-*"))
    wait_for(lambda: services.models()[0]["info"]["status"] == "KILLED", 10)


def test_a_killed_flow_leaves_nothing_and_goes_on_when_run_again(services: Services) -> None:
    overrides = {"train.steps": 600, "train.seeds": [0]}
    run, folder = start_long_training(services, **overrides)
    engines = [
        process
        for process in psutil.Process(services.process.pid).children(recursive=True)
        if any("prefect" in word and "engine" in word for word in process.cmdline())
    ]
    assert engines
    for engine in engines:
        engine.kill()
    wait_for(lambda: not working_on(folder), 15)
    again = services.start("pipeline/on-demand", overrides=overrides, **ONE_MODEL)
    assert services.finish(again, 240) == "COMPLETED", services.logs(again)
    history = next(folder.glob("models/mini-flickr8k/full/seed-0/history.jsonl"))
    steps = [json.loads(line)["step"] for line in history.read_text().splitlines()]
    assert max(steps) == 600
    assert services.finish(run) == "CRASHED"


def use_policy(project: Path, margin: float) -> None:
    """A policy whose margin decides alone: every model has the same gallery."""
    policy = {
        "metric": "dev/speech_to_image/gallery_size",
        "margin": margin,
        "must_not_drop": {},
        "max_wer": None,
        "max_quarantine_rate": None,
        "max_latency_ms": None,
    }
    (project / "mlflow/promotion.yaml").write_text(yaml.safe_dump(policy))


def test_promotion_rejection_approval_and_rollback(services: Services) -> None:
    name = "brewline-mini-flickr8k"

    def mlflow(method: str, path: str, **body: Any) -> Any:
        place = "params" if method == "get" else "json"
        url = f"{services.mlflow}/api/2.0/mlflow/{path}"
        answer = requests.request(method, url, timeout=30, **{place: body})
        assert answer.ok, answer.text
        return answer.json()

    def champion() -> str | None:
        model = mlflow("get", "registered-models/get", name=name)["registered_model"]
        aliases = {one["alias"]: one["version"] for one in model.get("aliases", [])}
        return aliases.get("champion")

    use_policy(services.project, margin=1.0)
    rejected = services.start("promote/on-demand", corpus="mini-flickr8k")
    assert services.finish(rejected) == "COMPLETED", services.logs(rejected)
    assert champion() is None
    assert "Champion now: none" in services.artifact(rejected, "promotion-mini-flickr8k")

    use_policy(services.project, margin=0.0)
    for answer, expected in ((False, None), (True, "1")):
        asked = services.start("promote/on-demand", corpus="mini-flickr8k", approval=True)
        wait_for(lambda asked=asked: services.state(asked) == "PAUSED", 60)
        services.post(f"flow_runs/{asked}/resume", run_input={"approve": answer, "comment": "ok"})
        assert services.finish(asked) == "COMPLETED", services.logs(asked)
        assert champion() == expected

    # A second version, made the challenger by hand.
    first = mlflow("get", "model-versions/get", name=name, version="1")["model_version"]
    mlflow("post", "model-versions/create", name=name, source=first["source"])
    mlflow("post", "registered-models/alias", name=name, alias="challenger", version="2")
    promoted = services.start("promote/on-demand", corpus="mini-flickr8k")
    assert services.finish(promoted) == "COMPLETED", services.logs(promoted)
    assert champion() == "2", services.logs(promoted)
    back = services.start("rollback/on-demand", corpus="mini-flickr8k")
    assert services.finish(back) == "COMPLETED", services.logs(back)
    assert champion() == "1"


def test_stopping_the_services_leaves_no_process_and_no_port(
    dvc_project: Path, tmp_path: Path
) -> None:
    project = copy_project(dvc_project, tmp_path / "project")
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.ui", "--prefect-port", "0", "--mlflow-port", "0"],
        cwd=project,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    printed = "".join(line for line, _ in zip(process.stdout, range(3), strict=False))
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3
    memory_gb = sum(member.memory_info().rss for member in family) / 1e9
    assert memory_gb < 1.5
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert not [member for member in family if member.is_running()]
    for address in re.findall(r"http://127\.0\.0\.1:\d+", printed):
        with pytest.raises(requests.ConnectionError):
            requests.get(address, timeout=2)
