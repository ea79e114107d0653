"""The flows over HTTP, as the Prefect UI drives them, with real servers on the tiny project."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from conftest import copy_project, git
from driving import ONE_MODEL, Services, wait_for, working_on

from brewline.files import sha256_tree
from flows.workspace import workspace_of

pytestmark = pytest.mark.slow


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
    shards = sha256_tree(project / "data/shards")
    run = services.start(
        "pipeline/on-demand", overrides={"shard.utterances_per_shard": 2}, corpora=["mini-ravdess"]
    )
    assert services.finish(run) == "COMPLETED", services.logs(run)
    assert services.tasks(run) == {"shard@mini-ravdess"}
    assert (git(project, "status", "--porcelain"), (project / "params.yaml").read_bytes()) == before
    assert sha256_tree(project / "data/shards") == shards
    workspace = workspace_of(project, {"shard.utterances_per_shard": 2})
    made, ours = (len(list(f.rglob("data/shards/mini-ravdess/*.tar"))) for f in (workspace, project))
    assert made > ours


def test_bad_parameters_end_with_one_sentence(services: Services) -> None:
    run = services.start("pipeline/on-demand", overrides={"train.alhpa": 0.3})
    assert services.finish(run) == "FAILED"
    services.wait_for_log(run, "did you mean 'alpha'?")
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
    newest = services.models()[0]["data"]
    params = {param["key"]: param["value"] for param in newest["params"]}
    assert params["train.steps"] == "600"
    tags = {tag["key"]: tag["value"] for tag in newest["tags"]}
    assert tags["prefect_flow_run_id"] == run


def use_policy(project: Path, margin: float) -> None:
    """A policy whose margin decides alone."""
    policy = {
        "metric": "dev/mean_recall_at_1",
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

    def version(number: str) -> Any:
        found = mlflow("get", "model-versions/get", name=name, version=number)["model_version"]
        return found | {"tags": {tag["key"]: tag["value"] for tag in found.get("tags", [])}}

    def say_measured(number: str, recall: float) -> None:
        """The tiny world's models are random: says that one of them was good on dev."""
        first = version("1")["tags"]
        measured = json.loads(first["measured"])
        measured["dev"]["dev/mean_recall_at_1"] = recall
        for key, value in (
            ("dev_manifest_digest", first["dev_manifest_digest"]),
            ("measured", json.dumps(measured)),
        ):
            body = {"name": name, "version": number, "key": key, "value": value}
            mlflow("post", "model-versions/set-tag", **body)

    say_measured("1", 0.9)
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

    # The registry's own tests roll back over several versions; here there is only one.
    back = services.start("rollback/on-demand", corpus="mini-flickr8k")
    assert services.finish(back) == "FAILED"
    services.wait_for_log(back, "had no champion before it")
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
    printed = "".join(line for _, line in zip(range(3), process.stdout, strict=False))
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
