"""The registry: versions by digest, aliases by policy, and what people do by hand respected."""

import base64
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import report_world
import search_world

from brewline.config import Params, load_params
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json, sha256_tree, write_json
from brewline.registry.policy import Policy, load_policy
from brewline.tables.manifest import MANIFEST
from brewline.tables.parquet import read_table, write_table
from brewline.tracking.model_files import SERVED_PACKAGES
from brewline.tracking.promotion import promote, propose, rollback
from brewline.tracking.registration import register_corpus
from brewline.tracking.runs import PIPELINE_VARIABLE
from brewline.tracking.store import open_store, say_once

CORPUS, NAME = search_world.CORPUS, f"brewline-{search_world.CORPUS}"
FULL, PROMPTED, ZERO_SHOT = search_world.FULL, search_world.PROMPTED, search_world.ZERO_SHOT
METRIC = "dev/mean_recall_at_1"
POLICY = Policy(
    metric=METRIC,
    margin=0.01,
    must_not_drop={},
    max_wer=0.5,
    max_quarantine_rate=0.2,
    max_latency_ms=None,
)


def set_dev(**values: float) -> None:
    """Changes what the models of the project's rows reached on dev."""
    path = Path(f"reports/evaluation/{CORPUS}/models.json")
    models = read_json(path)
    for row, value in values.items():
        name = f"{ZERO_SHOT}/frozen" if row == "zero_shot" else f"{CORPUS}-{row}/seed-0"
        models[name] = {**models[name], METRIC: value}
    write_json(path, models)


def in_project(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from brewline.media import corpus_media

    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv(PIPELINE_VARIABLE, "flow-1")
    # Examples show pictures of the test split by their number alone.
    stored = corpus_media.stored_media
    monkeypatch.setattr(
        corpus_media,
        "stored_media",
        lambda raw: (
            lambda corpus, path: (
                stored(raw)(corpus, path)
                if path.startswith("audio")
                else report_world.fake_media(corpus, path)
            )
        ),
    )


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two versions: 1 is `prompted`, 2 is `full` and the challenger."""
    root = tmp_path_factory.mktemp("template")
    params = search_world.make_world(root, small=True)
    shutil.copytree(report_world.PROJECT / "mlflow", root / "mlflow")
    shutil.copy(report_world.PROJECT / "requirements.lock", root)
    (root / "mlflow.db").write_bytes(report_world.migrated_store())
    with pytest.MonkeyPatch.context() as patch:
        in_project(root, patch)
        for best, full in ((PROMPTED, 0.35), (FULL, 0.5)):
            set_dev(zero_shot=0.3, prompted=0.4, full=full)
            registered = register_corpus(params, CORPUS)
            assert registered is not None and registered.model == f"{best}/seed-0"
    return root


@pytest.fixture
def params(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The parameters of a copy of that project, which is the working directory."""
    root = tmp_path / "project"
    shutil.copytree(template, root)
    in_project(root, monkeypatch)
    return load_params()


def with_table(params: Params, **changes: Any) -> Params:
    """Parameters whose only table is another."""
    table = params.tables[CORPUS].model_copy(update=changes)
    return params.model_copy(update={"tables": {CORPUS: table}})


def client() -> Any:
    return open_store(load_params().tracking).client


def version(number: str) -> Any:
    return client().get_model_version(NAME, number)


def aliases() -> dict[str, str]:
    return {k: str(v) for k, v in client().get_registered_model(NAME).aliases.items()}


def tag(number: str, **values: str) -> None:
    for key, value in values.items():
        client().set_model_version_tag(NAME, number, key, value)


def measured(number: str, value: float) -> None:
    """Changes what a version is said to have reached on dev."""
    known = json.loads(version(number).tags["measured"])
    known["dev"][METRIC] = value
    tag(number, measured=json.dumps(known))


def test_a_version_holds_what_serving_takes(params: Params) -> None:
    assert aliases() == {"challenger": "2"}
    found = version("2")
    folder = Path(f"models/{FULL}/seed-0")
    assert found.tags["model_digest"] == sha256_tree(folder)
    assert (found.tags["experiment"], found.tags["seed"]) == (FULL, "seed-0")
    assert len(found.tags["dev_manifest_digest"]) == 64
    assert client().get_run(found.run_id).data.tags["model_digest"] == found.tags["model_digest"]
    root = Path(client().get_model_version_download_uri(NAME, "2").removeprefix("file://"))
    bundle = root / "artifacts/bundle"
    assert sha256_tree(bundle / "model") == found.tags["model_digest"]
    assert (bundle / "backbones/whisper.pt").exists()
    assert (root / "code/brewline/registry/serving.py").exists()
    assert not list((root / "code").rglob("__pycache__"))
    requirements = (root / "requirements.txt").read_text().splitlines()
    assert all("==" in line for line in requirements)
    assert {line.split("==")[0] for line in requirements} == set(SERVED_PACKAGES)
    card = (root / "model_card.md").read_text()
    parts = ["**Generated.** A program made mini-lncoco", f"{FULL}/seed-0", "Apache-2.0", "(0."]
    parts += ["mini-whisper", "| metric | this model | its row | zero-shot |"]
    parts += ["| variant | full: transcripts and voice, 4 prompts |"]
    parts += [f"*its row* (full of table {CORPUS})"]
    parts += [f"| SHA-256 of the index of the {kind} | `" for kind in ("shards", "states")]
    for part in [*parts, found.tags["model_digest"], found.tags["dev_manifest_digest"]]:
        assert part in card, part
    assert "  \n" not in card and "None" not in card


def test_registering_again_changes_nothing(params: Params) -> None:
    experiment = open_store(params.tracking).experiment_id
    before = aliases()
    again = register_corpus(params, CORPUS)
    assert again is not None
    assert (again.version, again.notes, aliases()) == ("2", [], before)
    assert len(client().search_model_versions(f"name = '{NAME}'")) == 2
    assert len(client().search_logged_models([experiment])) == 2


def test_an_earlier_model_is_the_challenger_again(params: Params) -> None:
    set_dev(prompted=0.6)
    registered = register_corpus(params, CORPUS)
    assert registered is not None and registered.version == "1"
    assert aliases() == {"challenger": "1"}


def test_a_corpus_without_a_model_that_hears_registers_nothing(params: Params) -> None:
    assert register_corpus(with_table(params, rows={"zero-shot": ZERO_SHOT}), CORPUS) is None


def test_a_challenger_set_by_hand_stays_until_another_model_comes(params: Params) -> None:
    client().set_registered_model_alias(NAME, "challenger", "1")
    again = register_corpus(params, CORPUS)
    assert again is not None and aliases() == {"challenger": "1"}
    assert "Somebody made version 1 the challenger by hand" in again.notes[0]
    promotion = promote(params, CORPUS, POLICY)
    assert promotion.champion == "1"
    assert "Somebody made version 1 the challenger by hand" in promotion.notes[0]
    set_dev(prompted=0.6)
    register_corpus(params, CORPUS)
    set_dev(prompted=0.4)
    register_corpus(params, CORPUS)
    assert aliases() == {"challenger": "2", "champion": "1"}


def test_the_first_champion_beats_the_baseline(params: Params) -> None:
    promotion = promote(params, CORPUS, POLICY)
    assert promotion.decision.promote, promotion
    assert (promotion.champion_before, promotion.champion) == (None, "2")
    assert "zero-shot has 0.3000" in promotion.decision.reasons[0]
    assert aliases() == {"challenger": "2", "champion": "2"}
    tags = version("2").tags
    assert tags["promotion"] == "promoted"
    assert tags["promotion_reasons"] == "\n".join(promotion.decision.reasons)
    assert json.loads(tags["promotion_policy"])["margin"] == 0.01
    assert tags["promoted_at"]
    run = client().get_run(version("2").run_id).data.tags
    assert run["promotion_reasons"] == tags["promotion_reasons"]
    again = promote(params, CORPUS, POLICY)
    assert again.decision.reasons == ["Version 2 is the champion already."]
    assert not again.decision.promote


def test_a_proposal_writes_nothing_and_a_veto_outweighs_the_policy(params: Params) -> None:
    before = version("2").tags, aliases()
    proposal = propose(params, CORPUS, POLICY)
    assert proposal.decision.promote
    assert (version("2").tags, aliases()) == before
    vetoed = promote(params, CORPUS, POLICY, veto="Somebody said no.")
    assert vetoed.decision.reasons == ["Somebody said no.", *proposal.decision.reasons]
    assert version("2").tags["promotion"] == "rejected"
    assert aliases() == {"challenger": "2"}


def test_the_baseline_keeps_a_worse_challenger_out(params: Params) -> None:
    set_dev(zero_shot=0.495)
    promotion = promote(params, CORPUS, POLICY)
    assert not promotion.decision.promote
    assert "zero-shot has 0.4950: a difference of +0.0050" in promotion.decision.reasons[0]
    assert aliases() == {"challenger": "2"}
    assert version("2").tags["promotion"] == "rejected"


def test_without_a_baseline_there_is_no_first_champion(params: Params) -> None:
    without = with_table(params, baseline=None)
    message = f"no table on {CORPUS} names a baseline, which a first champion has to beat; set one"
    for decide in (propose, promote):
        with pytest.raises(BrewlineError, match=message) as caught:
            decide(without, CORPUS, POLICY)
        assert caught.value.kind == "settings"
    assert aliases() == {"challenger": "2"}
    # Between two versions nobody asks for it.
    promote(params, CORPUS, POLICY)
    client().set_registered_model_alias(NAME, "challenger", "1")
    assert not promote(without, CORPUS, POLICY).decision.promote


def test_the_margin_keeps_the_champion(params: Params) -> None:
    client().set_registered_model_alias(NAME, "challenger", "1")
    assert promote(params, CORPUS, POLICY).champion == "1"
    client().set_registered_model_alias(NAME, "challenger", "2")
    measured("1", 0.495)
    promotion = promote(params, CORPUS, POLICY)
    assert not promotion.decision.promote
    assert f"version 1 ({PROMPTED}) has 0.4950" in promotion.decision.reasons[0]
    assert aliases() == {"challenger": "2", "champion": "1"}
    measured("1", 0.48)
    assert promote(params, CORPUS, POLICY).champion == "2"
    assert version("2").tags["previous_champion"] == "1"


@pytest.fixture
def two_champions(params: Params) -> Params:
    """Version 1 was champion before version 2."""
    client().set_registered_model_alias(NAME, "challenger", "1")
    promote(params, CORPUS, POLICY)
    client().set_registered_model_alias(NAME, "challenger", "2")
    promote(params, CORPUS, POLICY)
    assert aliases() == {"challenger": "2", "champion": "2"}
    return params


def test_rollback(two_champions: Params) -> None:
    back = rollback(two_champions, CORPUS)
    assert (back.champion_before, back.champion, back.notes) == ("2", "1", [])
    assert aliases()["champion"] == "1"
    assert version("2").tags["promotion"] == "rolled back"
    # It is not promoted again by the next flow.
    promotion = promote(two_champions, CORPUS, POLICY)
    assert not promotion.decision.promote
    assert "Version 2 was rolled back on" in promotion.decision.reasons[0]
    client().delete_model_version_tag(NAME, "2", "rolled_back_at")
    assert promote(two_champions, CORPUS, POLICY).champion == "2"
    rollback(two_champions, CORPUS)
    with pytest.raises(BrewlineError, match=r"version 1 of .* had no champion before it"):
        rollback(two_champions, CORPUS)


def test_rollback_to_a_deleted_version_is_named(two_champions: Params) -> None:
    client().delete_model_version(NAME, "1")
    with pytest.raises(BrewlineError, match=r"version 1 of .* before version 2, was deleted"):
        rollback(two_champions, CORPUS)
    assert aliases()["champion"] == "2"


def test_a_champion_set_by_hand_is_respected_and_reported_once(two_champions: Params) -> None:
    client().set_registered_model_alias(NAME, "champion", "1")
    measured("2", 0.39)
    # Asking what would happen reports it, and leaves it to be reported by what then happens.
    proposal = propose(two_champions, CORPUS, POLICY)
    promotion = promote(two_champions, CORPUS, POLICY)
    assert promotion == proposal
    assert promotion.notes == [
        "Somebody made version 1 the champion by hand, where Brewline had chosen version 2; "
        "that is respected."
    ]
    assert f"version 1 ({PROMPTED})" in promotion.decision.reasons[0]
    assert aliases()["champion"] == "1"
    assert version("1").tags["promotion"] == "by hand"
    assert promote(two_champions, CORPUS, POLICY).notes == []
    # The one before it is the one that promotion had chosen.
    assert rollback(two_champions, CORPUS).champion == "2"


def test_a_rollback_says_what_somebody_did_by_hand(two_champions: Params) -> None:
    client().set_registered_model_alias(NAME, "champion", "1")
    back = rollback(two_champions, CORPUS)
    assert (back.champion_before, back.champion) == ("1", "2")
    assert "Somebody made version 1 the champion by hand" in back.notes[0]


def test_a_champion_taken_away_by_hand_leaves_the_baseline(two_champions: Params) -> None:
    client().delete_registered_model_alias(NAME, "champion")
    with pytest.raises(BrewlineError, match="no champion to roll back from"):
        rollback(two_champions, CORPUS)
    set_dev(zero_shot=0.7)
    promotion = promote(two_champions, CORPUS, POLICY)
    assert not promotion.decision.promote
    assert "zero-shot has 0.7000" in promotion.decision.reasons[0]
    assert "champion" not in aliases()


def test_a_version_measured_on_another_dev_manifest_is_measured_again(
    two_champions: Params,
) -> None:
    client().set_registered_model_alias(NAME, "champion", "1")
    old = version("2").tags["dev_manifest_digest"]
    path = Path(f"data/manifest/{CORPUS}.parquet")
    rows = [row | {"speaker_id": "another"} for row in read_table(path)]
    write_table(path, MANIFEST, rows)
    promote(two_champions, CORPUS, POLICY)
    for number in ("1", "2"):
        tags = version(number).tags
        assert tags["dev_manifest_digest"] != old
        # What these random models really reach, and not what the made-up evaluation says.
        dev = json.loads(tags["measured"])["dev"]
        assert dev["dev/speech_to_image/num_queries"] == 2 * search_world.NUM_IMAGES
        assert dev[METRIC] not in (0.4, 0.5)
        # The transcripts of the shards: every third word of a caption is an odd one.
        assert dev["dev/asr/wer"] == pytest.approx(1 / 3, abs=0.1)


def test_other_ears_hear_dev_again(two_champions: Params) -> None:
    """A version whose Whisper is not the project's hears the recordings with its own."""
    path = Path("models/backbones/backbones.json")
    names = read_json(path)
    names["whisper"]["sha256"] = "f" * 64
    write_json(path, names)
    tag("2", dev_manifest_digest="0" * 64)
    client().set_registered_model_alias(NAME, "champion", "1")
    promote(two_champions, CORPUS, POLICY)
    dev = json.loads(version("2").tags["measured"])["dev"]
    # A random Whisper understands nothing, whatever the transcripts of the project say.
    assert dev["dev/asr/wer"] > 0.5


def test_the_time_of_an_answer_is_limited(params: Params) -> None:
    slow = POLICY.model_copy(update={"max_latency_ms": 1e-3})
    decision = promote(params, CORPUS, slow).decision
    assert "The time of an answer in ms is" in decision.reasons[0]
    shipped = load_policy().model_copy(
        update={"max_latency_ms": 60_000.0, "max_quarantine_rate": 0.2}
    )
    assert promote(params, CORPUS, shipped).decision.promote


def test_a_large_model_gets_its_backbones_on_promotion(
    params: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brewline.registry import serving

    monkeypatch.setattr(serving, "_MAX_BUNDLED_MB", 0)
    history = Path(f"models/{FULL}/seed-0/history.jsonl")
    history.write_text(history.read_text() + "\n")
    registered = register_corpus(params, CORPUS)
    assert registered is not None and registered.version == "3"
    uri = client().get_model_version_download_uri(NAME, "3").removeprefix("file://")
    bundle = Path(uri) / "artifacts/bundle"
    assert not (bundle / "backbones").exists()
    assert promote(params, CORPUS, POLICY).champion == "3"
    assert len(serving.load_bundle(bundle).answer([{"text": "a thing"}], 1)) == 1


def test_without_a_server(
    params: Params, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    say_once.cache_clear()
    registered = register_corpus(params, CORPUS)
    assert registered is not None and registered.version is None
    assert registered.lines == [f"{NAME}, {FULL}/seed-0: not registered"]
    assert capsys.readouterr().err.count("\n") == 1
    calls: list[Callable[[], Any]] = [
        lambda: promote(params, CORPUS, POLICY),
        lambda: rollback(params, CORPUS),
    ]
    for call in calls:
        with pytest.raises(BrewlineError, match="cannot be reached") as caught:
            call()
        assert caught.value.kind == "network"


def test_what_is_missing_is_named(params: Params) -> None:
    client().delete_registered_model_alias(NAME, "challenger")
    with pytest.raises(BrewlineError, match=f"{NAME} has no challenger"):
        promote(params, CORPUS, POLICY)
    with pytest.raises(BrewlineError, match=r"no model brewline-mini-flickr8k; run `dvc repro reg"):
        rollback(params, "mini-flickr8k")


def test_record_brings_what_the_stage_could_not(
    params: Params, capsys: pytest.CaptureFixture[str]
) -> None:
    from brewline import cli

    assert cli.main(["record"]) == 0
    assert NAME not in capsys.readouterr().out
    write_json(Path("reports/registration.json"), {})
    assert cli.main(["record"]) == 0
    assert f"{NAME}, {FULL}/seed-0: version 2" in capsys.readouterr().out


def elsewhere(template: Path, home: Path) -> dict[str, str]:
    """The environment of somebody who has nothing but the packages and the store."""
    ours = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "BREWLINE_BACKBONES")}
    store = {
        "MLFLOW_TRACKING_URI": f"sqlite:///{template}/mlflow.db",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    return ours | store | {"HOME": str(home)}


_LOAD = """
import sys
sys.path = [path for path in sys.path if path != sys.argv[1]]
import mlflow, pandas
model = mlflow.pyfunc.load_model(sys.argv[2])
import brewline
print(brewline.__file__)
print(model.predict(model.input_example)[0]["ids"])
print(model.predict(pandas.DataFrame([{"text": "a thing"}]), params={"top_k": 2})[0]["ids"])
"""


def test_it_loads_without_home_and_repository(template: Path, tmp_path: Path) -> None:
    arguments = [str(report_world.PROJECT / "src"), f"models:/{NAME}@challenger"]
    done = subprocess.run(
        [sys.executable, "-c", _LOAD, *arguments],
        cwd=tmp_path,
        env=elsewhere(template, tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    code, of_recording, of_text = done.stdout.splitlines()
    assert code.startswith(str(template / "mlartifacts"))
    assert len(json.loads(of_recording.replace("'", '"'))) == 5
    assert len(json.loads(of_text.replace("'", '"'))) == 2
    assert "type hints" not in done.stderr


def ask(port: int, body: Any) -> tuple[int, Any]:
    """The status and the body of an answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    url, headers = f"http://127.0.0.1:{port}/invocations", {"content-type": "application/json"}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers)) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


@pytest.mark.slow
def test_mlflow_serves_it(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_project(template, monkeypatch)
    client().set_registered_model_alias(NAME, "champion", "2")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["models", "serve", "-m", f"models:/{NAME}@champion", "--env-manager", "local"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [Path(sys.executable).parent / "mlflow", *command, "-h", "127.0.0.1", "-p", str(port)],
            cwd=tmp_path,
            env=elsewhere(template, tmp_path)
            | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/ping", server, tmp_path / "log")
        recording = base64.b64encode(report_world.tone(3)).decode()
        picture = base64.b64encode(report_world.drawing(2)).decode()
        status, body = ask(port, {"inputs": [{"audio": recording}], "params": {"top_k": 3}})
        assert (status, len(body["predictions"][0]["ids"])) == (200, 3)
        assert "transcript" in body["predictions"][0]
        records = [{"text": "a thing"}, {"image": picture, "text": None}]
        status, body = ask(port, {"dataframe_records": records, "params": {"top_k": 0}})
        assert (status, [len(one["embedding"]) for one in body["predictions"]]) == (200, [32, 32])
        # Under `inputs`, too, null is nothing.
        assert ask(port, {"inputs": [{"text": "a thing", "audio": None}]})[0] == 200
        for record, sentence in (
            ({"audio": "/etc/passwd"}, "Record 0: audio must be the bytes of a file in base64"),
            ({"audio": picture}, "Record 0: audio is no recording that can be decoded"),
            ({"audio": recording, "image": picture}, "Record 0: give exactly one of audio, image"),
            ({"path": "/etc/passwd"}, "Send 1 to 32 records in one request, each with audio"),
        ):
            status, body = ask(port, {"inputs": [record]})
            assert (status, body["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
            assert body["message"].startswith(sentence)
            assert body["message"].count(". ") == 0 and body["message"].endswith(".")
        for broken in (b"{", {"inputs": [{"text": "a"}], "params": {"top_k": "many"}}, {"a": 1}):
            assert ask(port, broken)[0] == 400
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGTERM)
        server.wait(10)
        client().delete_registered_model_alias(NAME, "champion")


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Waits until a server answers."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(url):
            return
        time.sleep(0.2)
    raise AssertionError(log.read_text())
