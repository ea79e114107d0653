"""A corpus of sounds is searched by words, by a photo and by a sound."""

import io
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import world
import yaml
from tiny_clips import RATE_HZ, make_clip, picture, sound_variant, tone

from brewline import cli
from brewline.config import load_params
from brewline.core.files import read_json, sha256_tree, write_json
from brewline.models.backbones import load_clip
from brewline.models.card import ModelCard, load_backbone_hashes, needed_backbones
from brewline.models.folder import Trained, save_model
from brewline.models.names import BACKBONES_FOLDER, CLIP_FOLDER, NAMES_FILE
from brewline.models.sounds import SoundModel
from brewline.samples.shards import shard_name, write_index, write_shard
from brewline.samples.utterance import Utterance
from brewline.search.answer import Question
from brewline.search.clip_search import ClipSearch

PROJECT = Path(__file__).parents[2]
MODEL = Path("models/tiny-random/seed-0")
CLIPS = [make_clip(number) for number in range(6)]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that learned nothing, and six clips."""
    monkeypatch.chdir(tmp_path)
    values = yaml.safe_load((PROJECT / "params.yaml").read_text(encoding="utf-8"))
    values["validate"] = world.tone_limits()
    Path("params.yaml").write_text(yaml.safe_dump(values))
    shutil.copy(PROJECT / "versions.yaml", tmp_path)
    clip = BACKBONES_FOLDER / CLIP_FOLDER
    world.make_clip(clip)
    names = {role: {"name": "made up", "sha256": "0" * 64} for role in ("clip", "whisper")}
    names["clip"]["sha256"] = sha256_tree(clip)
    write_json(BACKBONES_FOLDER / NAMES_FILE, names)
    _make_model()
    _pack(CLIPS)
    return tmp_path


def _make_model() -> None:
    switches, backbone = sound_variant("random_frame"), load_clip()
    recipe = load_params().recipes["mini-sounds"]
    assert recipe is not None
    card = ModelCard(
        experiment="tiny-random",
        task="audio_image",
        corpus="mini-videos",
        trained_on="mini-videos",
        variant="random",
        switches=switches,
        backbones=needed_backbones(switches, load_backbone_hashes()),
        seed=0,
        recipe=recipe.model_dump(exclude={"seeds"}),
    )
    torch.manual_seed(0)
    model = SoundModel(backbone, switches, 0.07, True, train_text=False)
    save_model(MODEL, card, Trained(model, 0, {}, []))


def _pack(clips: Sequence[Utterance]) -> None:
    folder = Path("data/shards/mini-videos")
    folder.mkdir(parents=True, exist_ok=True)
    samples = []
    for clip in clips:
        facts = {
            "speaker_id": None,
            "duration_s": 0.8,
            "captions": clip.captions,
            "events": [asdict(event) for event in clip.events],
            "times_s": [frame.time_s for frame in clip.frames],
        }
        pictures = {f"{number}.jpg": frame.image for number, frame in enumerate(clip.frames)}
        sample = {"__key__": clip.utterance_id, "flac": clip.sound, **pictures}
        samples.append({**sample, "json": json.dumps(facts).encode()})
    write_shard(folder / shard_name("test", 0), samples)
    write_index(folder, {shard_name("test", 0): len(clips)})


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["search", *arguments, "--model", str(MODEL)])
    return code, *capsys.readouterr()


def test_words_find_clips(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ask = ("--text", "a <red> sound", "--top", "3", "--html", "found.html")
    code, out, err = run(capsys, *ask)
    assert (code, err) == (0, "")
    head, *lines = out.splitlines()
    assert head == "best of 6 clips (mini-videos, test, model tiny-random/seed-0):"
    found = [line.split()[2] for line in lines[:3]]
    assert {*found} < {clip.utterance_id for clip in CLIPS}
    captions = {clip.utterance_id: clip.captions[0] for clip in CLIPS}
    assert all(line.endswith(captions[name]) for line, name in zip(lines, found, strict=False))
    page = Path("found.html").read_text(encoding="utf-8")
    assert "Which clips sound like these words?" in page
    assert "a &lt;red&gt; sound" in page
    assert page.count("<audio") == page.count("<image ") == 3
    # Of each clip, the frame that is most like the words is shown.
    search = ClipSearch(load_params(), MODEL)
    gallery, question = search.gallery("test"), Question(text="a <red> sound")
    likeness = (gallery.frames @ search.embed(question)).reshape(6, 4)
    for hit in search.answer(question, "test", 6).hits:
        assert hit.frame == likeness[gallery.clip_ids.index(hit.image_id)].argmax()
    # The vectors are kept for the next question.
    (kept,) = Path("work/search").rglob("*.safetensors")
    made_at = kept.stat().st_mtime_ns
    assert run(capsys, *ask)[1] == out
    assert kept.stat().st_mtime_ns == made_at


def test_questions_are_embedded_like_the_corpus(project: Path) -> None:
    search = ClipSearch(load_params(), MODEL)
    gallery = search.gallery("test")
    samples, _ = soundfile.read(io.BytesIO(CLIPS[2].sound or b""), dtype="float32")
    sound = search.embed(Question(waveform=samples))
    np.testing.assert_allclose(sound, gallery.sounds[2], atol=1e-4)
    text = search.embed(Question(text=CLIPS[3].captions[1]))
    np.testing.assert_allclose(text, gallery.captions[7], atol=1e-5)
    photo = search.embed(Question(photo=CLIPS[1].frames[2].image))
    # A query is shrunk as pictures of a corpus are, and saved as a JPEG once more.
    assert photo @ gallery.frames[6] > 0.99


def test_a_sound_finds_pictures_and_a_photo_finds_sounds(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = ClipSearch(load_params(), MODEL)
    gallery = search.gallery("test")
    middle = gallery.frames[1::4]
    # A tone, which nobody speaks, is no bad recording here.
    sound = tone(300, 0.8).astype(np.float32)
    soundfile.write("tone.wav", sound, RATE_HZ)
    _, out, _ = run(capsys, "tone.wav", "--top", "6", "--html", "found.html")
    best = np.argsort(-(middle @ search.embed(Question(waveform=sound))), kind="stable")
    assert [line.split()[2] for line in out.splitlines()[1:7]] == [
        f"clip{number}" for number in best
    ]
    assert "Which clips look like this sound?" in Path("found.html").read_text(encoding="utf-8")
    Path("photo").write_bytes(picture(0, np.random.default_rng(0)))
    _, out, _ = run(capsys, "photo", "--top", "6", "--html", "found.html")
    assert out.startswith("best of 6 clips")
    assert "Which clips sound like this picture?" in Path("found.html").read_text(encoding="utf-8")


def test_clips_without_pictures_are_found_by_words(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _pack([replace(clip, frames=(), captions=()) for clip in CLIPS])
    soundfile.write("tone.wav", tone(300, 0.8), RATE_HZ)
    code, _, err = run(capsys, "tone.wav")
    assert code == 1
    assert "the clips of mini-videos have no pictures that a sound could find; search with" in err
    assert run(capsys, "--text", "rain", "--html", "found.html")[0] == 0
    assert Path("found.html").read_text(encoding="utf-8").count("<image ") == 0


def test_what_is_asked_has_to_be_said(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["search"], ["search", "--text", " "], ["search", "a.wav", "--text", "rain"]):
        with pytest.raises(SystemExit):
            cli.main(wrong)
    err = capsys.readouterr().err
    assert "one of the arguments query --text is required" in err
    assert "there are no words in it" in err
    assert read_json(MODEL / "model.json")["switches"]["sound"]
