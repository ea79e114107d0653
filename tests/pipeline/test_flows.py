"""The flows over HTTP, as the Prefect UI drives them, with real servers on the tiny project."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
import yaml
from driving import ONE_MODEL, TERMINAL, Services, wait_for, working_on
from processes import alive, words_of
from tiny_project import git, run_stage

from brewline.config import load_params
from brewline.core.files import sha256_tree
from brewline.evaluation.query_ranks import QueryRanks
from brewline.registry.policy import Evidence
from brewline.tracking.store import open_store
from brewline.tracking.version_evidence import keep_evidence
from flows import server
from flows.workspace import workspace_of

pytestmark = pytest.mark.slow


METRIC = "dev/mean_recall_at_1"
# What `tour` looks with; needs the optional packages `browser` too.
CHROMIUM = Path("/usr/bin/chromium")


def test_a_run_with_nothing_to_do_is_green_and_quick(services: Services) -> None:
    run = services.start("pipeline/run-pipeline")
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
    # Of a corpus whose experiments start from no other one.
    run = services.start("pipeline/run-pipeline", overrides=overrides, corpora=["mini-lncoco"])
    assert services.finish(run) == "COMPLETED", services.logs(run)
    assert services.tasks(run) == {"validate@mini-lncoco"}
    assert (git(project, "status", "--porcelain"), (project / "params.yaml").read_bytes()) == before
    assert sha256_tree(project / "reports") == reports
    used = yaml.safe_load((workspace_of(project, overrides) / "params.yaml").read_text())
    assert used["validate"]["max_quarantine_rate"] == 0.5


def test_bad_parameters_end_with_one_sentence(services: Services) -> None:
    run = services.start("pipeline/run-pipeline", overrides={"variants.full.alhpa": 0.3})
    assert services.finish(run) == "FAILED"
    services.wait_for_log(run, "did you mean 'alpha'?")
    assert "Traceback" not in services.logs(run)
    assert services.tasks(run) == set()


def test_a_stage_that_fails_stops_only_what_needs_it(services: Services) -> None:
    # A quarter of mini-lncoco is quarantined, and nothing of the other.
    overrides, corpora = {"validate.max_quarantine_rate": 0.1}, ["mini-lncoco", "mini-ravdess"]
    run = services.start("pipeline/run-pipeline", overrides=overrides, corpora=corpora)
    assert services.finish(run) == "FAILED"
    table = {row["stage"]: row for row in services.artifact(run, "stages")}
    assert [name for name, row in table.items() if row["state"] == "failed"] == [
        "validate@mini-lncoco"
    ]
    assert table["validate@mini-ravdess"]["state"] == "ran"
    assert table["transcribe@mini-lncoco"]["state"] == "left out"
    assert table["transcribe@mini-lncoco"]["why"] == "validate@mini-lncoco failed"
    assert "Traceback" not in services.logs(run)


def test_a_chosen_experiment_is_measured_though_an_override_made_others_stale(
    services: Services,
) -> None:
    overrides = {"recipes.mini.steps": 4}
    run = services.start("pipeline/run-pipeline", overrides=overrides, **ONE_MODEL)
    assert services.finish(run) == "COMPLETED", services.logs(run)
    folder = workspace_of(services.project, overrides)
    measured = json.loads((folder / "metrics/mini-flickr8k.json").read_text())
    # That of mini-lncoco's model is stale, and nobody chose it.
    assert measured.keys() == {"asr", "zero-shot", "e2e", "full"}
    flow = services.get(f"flow_runs/{run}")
    assert flow["name"] == "mini-flickr8k-full mini-flickr8k: recipes.mini.steps=4"
    links = {row["stage"]: row["in MLflow"] for row in services.artifact(run, "stages")}
    trained = links["train@mini-flickr8k-full"]
    assert trained.count(f"]({services.mlflow}/#/experiments/") == 2
    assert services.models()[0]["info"]["run_id"] in trained
    assert links["report"] == ""


def engines(services: Services) -> list[psutil.Process]:
    """The processes of the flow runs."""
    family = psutil.Process(services.process.pid).children(recursive=True)
    return [one for one in family if "prefect.engine" in words_of(one)]


def workspaces(project: Path) -> set[Path]:
    # One that is being made has a hidden name, and loses it while we look into it.
    return set((project / "work/workspaces").glob("[!.]*"))


def start_long_training(services: Services, **overrides: Any) -> tuple[str, Path]:
    """Starts a training of many steps; returns its run and workspace once it trains."""
    before = workspaces(services.project)
    run = services.start("pipeline/run-pipeline", overrides=overrides, **ONE_MODEL)

    def trains() -> bool:
        assert services.state(run) not in TERMINAL, services.logs(run)
        new = workspaces(services.project) - before
        return any(True for folder in new for _ in folder.glob("work/train/*/seed-0-*/*.pt"))

    wait_for(trains)
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


def test_training_goes_on_while_the_server_is_away(services: Services) -> None:
    overrides = {"recipes.mini.steps": 400, "recipes.mini.seeds": [0]}
    run, folder = start_long_training(services, **overrides)
    servers = [
        process
        for process in psutil.Process(services.process.pid).children(recursive=True)
        if {"prefect", "server", "start"} <= {*words_of(process)}
    ]
    assert servers
    for one in servers:
        one.kill()
    assert working_on(folder)
    wait_for(lambda: server.answers(f"{services.prefect}/api/health"))
    assert services.finish(run) == "COMPLETED", services.logs(run)
    assert list(folder.glob("models/mini-flickr8k-full/seed-0/*"))


def test_a_killed_flow_leaves_nothing_and_goes_on_when_run_again(services: Services) -> None:
    overrides = {"recipes.mini.steps": 200, "recipes.mini.seeds": [0]}
    run, folder = start_long_training(services, **overrides)
    killed = engines(services)
    assert killed
    for engine in killed:
        engine.kill()
    wait_for(lambda: not working_on(folder), 15)
    again = services.start("pipeline/run-pipeline", overrides=overrides, **ONE_MODEL)
    assert services.finish(again) == "COMPLETED", services.logs(again)
    history = next(folder.glob("models/mini-flickr8k-full/seed-0/history.jsonl"))
    steps = [json.loads(line)["step"] for line in history.read_text().splitlines()]
    assert max(steps) == 200
    assert services.finish(run) == "CRASHED"
    newest = services.models()[0]["data"]
    params = {param["key"]: param["value"] for param in newest["params"]}
    assert params["recipe.steps"] == "200"
    tags = {tag["key"]: tag["value"] for tag in newest["tags"]}
    assert tags["prefect_flow_run_id"] == run


@pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed")
def test_a_person_starts_a_run_and_compares_models(services: Services, tmp_path: Path) -> None:
    tour = pytest.importorskip("tour", reason="playwright is not installed")
    assert tour.walk(services.prefect, services.mlflow, tmp_path) == "COMPLETED"
    for name in ("form", "run", "runs", "compare", "registry"):
        assert (tmp_path / f"operate-{name}.png").stat().st_size > 10_000


def test_a_sweep_runs_every_combination_and_sorts_them(services: Services) -> None:
    before = workspaces(services.project)
    run = services.start(
        "sweep/run-sweep", grid={"evaluate.bootstrap_samples": [40, 60]}, parallel=2, **ONE_MODEL
    )
    assert services.finish(run) == "COMPLETED", services.logs(run)
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
        run = services.start("watch/watch-sources")
        # The schedule may look in the same moment, and one looks at a time.
        assert services.finish(run) in ("COMPLETED", "CANCELLED"), services.logs(run)

    def downloaded() -> bool:
        found = services.post("task_runs/filter", task_runs={"name": {"any_": [name]}})
        return any(task["state"]["type"] == "COMPLETED" for task in found)

    name = "download@mini-ravdess"
    look()
    assert not downloaded()
    (services.project / "published/mini-ravdess/Audio_Speech_Actors_01-24.zip").touch()
    # Whoever comes first runs the pipeline.
    look()
    wait_for(downloaded)


def test_a_forced_training_trains_seeds_that_are_finished(services: Services) -> None:
    def finished() -> dict[str, int]:
        found = services.project.glob("work/train/mini-flickr8k-full/*/finished.json")
        return {path.parent.name: path.stat().st_mtime_ns for path in found}

    before, model = finished(), services.project / "models/mini-flickr8k-full"
    digest = sha256_tree(model)
    run = services.start(
        "pipeline/run-pipeline", from_stage="train@mini-flickr8k-full", **ONE_MODEL
    )
    assert services.finish(run) == "COMPLETED", services.logs(run)
    assert services.tasks(run) == {"train@mini-flickr8k-full"}
    after = finished()
    assert after.keys() == before.keys()
    assert all(after[name] > before[name] for name in before)
    assert sha256_tree(model) == digest


def use_policy(project: Path, margin: float) -> None:
    """A policy whose margin decides alone."""
    policy = {
        "metric": METRIC,
        # Three pictures of dev tell little.
        "confidence": 0.1,
        "margin": margin,
        "must_not_drop": {},
        "max_wer": None,
        "max_quarantine_rate": None,
        "max_latency_ms": None,
    }
    (project / "mlflow/promotion.yaml").write_text(yaml.safe_dump(policy))


@dataclass(frozen=True)
class Registry:
    """MLflow's registry over HTTP, as its UI asks it."""

    url: str
    name: str = "brewline-mini-flickr8k"

    def ask(self, method: str, path: str, **body: Any) -> Any:
        place = "params" if method == "get" else "json"
        answer = requests.request(
            method,
            f"{self.url}/api/2.0/mlflow/{path}",
            timeout=30,
            **{place: {"name": self.name, **body}},
        )
        assert answer.ok, answer.text
        return answer.json()

    def aliases(self) -> dict[str, str]:
        model = self.ask("get", "registered-models/get")["registered_model"]
        return {one["alias"]: one["version"] for one in model.get("aliases", [])}

    def champion(self) -> str | None:
        return self.aliases().get("champion")

    def version(self, number: str) -> Any:
        found = self.ask("get", "model-versions/get", version=number)["model_version"]
        return found | {"tags": {tag["key"]: tag["value"] for tag in found.get("tags", [])}}


def answers(project: Path, share: float) -> QueryRanks:
    """What a model would have done that finds this share of dev's pictures at once, both ways."""
    path = project / "reports/evaluation/mini-flickr8k/dev_ranks.json"
    asked = QueryRanks(**next(iter(json.loads(path.read_text()).values())))
    good = set(list(asked.of_image)[: round(share * len(asked.of_image))])
    return QueryRanks(
        *(
            {image: [1 if image in good else 99] * len(ranks) for image, ranks in part.items()}
            for part in (asked.of_image, asked.of_utterances)
        )
    )


def say_measured(services: Services, number: str, share: float) -> None:
    """The tiny world's models are random: says that one of them was good on dev."""
    # MLflow remembers where a model's files lie by its id, which the copied projects share.
    from mlflow.tracking._tracking_service import utils  # noqa: TID251

    utils._artifact_repos_cache.clear()
    store = open_store(load_params(services.project / "params.yaml").tracking)
    version = store.client.get_model_version(Registry.name, number)
    digest = version.tags["dev_manifest_digest"]
    ranks = answers(services.project, share)
    keep_evidence(store, version, Evidence("a good one", digest, {METRIC: share}, ranks))


def register_better_seed(services: Services, than: str) -> None:
    """Lets the other seed of a model find every picture of dev, and registers it."""
    folder = services.project / "reports/evaluation/mini-flickr8k"
    other = f"mini-flickr8k-full/{ {'seed-0': 'seed-1', 'seed-1': 'seed-0'}[than] }"
    values = {METRIC: 0.95}
    for name, changed in (("models", values), ("dev_ranks", asdict(answers(services.project, 1)))):
        path = folder / f"{name}.json"
        found = json.loads(path.read_text())
        found[other] |= changed
        # Not into the file that is there: it is a link into DVC's cache, and read-only.
        path.unlink()
        path.write_text(json.dumps(found))
    run_stage(services.project, "register")


def paused(services: Services, **parameters: Any) -> str:
    """Starts a promotion that asks; returns its run once it does."""
    run = services.start(
        "promote/promote-model", corpus="mini-flickr8k", approval=True, **parameters
    )
    wait_for(lambda: services.state(run) == "PAUSED")
    return run


def test_promotion_rejection_approval_and_rollback(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", services.mlflow)
    registry, corpus = Registry(services.mlflow), "mini-flickr8k"

    def promote_by_command(*options: str) -> int:
        command = [sys.executable, "-m", "flows", "promote", corpus, *options]
        environment = os.environ | {"PYTHONPATH": str(services.project / "src")}
        done = subprocess.run(command, cwd=services.project, env=environment, check=False)
        return done.returncode

    say_measured(services, "1", 2 / 3)
    use_policy(services.project, margin=1.0)
    rejected = services.start("promote/promote-model", corpus=corpus)
    assert services.finish(rejected) == "COMPLETED", services.logs(rejected)
    assert registry.champion() is None
    assert "Champion now: none" in services.artifact(rejected, "promotion-mini-flickr8k")
    assert promote_by_command() == 3
    assert promote_by_command("--version", "7") == 1

    use_policy(services.project, margin=0.0)
    refused = paused(services)
    # Nobody answers without a name.
    answer = {"run_input": {"approve": True, "decided_by": " "}}
    assert services.post(f"flow_runs/{refused}/resume", **answer)["status"] == "REJECT"
    answer = {"run_input": {"approve": False, "decided_by": "Bob", "comment": "not yet"}}
    services.post(f"flow_runs/{refused}/resume", **answer)
    assert services.finish(refused) == "COMPLETED", services.logs(refused)
    assert registry.champion() is None
    assert promote_by_command() == 3

    registry.ask("delete", "model-versions/delete-tag", version="1", key="refused_at")
    approved = paused(services, version=1)
    answer = {"run_input": {"approve": True, "decided_by": "Ada", "comment": "fine"}}
    services.post(f"flow_runs/{approved}/resume", **answer)
    assert services.finish(approved) == "COMPLETED", services.logs(approved)
    assert registry.champion() == "1"
    shown = registry.version("1")
    assert "**promoted** by Ada" in shown["description"]
    assert "**refused** by Bob" in shown["description"]
    assert promote_by_command() == 0

    register_better_seed(services, than=shown["tags"]["seed"])
    assert registry.aliases() == {"challenger": "2", "champion": "1"}
    # What was approved is what was shown, and not what has become challenger since.
    stale = paused(services)
    registry.ask("post", "registered-models/alias", alias="challenger", version="1")
    services.post(f"flow_runs/{stale}/resume", **answer)
    assert services.finish(stale) == "COMPLETED", services.logs(stale)
    assert registry.champion() == "1"
    services.wait_for_log(stale, "and is version 1 now; nothing was promoted.")
    promoted = services.start("promote/promote-model", corpus=corpus, version=2)
    assert services.finish(promoted) == "COMPLETED", services.logs(promoted)
    assert registry.champion() == "2"

    for expected in ("COMPLETED", "FAILED"):
        back = services.start("rollback/roll-back-model", corpus=corpus)
        assert services.finish(back) == expected, services.logs(back)
        assert registry.champion() == "1"
    services.wait_for_log(back, "had no champion before it")
    # With a changed file no run with overrides begins.
    git(services.project, "checkout", "--quiet", "--", "mlflow")


def own_memory(process: psutil.Process) -> int:
    """Bytes of memory; what several processes share counts once among them, where that is told."""
    try:
        memory = process.memory_full_info()
    except psutil.NoSuchProcess:
        return 0
    return int(getattr(memory, "pss", memory.rss))


def test_stopping_the_services_leaves_no_process_and_no_port(services: Services) -> None:
    """Comes last: it stops what the tests of this file use."""
    # The schedule may look at this moment.
    wait_for(lambda: not engines(services), 120)
    family = psutil.Process(services.process.pid).children(recursive=True)
    assert len(family) >= 3
    assert sum(map(own_memory, family)) < 1.5e9
    run, folder = start_long_training(services, **{"recipes.mini.steps": 200_000})
    family = psutil.Process(services.process.pid).children(recursive=True)
    services.process.send_signal(signal.SIGINT)
    assert services.process.wait(30) == 0
    assert not alive(family, 5)
    for address in (services.prefect, services.mlflow):
        with pytest.raises(requests.ConnectionError):
            requests.get(address, timeout=2)
    assert not working_on(folder)
    with server.prefect_server(services.project) as running:
        found = requests.get(f"{running.url}/flow_runs/{run}", timeout=30).json()
    assert found["state"]["type"] in ("CRASHED", "CANCELLED")
