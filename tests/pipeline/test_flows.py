"""The flows over HTTP, as the Prefect UI drives them, with real servers on the tiny project."""

import json
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from driving import ONE_MODEL, Services, wait_for, working_on
from tiny_project import git, run_stage

from brewline.core.files import sha256_tree
from flows.workspace import workspace_of

pytestmark = pytest.mark.slow


METRIC = "dev/mean_recall_at_1"
# What `tour` looks with; needs the optional packages `browser` too.
CHROMIUM = Path("/usr/bin/chromium")


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
    project, overrides = services.project, {"validate.max_quarantine_rate": 0.5}
    before = git(project, "status", "--porcelain"), (project / "params.yaml").read_bytes()
    reports = sha256_tree(project / "reports")
    run = services.start("pipeline/on-demand", overrides=overrides, corpora=["mini-ravdess"])
    assert services.finish(run) == "COMPLETED", services.logs(run)
    assert services.tasks(run) == {"validate@mini-ravdess"}
    assert (git(project, "status", "--porcelain"), (project / "params.yaml").read_bytes()) == before
    assert sha256_tree(project / "reports") == reports
    used = yaml.safe_load((workspace_of(project, overrides) / "params.yaml").read_text())
    assert used["validate"]["max_quarantine_rate"] == 0.5


def test_bad_parameters_end_with_one_sentence(services: Services) -> None:
    run = services.start("pipeline/on-demand", overrides={"variants.full.alhpa": 0.3})
    assert services.finish(run) == "FAILED"
    services.wait_for_log(run, "did you mean 'alpha'?")
    assert "Traceback" not in services.logs(run)
    assert services.tasks(run) == set()


def workspaces(project: Path) -> set[Path]:
    return set((project / "work/workspaces").glob("*"))


def start_long_training(services: Services, **overrides: Any) -> tuple[str, Path]:
    """Starts a training of many steps; returns its run and workspace once it trains."""
    before = workspaces(services.project)
    run = services.start("pipeline/on-demand", overrides=overrides, **ONE_MODEL)

    def trains() -> bool:
        new = workspaces(services.project) - before
        return any(True for folder in new for _ in folder.glob("work/train/*/seed-0-*/*.pt"))

    wait_for(trains, 90)
    return run, (workspaces(services.project) - before).pop()


def test_cancelling_stops_the_stage_and_closes_its_run(services: Services) -> None:
    overrides = {"recipes.mini.steps": 200_000, "recipes.mini.seeds": [0]}
    run, folder = start_long_training(services, **overrides)
    assert working_on(folder)
    services.post(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})
    took_s = wait_for(lambda: not working_on(folder), 30)
    assert took_s < 20
    assert services.finish(run) == "CANCELLED"
    assert not list(folder.glob("models/mini-flickr8k-full/seed-*"))
    wait_for(lambda: services.models()[0]["info"]["status"] == "KILLED", 10)


@pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")
def test_a_person_starts_a_run_and_compares_models(services: Services, tmp_path: Path) -> None:
    tour = pytest.importorskip("tour", reason="playwright is not installed")
    assert tour.walk(services.prefect, services.mlflow, tmp_path) == "COMPLETED"
    for name in ("form", "run", "runs", "compare", "registry"):
        assert (tmp_path / f"operate-{name}.png").stat().st_size > 10_000


def test_a_sweep_runs_every_combination_and_sorts_them(services: Services) -> None:
    before = workspaces(services.project)
    run = services.start(
        "sweep/on-demand", grid={"evaluate.bootstrap_samples": [40, 60]}, parallel=2, **ONE_MODEL
    )
    assert services.finish(run, 240) == "COMPLETED", services.logs(run)
    table = services.artifact(run, "sweep")
    assert [json.loads(row["overrides"]) for row in table] == [
        {"evaluate.bootstrap_samples": 40},
        {"evaluate.bootstrap_samples": 60},
    ]
    recalls = [row[METRIC] for row in table]
    assert recalls == sorted(recalls, reverse=True)
    assert len(workspaces(services.project) - before) == 2


def test_a_changed_corpus_is_noticed(services: Services) -> None:
    def look() -> None:
        run = services.start("watch/every-five-minutes")
        assert services.finish(run) == "COMPLETED", services.logs(run)

    def downloaded() -> bool:
        found = services.post("task_runs/filter", task_runs={"name": {"any_": [name]}})
        return any(task["state"]["type"] == "COMPLETED" for task in found)

    name = "download@mini-ravdess"
    look()
    assert not downloaded()
    (services.project / "published/mini-ravdess/Audio_Speech_Actors_01-24.zip").touch()
    # The schedule may look in the same moment: whoever comes first runs the pipeline.
    look()
    wait_for(downloaded, 60)


def test_a_forced_training_trains_seeds_that_are_finished(services: Services) -> None:
    def finished() -> dict[str, int]:
        found = services.project.glob("work/train/mini-flickr8k-full/*/finished.json")
        return {path.parent.name: path.stat().st_mtime_ns for path in found}

    before, model = finished(), services.project / "models/mini-flickr8k-full"
    digest = sha256_tree(model)
    run = services.start("pipeline/on-demand", from_stage="train@mini-flickr8k-full", **ONE_MODEL)
    assert services.finish(run) == "COMPLETED", services.logs(run)
    assert services.tasks(run) == {"train@mini-flickr8k-full"}
    after = finished()
    assert after.keys() == before.keys()
    assert all(after[name] > before[name] for name in before)
    assert sha256_tree(model) == digest


@dataclass(frozen=True)
class Killed:
    """A flow that was killed while it trained in `folder`, and the same one started again."""

    run: str
    again: str
    folder: Path


@pytest.fixture(scope="module")
def killed(services: Services) -> Killed:
    """Its compute slot is free after a minute, in which other tests run."""
    overrides = {"recipes.mini.steps": 200, "recipes.mini.seeds": [0]}
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
    wait_for(lambda: services.tasks(again), 60)
    return Killed(run, again, folder)


def test_a_killed_flow_leaves_nothing(services: Services, killed: Killed) -> None:
    assert not working_on(killed.folder)
    assert services.state(killed.again) == "RUNNING"


def use_policy(project: Path, margin: float) -> None:
    """A policy whose margin decides alone."""
    policy = {
        "metric": METRIC,
        "margin": margin,
        "must_not_drop": {},
        "max_wer": None,
        "max_quarantine_rate": None,
        "max_latency_ms": None,
    }
    (project / "mlflow/promotion.yaml").write_text(yaml.safe_dump(policy))


def test_promotion_rejection_approval_and_rollback(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        measured = json.loads(version(number)["tags"]["measured"])
        measured["dev"][METRIC] = recall
        body = {"name": name, "version": number, "key": "measured", "value": json.dumps(measured)}
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

    # Another seed is better on dev now: its model is version 2.
    models = services.project / "reports/evaluation/mini-flickr8k/models.json"
    found = json.loads(models.read_text())
    other = {"seed-0": "seed-1", "seed-1": "seed-0"}[version("1")["tags"]["seed"]]
    found[f"mini-flickr8k-full/{other}"][METRIC] = 0.95
    # Not into the file that is there: it is a link into DVC's cache, and read-only.
    models.unlink()
    models.write_text(json.dumps(found))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", services.mlflow)
    run_stage(services.project, "register")
    promoted = services.start("promote/on-demand", corpus="mini-flickr8k")
    assert services.finish(promoted) == "COMPLETED", services.logs(promoted)
    assert champion() == "2"

    for expected in ("COMPLETED", "FAILED"):
        back = services.start("rollback/on-demand", corpus="mini-flickr8k")
        assert services.finish(back) == expected, services.logs(back)
        assert champion() == "1"
    services.wait_for_log(back, "had no champion before it")


def test_a_killed_flow_goes_on_when_run_again(services: Services, killed: Killed) -> None:
    assert services.finish(killed.again, 240) == "COMPLETED", services.logs(killed.again)
    history = next(killed.folder.glob("models/mini-flickr8k-full/seed-0/history.jsonl"))
    steps = [json.loads(line)["step"] for line in history.read_text().splitlines()]
    assert max(steps) == 200
    assert services.finish(killed.run) == "CRASHED"
    newest = services.models()[0]["data"]
    params = {param["key"]: param["value"] for param in newest["params"]}
    assert params["recipe.steps"] == "200"
    tags = {tag["key"]: tag["value"] for tag in newest["tags"]}
    assert tags["prefect_flow_run_id"] == killed.run


def own_memory(process: psutil.Process) -> int:
    """Bytes of memory; what several processes share counts once among them, where that is told."""
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.rss))


def test_stopping_the_services_leaves_no_process_and_no_port(services: Services) -> None:
    """Comes last: it stops what the tests of this file use."""
    family = psutil.Process(services.process.pid).children(recursive=True)
    assert len(family) >= 3
    assert sum(map(own_memory, family)) < 1.5e9
    services.process.send_signal(signal.SIGINT)
    assert services.process.wait(30) == 0
    assert not [member for member in family if member.is_running()]
    for address in (services.prefect, services.mlflow):
        with pytest.raises(requests.ConnectionError):
            requests.get(address, timeout=2)
