"""MLflow runs: one per model, written live or from files, never twice, never in the way."""

import dataclasses
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import report_world

from brewline.config import Params
from brewline.config.experiments import TableParams
from brewline.config.runtime import TrackingParams
from brewline.core.errors import BrewlineError
from brewline.core.files import sha256_tree
from brewline.media.corpus_media import CorpusMedia
from brewline.tracking import runs as runs_module
from brewline.tracking.facts import REPORT_ONLY, model_facts
from brewline.tracking.live_run import live
from brewline.tracking.recording import EvaluationFiles, record, record_corpus, record_table
from brewline.tracking.runs import PIPELINE_VARIABLE, create_run, pipeline_key
from brewline.tracking.store import (
    open_store,
    public_uri,
    tracking_uri,
)

# Processes from one that has imported MLflow and runs no thread; a fork of this one, which does,
# may inherit a lock that nobody frees.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["brewline.tracking.recording", "mlflow", "mlflow.store.tracking.sqlalchemy_store"]
)
TRACKING = TrackingParams(experiment="brewline", system_metrics=False, register_experiments=False)
PARAMS = report_world.params().model_copy(update={"tracking": TRACKING})
CORPUS, ROW = "mini-lncoco", "full"
EXPERIMENT = f"{CORPUS}-{ROW}"
MODEL = Path("models") / EXPERIMENT / "seed-0"
ON_TEST = f"{REPORT_ONLY}/test/speech_to_image/recall_at_1"


@pytest.fixture
def dead_server(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        uri = f"http://user:secret@127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    yield uri


def facts() -> dict[str, Any]:
    """What the train stage knows before it trains."""
    card = report_world.model_facts(PARAMS, EXPERIMENT, 0)
    return model_facts(PARAMS, card | {"num_trained_parameters": 0, "best_step": None, "dev": {}})


def evaluation(project: Path) -> EvaluationFiles:
    media = CorpusMedia(
        CORPUS, project / f"data/manifest/{CORPUS}.parquet", report_world.fake_media
    )
    return EvaluationFiles(project / "reports/evaluation" / CORPUS, ROW, media.image)


def rows() -> list[dict[str, Any]]:
    return report_world.history(ROW)


def runs(kind: str = "model") -> list[Any]:
    store = open_store(TRACKING)
    return list(store.client.search_runs([store.experiment_id], f"tags.kind = '{kind}'"))


def points(run: Any, metric: str) -> list[tuple[int, float]]:
    store = open_store(TRACKING)
    history = store.client.get_metric_history(run.info.run_id, metric)
    return sorted((point.step, point.value) for point in history)


def everything(run: Any) -> dict[str, Any]:
    """All that a run holds, to compare before and after."""
    store = open_store(TRACKING)
    artifacts = {
        str(path.relative_to(Path.cwd())): path.read_bytes()
        for path in sorted((Path.cwd() / "mlartifacts").rglob("*"))
        if path.is_file()
    }
    return {
        "data": run.data.to_dictionary(),
        "info": dict(run.info),
        "inputs": run.inputs.to_dictionary(),
        "history": {
            name: [dict(point) for point in store.client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        },
        "artifacts": artifacts,
    }


def test_live_run_is_whole(project: Path) -> None:
    with live(facts(), TRACKING, project / "work/run.json") as run:
        for row in rows():
            run.log_row(row)
        assert run.run_id
        run.model_made(project / MODEL)
    saved = json.loads((project / "work/run.json").read_text())
    assert saved == {"run_id": run.run_id, "tracking_uri": f"sqlite:///{project}/mlflow.db"}
    (found,) = runs()
    assert found.info.status == "FINISHED"
    assert found.data.params["recipe.steps"] == str(facts()["recipe"]["steps"])
    assert found.data.params["variant.prompts"] == "4"
    # Not known yet, and MLflow takes no second value.
    assert "num_trained_parameters" not in found.data.params
    assert found.data.tags["model_digest"] == sha256_tree(project / MODEL)
    assert found.data.tags["data.shards"] == "c" * 64
    assert found.data.tags["data.states"] == "d" * 64
    assert "A generated corpus: these numbers" in found.data.tags["mlflow.note.content"]
    assert found.inputs.dataset_inputs[0].dataset.name == f"{CORPUS} shards"
    assert len(points(found, "training/loss")) == 40
    assert len(points(found, "dev/speech_to_image/recall_at_1")) == 4


def test_killed_training_goes_on_in_the_same_run(project: Path) -> None:
    history = rows()
    path = project / "work/run.json"
    with pytest.raises(KeyboardInterrupt), live(facts(), TRACKING, path) as run:
        for row in history[:25]:
            run.log_row(row)
        raise KeyboardInterrupt
    (found,) = runs()
    assert found.info.status == "KILLED"
    with live(facts(), TRACKING, path) as again:
        assert again.run_id == run.run_id
        # The checkpoint was older than the last row that was logged.
        for row in history[15:]:
            again.log_row(row)
    (found,) = runs()
    assert found.info.status == "FINISHED"
    assert points(found, "training/loss") == [
        (r["step"], r["loss"]) for r in history if "loss" in r
    ]


def test_the_validation_of_a_corpus_is_kept_once_beside_the_pipelines_run(project: Path) -> None:
    validation = project / "reports/validation" / CORPUS
    validation.mkdir(parents=True)
    page = validation / "index.html"
    page.write_text("39 of 39 expectations met")
    found = dataclasses.replace(evaluation(project), validation=validation)
    for seed in ("seed-0", "seed-1"):
        record(MODEL.parent / seed, PARAMS, found)
    (parent,) = runs("pipeline")
    store = open_store(TRACKING)

    def artifacts() -> list[str]:
        path = f"validation/{CORPUS}"
        return [one.path for one in store.client.list_artifacts(parent.info.run_id, path)]

    assert artifacts() == [f"validation/{CORPUS}/index.html"]
    tag = parent.data.tags[f"validation_digest.{CORPUS}"]
    assert tag == sha256_tree(validation)
    page.write_text("38 of 39 expectations met")
    record(MODEL, PARAMS, found)
    (parent,) = runs("pipeline")
    assert parent.data.tags[f"validation_digest.{CORPUS}"] != tag


def test_exception_fails_the_run_and_its_parent(project: Path) -> None:
    with (
        pytest.raises(ValueError, match="boom"),
        live(facts(), TRACKING, project / "work/run.json"),
    ):
        assert runs("pipeline")[0].info.status == "RUNNING"
        raise ValueError("boom")
    assert runs()[0].info.status == "FAILED"
    assert runs("pipeline")[0].info.status == "FAILED"
    # Another try in the same pipeline mends both.
    with live(facts(), TRACKING, project / "work/run.json"):
        pass
    assert [run.info.status for run in runs() + runs("pipeline")] == ["FINISHED", "FINISHED"]


def _train_until_killed(project: Path, path: Path, started: Any) -> None:
    os.chdir(project)
    watched = TrackingParams(experiment="brewline", system_metrics=True, register_experiments=False)
    with live(facts(), watched, path) as run:
        run.log_row({"step": 1, "loss": 2.0})
        started.set()
        time.sleep(60)


def test_sigterm_ends_the_run_as_killed(project: Path, capfd: Any) -> None:
    open_store(TRACKING)
    started = SERVER.Event()
    child = SERVER.Process(
        target=_train_until_killed, args=(project, project / "work/run.json", started)
    )
    child.start()
    assert started.wait(30)
    child.terminate()
    asked = time.monotonic()
    child.join(timeout=20)
    assert time.monotonic() - asked < 4
    assert child.exitcode == 143
    assert capfd.readouterr().err == ""
    (found,) = runs()
    assert found.info.status == "KILLED"
    assert points(found, "training/loss") == [(1, 2.0)]


def test_sigterm_handler_is_put_back(project: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with live(facts(), TRACKING, project / "work/run.json"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_sigterm_does_not_cut_off_the_end(project: Path) -> None:
    """DVC gets a SIGTERM with the stage; when it dies, the kernel sends the stage another."""
    with (
        pytest.raises(SystemExit),
        live(facts(), TRACKING, project / "work/run.json"),
    ):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
    (run,) = runs()
    assert run.info.status == "KILLED"


def test_record_completes_the_live_run_once(project: Path) -> None:
    with live(facts(), TRACKING, project / "work/run.json") as run:
        for row in rows()[:10]:
            run.log_row(row)
        run.model_made(project / MODEL)
    ids = {record(project / MODEL, PARAMS, evaluation(project)) for _ in range(2)}
    assert ids == {run.run_id}
    (found,) = runs()
    assert len(points(found, "training/loss")) == 40
    assert found.data.params["num_trained_parameters"] == "264193"
    # One step after the curve, so that the latest value is the finished model's.
    curve = points(found, "dev/speech_to_image/recall_at_1")
    assert [step for step, _ in curve] == [50, 100, 150, 200, 201]
    assert found.data.metrics["dev/speech_to_image/recall_at_1"] == curve[-1][1]
    assert found.data.metrics[ON_TEST] == pytest.approx(0.59)
    before = everything(found)
    names = {Path(name).name for name in before["artifacts"]}
    assert names == {"model.json", "history.jsonl", "recall.png", "examples.html"}
    record(project / MODEL, PARAMS, evaluation(project))
    assert everything(runs()[0]) == before


def test_record_makes_what_is_not_there(project: Path) -> None:
    path = project / "work/run.json"
    run_id = record(project / MODEL, PARAMS, evaluation(project), path)
    assert json.loads(path.read_text())["run_id"] == run_id
    (found,) = runs()
    assert found.data.tags["recorded_from_files"] == "true"
    assert found.info.status == "FINISHED"
    frozen = project / f"models/{CORPUS}-zero-shot/frozen"
    record(frozen, PARAMS, dataclasses.replace(evaluation(project), row="zero-shot"))
    assert len(runs()) == 2
    (parent,) = runs("pipeline")
    assert parent.info.status == "FINISHED"
    assert {run.data.tags["mlflow.parentRunId"] for run in runs()} == {parent.info.run_id}


def recorded(project: Path, experiment: str, params: Params = PARAMS) -> Any:
    """The run of an experiment's first model, recorded from its files."""
    (folder, *_) = sorted((project / "models" / experiment).iterdir())
    run_id = record(folder, params)
    return next(run for run in runs() if run.info.run_id == run_id)


def test_a_run_says_what_its_model_is_and_where_it_comes_from(project: Path) -> None:
    data = recorded(project, EXPERIMENT).data
    recipe = PARAMS.recipes["mini"]
    assert recipe
    tags = {"experiment": EXPERIMENT, "task": "retrieval", "variant": "full", "corpus": CORPUS}
    assert data.tags.items() >= (tags | {"trained_on": CORPUS, "seed": "0"}).items()
    assert "init" not in data.tags
    assert (
        data.params.items()
        >= {
            "variant.text": "asr",
            "variant.alpha": "0.1",
            "variant.acoustic.layers": "1",
            "variant.acoustic.padding_mask": "valid",
            "recipe.steps": str(recipe.steps),
            "recipe.learn_temperature": "True",
            "backbones.clip": "b" * 64,
        }.items()
    )
    assert "recipe.seeds" not in data.params


def test_a_model_that_was_taken_over_names_both_corpora(project: Path) -> None:
    run = recorded(project, "mini-flickr8k-full-of-lncoco")
    assert run.info.run_name == "full-of-lncoco on mini-flickr8k, seed 0"
    assert (
        run.data.tags.items()
        >= {
            "experiment": "mini-flickr8k-full-of-lncoco",
            "corpus": "mini-flickr8k",
            "trained_on": CORPUS,
            "init": EXPERIMENT,
        }.items()
    )
    names = {one.dataset.name for one in run.inputs.dataset_inputs}
    assert names == {f"{CORPUS} shards", f"{CORPUS} states"}


def test_what_was_never_trained_has_no_recipe(project: Path) -> None:
    run = recorded(project, f"{CORPUS}-zero-shot")
    assert run.info.run_name == f"zero-shot on {CORPUS}, frozen"
    assert not {"trained_on", "init"} & set(run.data.tags)
    assert not [name for name in run.data.params if name.startswith(("recipe.", "variant.ac"))]
    assert run.data.params["num_trained_parameters"] == "0"


def test_real_recordings_are_not_called_generated(project: Path) -> None:
    real = PARAMS.sources[CORPUS].model_copy(update={"synthetic": False})
    params = PARAMS.model_copy(update={"sources": PARAMS.sources | {CORPUS: real}})
    assert "generated" not in recorded(project, EXPERIMENT, params).data.tags["mlflow.note.content"]


def test_a_model_of_two_tables_is_recorded_once(project: Path) -> None:
    few = TableParams(data=CORPUS, rows={"ours": EXPERIMENT, "start": f"{CORPUS}-zero-shot"})
    more = TableParams(data=CORPUS, rows={"same": EXPERIMENT, "text": f"{CORPUS}-prompted"})
    params = PARAMS.model_copy(update={"tables": {"few": few, "more": more}})
    report_world.make_world(project, params)
    path = project / "reports/evaluation/more/models.json"
    path.write_text(path.read_text().replace("0.59", "0.0"))
    found = record_corpus(params, CORPUS, project)
    assert [str(folder.relative_to(project / "models")) for folder in found] == [
        f"{EXPERIMENT}/seed-0",
        f"{EXPERIMENT}/seed-1",
        f"{CORPUS}-zero-shot/frozen",
        f"{CORPUS}-prompted/seed-0",
        f"{CORPUS}-prompted/seed-1",
    ]
    assert len(set(found.values())) == len(runs()) == 5
    # What the second table says of it is not asked for.
    again = record_table(params, "more", project)
    assert [folder.parent.name for folder in again] == [f"{CORPUS}-prompted"] * 2
    ours = next(run for run in runs() if run.info.run_id == found[project / MODEL])
    assert ours.data.metrics[ON_TEST] == pytest.approx(0.59)
    assert len(runs()) == 5


def test_record_adds_the_evaluation_later(project: Path) -> None:
    record(project / MODEL, PARAMS)
    assert ON_TEST not in runs()[0].data.metrics
    record(project / MODEL, PARAMS, evaluation(project))
    (found,) = runs()
    assert ON_TEST in found.data.metrics
    assert len(points(found, "training/loss")) == 40


def test_record_names_what_is_missing(project: Path) -> None:
    with pytest.raises(BrewlineError, match=r"model\.json is missing; run `dvc repro`"):
        record(project / "models/nothing", PARAMS)
    (project / "reports/evaluation" / CORPUS / "models.json").write_text("{}")
    with pytest.raises(BrewlineError, match=f"has no metrics of {EXPERIMENT}/seed-0"):
        record(project / MODEL, PARAMS, evaluation(project))


def test_work_goes_on_without_a_server(
    project: Path, dead_server: str, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    started = time.monotonic()
    path = project / "work/run.json"
    with live(facts(), TRACKING, path) as run:
        for row in rows():
            run.log_row(row)
        run.model_made(project / MODEL)
        assert run.run_id is None
    assert record(project / MODEL, PARAMS, evaluation(project), path) is None
    assert time.monotonic() - started < 15
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "cannot be reached; the work goes on" in said
    assert "secret" not in said + path.read_text()
    # Back again, `record` brings everything in.
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    run_id = record(project / MODEL, PARAMS, evaluation(project), path)
    assert [found.info.run_id for found in runs()] == [run_id]
    assert len(points(runs()[0], "training/loss")) == 40


def test_server_that_goes_away_in_between(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    path = project / "work/run.json"
    with live(facts(), TRACKING, path) as run:
        run.log_row(rows()[0])
        store = run._store
        assert store

        def lost(*_: Any, **__: Any) -> None:
            raise ConnectionError("gone")

        monkeypatch.setattr(type(store.client), "log_batch", lost)
        run._last_flush_s = 0.0
        run.log_row(rows()[1])
        run.log_row(rows()[2])
        monkeypatch.undo()
        monkeypatch.chdir(project)
        run.model_made(project / MODEL)
    assert capfd.readouterr().err.count("cannot be reached") == 1
    # It was cut off before it knew its digest, and is found by its id.
    assert record(project / MODEL, PARAMS, None, path) == run.run_id
    (found,) = runs()
    assert found.info.status == "FINISHED"
    assert len(points(found, "training/loss")) == 40


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("postgresql://me:secret@127.0.0.1/mlflow", "driver is not installed.*psycopg"),
        ("nonsense://127.0.0.1/mlflow", "MLflow at nonsense://127.0.0.1/mlflow refuses"),
    ],
)
def test_a_store_that_cannot_be_opened_is_named(
    project: Path, monkeypatch: pytest.MonkeyPatch, uri: str, words: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(BrewlineError, match=words) as error:
        open_store(TRACKING)
    assert "secret" not in str(error.value)


def test_deleted_experiment_is_named_and_costs_no_model(project: Path, capfd: Any) -> None:
    store = open_store(TRACKING)
    store.client.delete_experiment(store.experiment_id)
    assert record(project / MODEL, PARAMS) is None
    assert "'brewline' was deleted; restore it" in capfd.readouterr().err
    # Before anything is done, it is a mistake to mend.
    with (
        pytest.raises(BrewlineError, match="'brewline' was deleted"),
        live(facts(), TRACKING, project / "work/run.json"),
    ):
        pass


def _record_in(project: Path, model: Path) -> None:
    os.chdir(project)
    record(model, PARAMS)


def test_parallel_starts_on_a_new_store(project: Path, capfd: Any) -> None:
    (project / "mlflow.db").unlink()
    folders = [p.parent for p in sorted((project / "models").glob("mini-*/*/model.json"))][:3]
    started = [
        SERVER.Process(target=_record_in, args=(project, folder))
        for folder in [*folders, folders[0]]
    ]
    for child in started:
        child.start()
    for child in started:
        child.join(timeout=180)
    assert [child.exitcode for child in started] == [0] * 4
    assert capfd.readouterr().err == ""
    assert len(runs()) == 3
    assert len(runs("pipeline")) == 1


def _train_together(project: Path, seed: int, together: Any) -> None:
    os.chdir(project)

    def create_and_wait(*arguments: Any) -> Any:
        run = create_run(*arguments)
        together.wait(timeout=120)
        return run

    # This process is the test's own.
    runs_module.create_run = create_and_wait
    with live(facts() | {"seed": seed}, TRACKING, Path(f"work/seed-{seed}.json")):
        pass


def test_seeds_that_start_together_log_the_same_data(project: Path) -> None:
    together = SERVER.Barrier(4)
    started = [
        SERVER.Process(target=_train_together, args=(project, seed, together)) for seed in range(4)
    ]
    for child in started:
        child.start()
    for child in started:
        child.join(timeout=180)
    assert [child.exitcode for child in started] == [0] * 4
    found = runs()
    assert len(found) == 4
    assert {len(run.inputs.dataset_inputs) for run in found} == {2}


def test_pipeline_key_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PIPELINE_VARIABLE, "a'b c")
    assert pipeline_key() == "a-b-c"


def test_pipeline_key_from_dvc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(PIPELINE_VARIABLE, raising=False)
    # A program by the name of dvc, with a shell between it and the stage, as DVC has it.
    script = tmp_path / "dvc"
    inner = "from brewline.tracking.runs import pipeline_key; print(pipeline_key())"
    script.write_text(
        "import os, shlex, subprocess, sys\nprint(os.getpid(), flush=True)\n"
        f"stage = shlex.join([sys.executable, '-c', {inner!r}])\n"
        "subprocess.run(f'{stage}; true', shell=True)\n"
    )
    command = [sys.executable, script]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert out[1].startswith(f"dvc-{out[0]}-")


def test_pipeline_key_without_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(PIPELINE_VARIABLE, raising=False)
    monkeypatch.setattr(psutil.Process, "parents", lambda self: [psutil.Process(os.getpid())])
    assert pipeline_key() is None


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("https://me:secret@host:5000/path?token=x", "https://host:5000/path"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////a/mlflow.db?password=x", "sqlite:////a/mlflow.db"),
    ],
)
def test_public_uri(uri: str, shown: str) -> None:
    assert public_uri(uri) == shown


def test_an_experiment_of_dvc_is_kept_with_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    workspace = Path("/home/me/brewline/.dvc/tmp/exps/tmp1a2b3c")
    assert tracking_uri(workspace) == "sqlite:////home/me/brewline/mlflow.db"
    assert tracking_uri(Path("/home/me/brewline")) == ("sqlite:////home/me/brewline/mlflow.db")
