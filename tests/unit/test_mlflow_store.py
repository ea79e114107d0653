"""The store over time: outages, twins, what a pipeline run says, a moved folder, and clean-up."""

import hashlib
import json
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import report_world
import yaml

from brewline.cli import main
from brewline.config import Params
from brewline.config.experiments import ExternalParams
from brewline.config.runtime import TrackingParams
from brewline.core.files import sha256_file, sha256_tree, write_json
from brewline.tables.parquet import read_table, write_table
from brewline.tables.transcripts import TRANSCRIPTS
from brewline.tracking import live_run, runs, store
from brewline.tracking.facts import HEADLINE, metric_in_mlflow, model_facts, transcription_facts
from brewline.tracking.first_view import result_links, runs_link
from brewline.tracking.live_run import live
from brewline.tracking.overrides import overrides
from brewline.tracking.pipeline_runs import NAME_VARIABLE, best_metric, log_headline
from brewline.tracking.recording import record, record_everything, record_table
from brewline.tracking.store import open_store
from brewline.tracking.transcription_run import record_transcription, record_transcriptions
from brewline.tracking.unneeded_files import find_unneeded_files, forget_models
from flows.workspace import narrow_to

TRACKING = TrackingParams(experiment="brewline", system_metrics=False, register_experiments=False)
PARAMS: Params = report_world.params().model_copy(update={"tracking": TRACKING})
CORPUS = "mini-lncoco"
EXPERIMENT = f"{CORPUS}-full"
MODEL = Path("models") / EXPERIMENT / "seed-0"
DEAD_PROCESS = f"{socket.gethostname()} 4194304 1"


def facts() -> dict[str, Any]:
    """What stage `train` knows before it trains."""
    card = report_world.model_facts(PARAMS, EXPERIMENT, 0)
    return model_facts(PARAMS, card | {"num_trained_parameters": 0, "best_step": None, "dev": {}})


def found(kind: str = "model") -> list[Any]:
    opened = open_store(TRACKING)
    return list(opened.client.search_runs([opened.experiment_id], f"tags.kind = '{kind}'"))


def steps(run: Any, metric: str) -> list[int]:
    history = open_store(TRACKING).client.get_metric_history(run.info.run_id, metric)
    return sorted(point.step for point in history)


def commit(project: Path, changes: Mapping[str, Any]) -> None:
    """Commits the parameters, then changes them."""
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "--quiet"], cwd=project, check=True)
    subprocess.run([*git, "add", "params.yaml"], cwd=project, check=True)
    subprocess.run([*git, "commit", "--quiet", "-m", "x"], cwd=project, check=True)
    override(project, changes)


def override(project: Path, changes: Mapping[str, Any]) -> None:
    path = project / "params.yaml"
    values = yaml.safe_load(path.read_text())
    for name, value in changes.items():
        *sections, last = name.split(".")
        section = values
        for part in sections:
            section = section[part]
        section[last] = value
    path.write_text(yaml.safe_dump(values, sort_keys=False))


def test_a_store_of_files_that_fails_costs_no_model(project: Path, capfd: Any) -> None:
    """S3 without its driver, or without a key."""
    client = open_store(TRACKING.model_copy(update={"experiment": "other"})).client
    client.create_experiment("brewline", "s3://no-such-bucket/brewline")
    with live(facts(), TRACKING, project / "work/run.json") as run:
        run.model_made(project / MODEL)
    assert record(MODEL, PARAMS, run_id_path=project / "work/run.json") == run.run_id
    (one,) = found()
    assert one.info.status == "FINISHED"
    assert one.data.tags[runs.DIGEST_TAG] == sha256_tree(MODEL)
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "boto3" in said or "credentials" in said


class _StrangeError(Exception):
    """A client's own kind, as botocore has."""


def test_any_error_of_the_client_costs_no_model(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    client = type(open_store(TRACKING).client)

    def fails(*_: Any, **__: Any) -> None:
        raise _StrangeError("out of\nluck")

    with live(facts(), TRACKING, project / "work/run.json") as run:
        monkeypatch.setattr(client, "log_batch", fails)
        monkeypatch.setattr(client, "set_tag", fails)
        run._last_flush_s = 0.0
        run.log_row({"step": 1, "loss": 1.0})
        run.model_made(project / MODEL)
    assert record(MODEL, PARAMS) is None
    said = capfd.readouterr().err
    assert said.count("\n") == 1
    assert "did not take everything (out of luck); the work goes on" in said


def test_live_logging_comes_back_after_a_lost_connection(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_run, "_FLUSH_AFTER_S", 0.0)
    monkeypatch.setattr(live_run, "_RETRY_AFTER_S", 0.2)
    client = type(open_store(TRACKING).client)

    def lost(*_: Any, **__: Any) -> None:
        raise ConnectionError("gone")

    with live(facts(), TRACKING, project / "work/run.json") as run:
        run.log_row({"step": 1, "loss": 3.0})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(client, "log_batch", lost)
            run.log_row({"step": 2, "loss": 2.0})
        run.log_row({"step": 3, "loss": 2.0})
        (one,) = found()
        # It is not asked again at once.
        assert steps(one, "training/loss") == [1]
        time.sleep(0.5)
        run.log_row({"step": 4, "loss": 1.0})
        assert steps(one, "training/loss") == [1, 2, 3, 4]
    assert found()[0].info.status == "FINISHED"


def test_a_store_that_is_away_at_the_start_is_used_once_it_is_there(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setattr(live_run, "_RETRY_AFTER_S", 0.0)

    def away(*_: Any) -> None:
        raise OSError("no route")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_run, "open_store", away)
        started = live(facts(), TRACKING, project / "work/run.json")
        run = started.__enter__()
        run.log_row({"step": 1, "loss": 3.0})
        assert run.run_id is None
    run.model_made(project / MODEL)
    started.__exit__(None, None, None)
    (one,) = found()
    assert (one.info.run_id, one.info.status) == (run.run_id, "FINISHED")
    assert steps(one, "training/loss") == [1]
    assert capfd.readouterr().err.count("cannot be reached") == 1


def cut_off(project: Path, what: Mapping[str, Any]) -> str:
    """Begins a run that its process and its server never ended; returns its id."""
    run = live_run.LiveRun(what, TRACKING, project / f"work/lost-{len(found())}.json")
    run.begin()
    assert run.run_id
    open_store(TRACKING).client.set_tag(run.run_id, "process", DEAD_PROCESS)
    return run.run_id


def test_record_finds_and_ends_the_run_of_a_killed_server(project: Path) -> None:
    lost = cut_off(project, facts())
    assert [run.info.status for run in found() + found("pipeline")] == ["RUNNING", "RUNNING"]
    other = cut_off(project, facts() | {"seed": 7, "experiment": "gone"})
    assert record_everything(PARAMS, [CORPUS])[str(MODEL)] == lost
    status = {run.info.run_id: run.info.status for run in found()}
    assert status[lost] == "FINISHED"
    # There is no model for it.
    assert status[other] == "KILLED"
    assert found("pipeline")[0].info.status == "KILLED"


def test_record_leaves_a_run_alone_that_is_being_written(project: Path) -> None:
    with live(facts(), TRACKING, project / "work/run.json") as run:
        made = record(MODEL, PARAMS)
        record_everything(PARAMS, [])
        assert made != run.run_id
        assert found()[0].info.status == "RUNNING" or found()[1].info.status == "RUNNING"


def test_a_training_that_gives_the_same_bytes_leaves_no_twin(project: Path) -> None:
    first = record(MODEL, PARAMS)
    path = project / "work/run.json"
    with live(facts(), TRACKING, path) as run:
        run.log_row({"step": 1, "loss": 1.0})
        run.model_made(project / MODEL)
    assert len(found()) == 2
    assert record(MODEL, PARAMS, run_id_path=path) == first
    assert [one.info.run_id for one in found()] == [first]


def transcribe(project: Path) -> dict[str, Any]:
    """Transcripts of a corpus, and `dvc.lock` about them; returns what their run is about."""
    manifest = project / f"data/manifest/{CORPUS}.parquet"
    rows = [
        dict.fromkeys(TRANSCRIPTS.names)
        | {"utterance_id": row["utterance_id"], "split": row["split"], "text": "a dog"}
        | {"num_windows": 1, "num_frames": 10, "status": "ok", "asr_model": "mini"}
        for row in read_table(manifest)
    ]
    transcripts = project / f"data/transcripts/{CORPUS}.parquet"
    write_table(transcripts, TRANSCRIPTS, rows)
    names = project / "models/backbones/backbones.json"
    md5 = {
        str(path.relative_to(project)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in (manifest, names, transcripts)
    }
    asr = yaml.safe_load((project / "params.yaml").read_text())["asr"]
    entries = [{"path": path, "md5": digest} for path, digest in md5.items()]
    stage = {"deps": entries[:2], "outs": entries[2:], "params": {"params.yaml": {"asr": asr}}}
    (project / "dvc.lock").write_text(yaml.safe_dump({"stages": {f"transcribe@{CORPUS}": stage}}))
    return transcription_facts(PARAMS, CORPUS, "a" * 64, sha256_file(manifest))


def test_record_ends_a_transcription_that_lost_its_server(project: Path) -> None:
    about = transcribe(project)
    lost = cut_off(project, about)
    # The parameters of today are not those of the transcripts.
    override(project, {"asr.beam_size": 5})
    for _ in range(2):
        assert record_transcriptions(PARAMS) == {f"transcription of {CORPUS}": lost}
    (run,) = found("transcription")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"transcription of {CORPUS}"
    assert run.data.metrics["transcription/num_failed"] == 0
    assert run.data.params["asr.beam_size"] == "1"
    # Another try that heard the same is no second run; other settings are one.
    with live(about, TRACKING, project / "work/run.json"):
        pass
    record_transcription(PARAMS, CORPUS, about, run_id_path=project / "work/run.json")
    assert [one.info.run_id for one in found("transcription")] == [lost]
    record_transcription(PARAMS, CORPUS, about | {"asr": {**about["asr"], "beam_size": 5}})
    assert len(found("transcription")) == 2


def probed(project: Path) -> Path:
    """What DVC knows of a probe that ran."""
    (name,) = PARAMS.probes
    path = project / f"metrics/probe/{name}.json"
    md5 = hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
    settings = {f"probes.{name}": PARAMS.probes[name].model_dump()}
    outs = [{"path": f"metrics/probe/{name}.json", "md5": md5}]
    stage = {"deps": [], "outs": outs, "params": {"params.yaml": settings}}
    (project / "dvc.lock").write_text(yaml.safe_dump({"stages": {f"probe@{name}": stage}}))
    return path


def test_the_numbers_of_a_probe_are_in_mlflow_under_their_names(project: Path) -> None:
    path = probed(project)
    # The parameters of today are not those of the numbers.
    (name,) = PARAMS.probes
    later = PARAMS.probes[name].model_copy(update={"speaker_folds": 9})
    today = PARAMS.model_copy(update={"probes": {name: later}})
    ids = {record_everything(today, [])[f"probe {name}"] for _ in range(2)}
    (run,) = found("probe")
    assert ids == {run.info.run_id}
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "emotions heard in mini-ravdess, probe mini-ravdess"
    assert run.data.params["probe.speaker_folds"] == str(PARAMS.probes[name].speaker_folds)
    wanted = {
        f"z_report_only/{feature.replace('+', ' and ')}/{metric}": value
        for feature, values in json.loads(path.read_text()).items()
        for metric, value in values.items()
    }
    assert len(wanted) > 100
    assert dict(run.data.metrics) == pytest.approx(wanted)


def test_vectors_of_others_have_a_run_with_their_numbers_and_no_model(project: Path) -> None:
    name = "peer"
    row = {"data": CORPUS, "utterances": "u.parquet", "images": "i.parquet"}
    table = PARAMS.tables[CORPUS]
    rows = {**table.rows, "speechclip": name}
    given = PARAMS.model_copy(
        update={
            "external": {name: ExternalParams(**row)},
            "tables": {**PARAMS.tables, CORPUS: table.model_copy(update={"rows": rows})},
        }
    )
    folder = project / "reports/evaluation" / CORPUS
    models = json.loads((folder / "models.json").read_text())
    models[f"{name}/external"] = {
        "dev/mean_recall_at_1": 0.4,
        "dev/speech_to_image/mean_rank": 7.5,
        "test/image_to_speech/any_hit_recall_at_1": 0.3,
    }
    (folder / "models.json").write_text(json.dumps(models))
    vectors = project / f"data/embeddings/{CORPUS}/{name}/external.safetensors"
    vectors.parent.mkdir(parents=True)
    vectors.write_bytes(b"vectors")
    (id_,) = {record_table(given, CORPUS, project)[vectors] for _ in range(2)}
    (run,) = found("external")
    assert run.info.run_id == id_
    assert run.info.run_name == f"peer on {CORPUS}, computed by others"
    assert run.data.metrics == {
        "dev/mean_recall_at_1": 0.4,
        "more/dev/speech_to_image/mean_rank": 7.5,
        "z_report_only/test/image_to_speech/any_hit_recall_at_1": 0.3,
    }
    assert run.data.params["external.utterances"] == "u.parquet"
    assert "experiment" not in run.data.tags
    assert not [one for one in found() if "peer" in one.info.run_name]
    # Other vectors under the name are another run.
    vectors.write_bytes(b"others")
    assert record_table(given, CORPUS, project)[vectors] != id_


def test_the_numbers_of_another_probe_are_another_run_and_changed_ones_are_left_out(
    project: Path,
) -> None:
    path = probed(project)
    record_everything(PARAMS, [])
    values = json.loads(path.read_text())
    values["majority"]["by_speaker/paper4/accuracy"] = 0.123
    path.write_text(json.dumps(values))
    # Nobody knows with what these were made.
    assert not [name for name in record_everything(PARAMS, []) if name.startswith("probe")]
    probed(project)
    record_everything(PARAMS, [])
    assert len(found("probe")) == 2


def test_a_pipeline_run_says_what_it_changed_and_reached(project: Path) -> None:
    commit(project, {"recipes.mini.steps": 80})
    record_everything(PARAMS, [CORPUS])
    (parent,) = found("pipeline")
    assert parent.info.run_name == "recipes.mini.steps=80"
    assert parent.data.params["override.recipes.mini.steps"] == "80"
    assert parent.data.params["corpora"] == "mini-flickr8k, mini-lncoco, mini-ravdess, mini-videos"
    assert len(parent.data.tags["mlflow.source.git.commit"]) == 40
    assert parent.data.metrics[best_metric(CORPUS)] == pytest.approx(0.59)
    assert parent.data.metrics[f"dev/{CORPUS} word error rate"] == pytest.approx(0.117)
    assert f"more/{CORPUS}/zero-shot/dev/mean_recall_at_1" in parent.data.metrics
    assert not [name for name in parent.data.metrics if "test" in name]
    assert parent.info.end_time is not None
    assert {run.data.tags["overrides"] for run in found()} == {"recipes.mini.steps=80"}


@pytest.mark.parametrize(
    ("given", "name"), [("", "everything"), ("mini-lncoco-full", "mini-lncoco-full")]
)
def test_a_pipeline_run_is_called_as_its_flow_run_is(
    project: Path, monkeypatch: pytest.MonkeyPatch, given: str, name: str
) -> None:
    monkeypatch.setenv(NAME_VARIABLE, given)
    record(MODEL, PARAMS)
    assert found("pipeline")[0].info.run_name == name


def test_a_sweep_names_all_its_overrides_and_keeps_its_best(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(runs.PIPELINE_VARIABLE, "sweep-1")
    metrics = project / "metrics" / f"{CORPUS}.json"
    commit(project, {})
    for steps_now, reached in ((60, 0.5), (120, 0.7), (240, 0.6)):
        override(project, {"recipes.mini.steps": steps_now})
        write_json(metrics, {"full": {"dev/mean_recall_at_1": reached}})
        log_headline(open_store(TRACKING), PARAMS, CORPUS, project / "metrics")
    (parent,) = found("pipeline")
    # Nothing of it was trained.
    assert parent.info.status == "FINISHED"
    assert parent.info.run_name == "sweep of recipes.mini.steps"
    values = "; ".join(f"recipes.mini.steps={number}" for number in (60, 120, 240))
    assert parent.data.tags["overrides"] == values
    assert parent.data.metrics == {best_metric(CORPUS): 0.7}


def test_the_pipeline_run_links_to_its_report(project: Path) -> None:
    (project / "reports/index.html").write_text("<h1>report</h1>")
    record_everything(PARAMS, [CORPUS])
    (parent,) = found("pipeline")
    link = f"runs/{parent.info.run_id}/artifacts/report/index.html"
    assert link in parent.data.tags["mlflow.note.content"]
    client = open_store(TRACKING).client
    assert [one.path for one in client.list_artifacts(parent.info.run_id, "report")] == [
        "report/index.html"
    ]
    note = found()[0].data.tags["mlflow.note.content"]
    assert f"runs/{parent.info.run_id})" in note


def test_metrics_of_test_sort_last_and_say_what_they_are_for() -> None:
    names = [
        *HEADLINE,
        "loss",
        "dev/speech_to_image/recall_at_5",
        "asr/hours_done",
        "system/cpu_utilization_percentage",
        "test/speech_to_image/recall_at_1",
    ]
    shown = sorted(map(metric_in_mlflow, names))
    assert set(shown[:3]) == set(HEADLINE)
    assert shown[-1] == "z_report_only/test/speech_to_image/recall_at_1"
    assert all("/" in name for name in shown)


def test_the_link_opens_the_runs_with_the_columns_that_matter(project: Path) -> None:
    link = runs_link(PARAMS, "http://me:secret@127.0.0.1:5000/")
    opened = open_store(TRACKING)
    assert link == (
        f"http://127.0.0.1:5000/#/experiments/{opened.experiment_id}/runs"
        "?workflowType=machine_learning&viewStateShareKey=brewline"
    )
    (view,) = (
        value
        for name, value in opened.client.get_experiment(opened.experiment_id).tags.items()
        if name == "mlflow.sharedViewState.brewline"
    )
    for column in ("metrics.`dev/mini-lncoco`", "metrics.`dev/mean_recall_at_1`", "overrides"):
        assert column in view


def test_a_full_disk_is_no_outage(project: Path, capfd: Any) -> None:
    """SQLite says so in words of its own, and MLflow packs these into an error of its own."""
    with store.harmless("sqlite:///mlflow.db"), store.interpreted():
        connection = sqlite3.connect(project / "small.db")
        connection.execute("PRAGMA max_page_count = 2")
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")
    assert "did not take everything ([Errno 28] No space left on device)" in capfd.readouterr().err
    from mlflow.exceptions import MlflowException  # noqa: TID251
    from mlflow.protos.databricks_pb2 import INTERNAL_ERROR  # noqa: TID251

    store._write_once.cache_clear()
    words = "(sqlite3.OperationalError) database or disk is full"
    with store.harmless("sqlite:///mlflow.db"), store.interpreted():
        raise MlflowException(words, INTERNAL_ERROR)
    said = capfd.readouterr().err
    assert "No space left on device" in said
    assert "cannot be reached" not in said


def test_what_a_run_leaves_out_is_no_override(project: Path) -> None:
    """A run of one experiment has a workspace without the others."""
    commit(project, {"recipes.mini.steps": 41})
    narrow_to(project, {f"{CORPUS}-zero-shot", EXPERIMENT})
    assert overrides() == {"recipes.mini.steps": "41"}
    override(project, {f"tables.{CORPUS}.rows.again": EXPERIMENT})
    assert overrides() == {"recipes.mini.steps": "41", f"tables.{CORPUS}.rows.again": EXPERIMENT}


def test_a_stage_links_to_the_runs_of_what_it_made(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, stage = "http://me:secret@127.0.0.1:5000/", ("train", EXPERIMENT)
    assert result_links(PARAMS, address, project, stage, "flow-7") == {}
    monkeypatch.setenv("PREFECT_FLOW_RUN_ID", "flow-7")
    with pytest.raises(RuntimeError), live(facts(), TRACKING, project / "work/run.json") as failed:
        raise RuntimeError
    page = f"http://127.0.0.1:5000/#/experiments/{open_store(TRACKING).experiment_id}/runs"
    # Of a training that failed, those that this flow run wrote.
    links = result_links(PARAMS, address, project, stage, "flow-7")
    assert links == {"full on mini-lncoco, seed 0": f"{page}/{failed.run_id}"}
    assert result_links(PARAMS, address, project, stage, "flow-8") == {}
    # A result is known by its bytes, whoever made it: DVC may have had it.
    monkeypatch.setenv("PREFECT_FLOW_RUN_ID", "flow-6")
    made = record(MODEL, PARAMS, run_id_path=project / "work/other.json")
    links = result_links(PARAMS, address, project, stage, "flow-8")
    assert links == {"full on mini-lncoco, seed 0": f"{page}/{made}"}
    assert result_links(PARAMS, address, project, ("score", CORPUS), "flow-7") == {}


def logged_model(digest: str, run_id: str) -> Any:
    """A model with a file, as registration makes them."""
    opened = open_store(TRACKING)
    made = opened.client.create_logged_model(
        opened.experiment_id,
        name=CORPUS,
        source_run_id=run_id,
        tags={runs.DIGEST_TAG: digest},
    )
    path = Path("work/MLmodel")
    path.parent.mkdir(exist_ok=True)
    path.write_text("weights")
    opened.client.log_model_artifact(made.model_id, str(path))
    opened.client.finalize_logged_model(made.model_id, "READY")
    return opened.client.get_logged_model(made.model_id)


def version_of(model: Any) -> Any:
    client = open_store(TRACKING).client
    if not client.search_registered_models():
        client.create_registered_model("brewline-x")
    return client.create_model_version(
        "brewline-x", source=model.artifact_location, model_id=model.model_id
    )


@pytest.mark.parametrize("copied", [False, True])
def test_a_project_that_moved_has_its_artifacts(
    project: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    run_id = record(MODEL, PARAMS)
    assert run_id
    model = logged_model("d" * 64, run_id)
    version_of(model)
    moved = project.parent / "moved here" / "project"
    moved.parent.mkdir()
    if copied:
        shutil.copytree(project, moved)
    else:
        project.rename(moved)
    monkeypatch.chdir(moved)
    opened = open_store(TRACKING)
    run = opened.client.get_run(run_id)
    assert run.info.artifact_uri.startswith(moved.as_uri())
    path = opened.client.download_artifacts(run_id, "model/model.json")
    assert Path(path).read_text() == (MODEL / "model.json").read_text()
    version = opened.client.search_model_versions("name = 'brewline-x'")[0]
    uri = opened.client.get_model_version_download_uri("brewline-x", version.version)
    assert Path(uri.removeprefix("file://").replace("%20", " "), "MLmodel").read_text() == "weights"
    place = opened.client.get_logged_model(model.model_id).artifact_location
    assert place.startswith(moved.as_uri())
    # What is new lies here too.
    again = record(Path("models") / EXPERIMENT / "seed-1", PARAMS)
    assert (moved / f"mlartifacts/brewline/{again}/artifacts/model/model.json").exists()
    if copied:
        assert not (project / f"mlartifacts/brewline/{again}").exists()


def test_a_store_by_another_name_of_its_folder_is_left_alone(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = record(MODEL, PARAMS)
    assert run_id
    link = project.parent / "link"
    link.symlink_to(project)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{link}/mlflow.db")
    uri = open_store(TRACKING).client.get_run(run_id).info.artifact_uri
    assert uri.startswith(project.as_uri())


def test_files_go_that_no_run_version_or_model_needs(project: Path) -> None:
    kept_run, gone_run = record(MODEL, PARAMS), record(MODEL.parent / "seed-1", PARAMS)
    assert kept_run and gone_run
    of_version = logged_model("1" * 64, kept_run)
    current = logged_model(sha256_tree(MODEL), kept_run)
    without = logged_model("2" * 64, kept_run)
    version_of(of_version)
    freed = logged_model("3" * 64, gone_run)
    deleted = version_of(freed)
    client = open_store(TRACKING).client
    assert [one.path.name for one in find_unneeded_files()] == [without.model_id]
    client.delete_model_version("brewline-x", deleted.version)
    client.delete_run(gone_run)
    unneeded = find_unneeded_files()
    assert {one.path.name for one in unneeded} == {without.model_id, freed.model_id, gone_run}
    assert {str(one.path.parent) for one in unneeded} == {
        str(project / "mlartifacts/brewline"),
        str(project / "mlartifacts/brewline/models"),
    }
    forget_models(unneeded)
    left = {
        one.model_id for one in client.search_logged_models([open_store(TRACKING).experiment_id])
    }
    assert left == {of_version.model_id, current.model_id}
    # What somebody took off the list by hand has files all the same.
    assert {one.path.name for one in find_unneeded_files()} == {
        without.model_id,
        freed.model_id,
        gone_run,
    }


def test_clean_shows_the_files_and_frees_them(project: Path, capsys: Any) -> None:
    run_id = record(MODEL, PARAMS)
    assert run_id
    of_version, without = logged_model("1" * 64, run_id), logged_model("2" * 64, run_id)
    version_of(of_version)
    subprocess.run(
        [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet"], cwd=project, check=True
    )
    (project / "dvc.yaml").write_text("stages: {}")
    folder = Path("mlartifacts/brewline/models") / without.model_id
    assert main(["clean"]) == 0
    shown = capsys.readouterr().out
    assert f"{folder} " in shown
    assert "of a model that no version has any more" in shown
    assert folder.exists()
    assert main(["clean", "--yes"]) == 0
    assert not folder.exists()
    assert Path("mlartifacts/brewline/models", of_version.model_id, "artifacts/MLmodel").exists()
    capsys.readouterr()
    assert main(["clean"]) == 0
    assert capsys.readouterr().out == "nothing is left over\n"


def test_without_a_store_there_are_no_files(project: Path) -> None:
    (project / "mlflow.db").unlink()
    assert find_unneeded_files() == []
    assert not (project / "mlflow.db").exists()
