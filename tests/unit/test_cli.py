"""The program `brewline`, in a tiny project with random weights."""

import io
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import report_world
import search_world
import yaml
from PIL import Image
from sounds import sound
from test_sound_params import sound_values

from brewline import cli
from brewline.config import Params, load_params
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json, write_json
from brewline.models.card import new_card, save_card
from brewline.search import embedder, query
from brewline.search.speech_search import SpeechSearch

CORPUS = search_world.CORPUS
FULL, PROMPTED = (Path("models") / one / "seed-0" for one in search_world.MODELS)
NUM_IMAGES = search_world.NUM_IMAGES


def test_help_says_what_it_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "brewline.cli", "search", "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "a recording or a picture" in done.stdout


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from brewline import cli; cli._parser(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert not {"torch", "mlflow", "numpy", "pydantic", "jinja2"} & set(loaded.split())


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with shards, backbones and two models, all tiny and untrained."""
    root = tmp_path_factory.mktemp("template")
    search_world.make_world(root)
    return root


@pytest.fixture
def project(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    shutil.copytree(template, root)
    monkeypatch.chdir(root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return root


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def test_recording_finds_pictures(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # What it is, is decided by its content.
    (project / "clip.jpg").write_bytes(report_world.tone(3))
    code, out, err = run(capsys, "search", "clip.jpg", "--top", "3", "--html", "out/found.html")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("heard: ")
    where = f"{CORPUS}, test, model {search_world.FULL}/seed-0"
    assert lines[1] == f"best of {NUM_IMAGES} pictures ({where}):"
    scores = [float(line.split()[1]) for line in lines[2:5]]
    assert scores == sorted(scores, reverse=True)
    assert all("test-image-" in line and "A <thing> number" in line for line in lines[2:5])
    page = (project / "out/found.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 1
    assert page.count("<image ") == 3
    assert "A &lt;thing&gt; number" in page
    assert "http" not in page.replace("http-equiv", "")


def test_words_find_pictures(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("search", "--text", "a <b>thing</b> number 3", "--model", str(PROMPTED))
    code, out, _ = run(capsys, *arguments, "--html", "found.html")
    assert code == 0
    assert out.startswith(f"best of {NUM_IMAGES} pictures (")
    page = (project / "found.html").read_text(encoding="utf-8")
    assert "Which picture do these words describe?" in page
    assert "a &lt;b&gt;thing&lt;/b&gt; number 3" in page
    assert "<audio" not in page


def test_photo_finds_recordings_and_the_cache_is_kept(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(report_world.drawing(1))).convert("RGBA").save(buffer, "PNG")
    (project / "photo.ogg").write_bytes(buffer.getvalue())
    ask = ("search", "photo.ogg", "--top", "99", "--html", "page.html")
    arguments = (*ask, "--model", str(PROMPTED))
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert f"best of {2 * NUM_IMAGES} recordings" in out
    assert len([line for line in out.splitlines() if "  test-" in line]) == 2 * NUM_IMAGES
    page = (project / "page.html").read_text(encoding="utf-8")
    assert page.count("<audio") == 2 * NUM_IMAGES
    (cache,) = (project / "work/search").rglob("*.safetensors")

    def embedded_again(*_: object) -> None:
        raise AssertionError("the gallery was embedded again")

    monkeypatch.setattr(embedder.Embedder, "embed_gallery", embedded_again)
    assert run(capsys, *arguments)[1] == out
    # What the code makes of a model may be something else with another version.
    versions = (project / "versions.yaml").read_text()
    (project / "versions.yaml").write_text(versions.replace("\nembed: ", "\nembed: 1000"))
    with pytest.raises(AssertionError, match="embedded again"):
        run(capsys, *arguments)
    (project / "versions.yaml").write_text(versions)
    assert run(capsys, *arguments)[1] == out
    # Another model has another gallery.
    with pytest.raises(AssertionError, match="embedded again"):
        run(capsys, *ask)
    assert cache.exists()


def test_search_embeds_queries_like_the_corpus(project: Path) -> None:
    engine = SpeechSearch(load_params(), PROMPTED)
    found = engine.gallery("test")
    photo = engine.embedder.embed_photo(report_world.drawing(2))
    place = found.image_ids.index("test-image-2")
    images = found.image_embeddings
    np.testing.assert_allclose(photo, images[place], atol=1e-5)
    assert images @ photo == pytest.approx(images @ images[place], abs=1e-5)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"just text", "thing is neither a recording nor a picture; docs/guide.md lists what is"),
        (b"", "thing is neither a recording nor a picture; docs/guide.md lists what is read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "thing is neither a recording nor a picture"),
        (report_world.drawing(0)[:700], "thing: the picture is refused (`bad_image`)"),
        (report_world.tone(0)[:2000], "thing: the recording is refused (`truncated`)"),
        (sound("wav")[:32_000], "thing: the recording is refused (`shorter_than_header`)"),
        (sound("m4a")[:9_000], "thing: the recording is refused (`truncated`): the box 'mdat'"),
    ],
)
def test_what_cannot_be_searched_by_is_named(
    project: Path, capsys: pytest.CaptureFixture[str], content: bytes, message: str
) -> None:
    (project / "thing").write_bytes(content)
    code, out, err = run(capsys, "search", "thing")
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_missing_files_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "nothing.ogg cannot be read: No such file" in run(capsys, "search", "nothing.ogg")[2]
    Path("clip").write_bytes(report_world.tone(3))
    code, _, err = run(capsys, "search", "clip", "--model", "models/none")
    assert (code, err) == (1, "error: models/none/model.json is missing; run `dvc repro`\n")
    shutil.rmtree(project / "data/states" / CORPUS)
    assert f"data/states/{CORPUS}/index.json is missing" in run(capsys, "search", "clip")[2]
    (project / "data/shards" / CORPUS / "index.json").unlink()
    assert f"data/shards/{CORPUS}/index.json is missing" in run(capsys, "search", "clip")[2]


def test_default_model_is_the_best_on_dev(project: Path) -> None:
    params = load_params()
    assert query.default_model(params) == FULL
    # Neither what was trained on another corpus nor what hears nothing.
    best = {"dev": {"dev/mean_recall_at_1": 0.9}}
    for name in ("mini-flickr8k-full-of-lncoco/seed-0", f"{CORPUS}-zero-shot-captions/frozen"):
        write_json(Path("models") / name / "model.json", best)
    assert query.default_model(params) == FULL
    path = PROMPTED / "model.json"
    write_json(path, {**read_json(path), **best})
    assert query.default_model(params) == path.parent
    for folder in Path("models").glob(f"{CORPUS}-*/seed-*"):
        shutil.rmtree(folder)
    with pytest.raises(BrewlineError, match="no trained model"):
        query.default_model(params)


def test_results(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "results")
    assert (code, err) == (0, "")
    assert f"{CORPUS}, test: 12 recordings, 6 pictures" in out
    shutil.rmtree(project / "metrics")
    code, out, err = run(capsys, "results")
    assert (code, out) == (1, "")
    assert "metrics/mini-flickr8k.json is missing; run `dvc repro score`" in err


def test_record_brings_every_model_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from brewline.media import corpus_media
    from brewline.tracking.runs import PIPELINE_VARIABLE

    report_world.make_world(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(report_world.migrated_store())
    shutil.copy(report_world.PROJECT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv(PIPELINE_VARIABLE, "test")
    monkeypatch.setattr(corpus_media, "stored_media", lambda raw: report_world.fake_media)
    code, out, err = run(capsys, "record")
    assert (code, err) == (0, "")
    params = load_params()
    tables = [*params.tables.values(), *params.sound_tables.values()]
    in_tables = {name for table in tables for name in table.rows.values()}
    count = sum(len(params.seeds_of(name) or [None]) for name in in_tables)
    assert len(out.splitlines()) == count
    assert len(set(out.split(": "))) > count
    assert run(capsys, "record")[1] == out


def with_sounds(folder: Path) -> Params:
    """Parameters with a table of sounds of one experiment, written where they are read."""
    values = sound_values()
    values["sound_tables"]["sounds"]["rows"] = {"random-short": "s-random-short"}
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    return load_params(folder / "params.yaml")


def test_record_brings_models_of_sounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before they are scored, and then with their numbers, in the same runs."""
    from brewline.tracking.facts import metric_in_mlflow
    from brewline.tracking.store import open_store

    report_world.make_world(tmp_path)
    (tmp_path / "mlflow.db").write_bytes(report_world.migrated_store())
    params = with_sounds(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    hashes = {"clip": "c" * 64, "whisper": "a" * 64}
    for seed in (0, 1):
        card = new_card(params, "s-random-short", hashes).model_copy(update={"seed": seed})
        save_card(Path(f"models/s-random-short/seed-{seed}"), card)
    code, out, err = run(capsys, "record", "--tables", "sounds")
    assert (code, err) == (0, "")
    found = dict(line.split(": ") for line in out.splitlines())
    assert {f"models/s-random-short/seed-{seed}" for seed in (0, 1)} <= found.keys()
    numbers = {f"s-random-short/seed-{seed}": {"dev/time/clip_accuracy": 0.5} for seed in (0, 1)}
    write_json(Path("reports/sounds/sounds/models.json"), numbers)
    assert run(capsys, "record", "--tables", "sounds")[1] == out
    one = open_store(params.tracking).client.get_run(found["models/s-random-short/seed-1"])
    assert one.data.metrics[metric_in_mlflow("dev/time/clip_accuracy")] == 0.5
    write_json(Path("reports/sounds/sounds/models.json"), {})
    code, _, err = run(capsys, "record", "--tables", "sounds")
    assert code == 1
    assert "has no metrics of s-random-short/seed-0; run `dvc repro`" in err


def test_a_table_of_sounds_is_not_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with_sounds(tmp_path)
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, "export-mteb", "sounds", "exported")
    assert code == 1
    assert "'sounds' is a table of sounds" in err
    assert not Path("exported").exists()


def test_record_without_a_server(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from brewline.tracking.store import say_once

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    say_once.cache_clear()
    report_world.make_world(project)
    code, out, err = run(capsys, "record")
    assert code == 1
    assert "not recorded" in out
    assert err.count("\n") == 1
