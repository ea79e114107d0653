"""The study's models of sounds: what their parts leave, and how claims about them are judged."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brewline.config import load_versions
from brewline.core.errors import BrewlineError
from brewline.evaluation.sound_vectors import SoundEmbeddings, save_sound_vectors
from brewline.models.card import new_card, save_card
from brewline.models.names import model_folder, model_names
from brewline.tables.manifest import MANIFEST, QUARANTINE
from brewline.tables.parquet import write_table
from study.definition import PROJECT, STUDY, Study, load_study
from study.judging import Check, Interval, Outcomes, find, judge, load_claims
from study.outcomes import as_text, corpus_outcome, model_outcome
from study.page import draw
from study.parts import Part, facts_of, list_parts

INTERVAL = Interval(samples=200, seed=0, confidence=0.95)
CORPUS, MODEL = "videos", "videos-nearest-long"
# In no order of names, as manifests and vectors have them.
CLIPS = ["c", "a", "b"]
CAPTIONS = [0, 0, 1, 2]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    for name in ("params.yaml", "claims.yaml"):
        shutil.copy(PROJECT / STUDY / name, tmp_path)
    return load_study(tmp_path)


def basis(*places: int) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[list(places)]


def vectors() -> SoundEmbeddings:
    """Each sound is an axis; the second is like its second frame, in which nothing is heard."""
    frames = basis(0, 3, 3, 1, 2, 2)
    labels = [["dog"], [], ["cow"], [], ["cat"], ["cat"]]
    captions = basis(0, 1, 1, 3)
    return SoundEmbeddings(
        CLIPS, basis(0, 1, 2), [0, 0, 1, 1, 2, 2], frames, frames, labels, CAPTIONS, captions
    )


def row(clip: str, split: str, num_captions: int) -> dict[str, Any]:
    found: dict[str, Any] = dict.fromkeys(MANIFEST.names)
    found |= {"utterance_id": clip, "corpus": CORPUS, "split": split, "audio_path": f"{clip}.mp4"}
    found |= {"speaker_id": clip, "duration_s": 4.0, "sample_rate_hz": 16_000, "num_channels": 1}
    return found | {"audio_sha256": clip, "is_clip": True, "captions": ["a dog"] * num_captions}


@pytest.fixture
def outcomes(study: Study) -> Outcomes:
    """What the parts of a corpus of three clips and a model of three seeds leave."""
    project = study.workspace
    rows = [row("x", "train", 1)]
    rows += [row(clip, "test", CAPTIONS.count(place)) for place, clip in enumerate(CLIPS)]
    write_table(project / f"data/manifest/{CORPUS}.parquet", MANIFEST, rows)
    write_table(project / f"data/quarantine/{CORPUS}.parquet", QUARANTINE, [])
    card = new_card(study.params, MODEL, {"clip": "c" * 64})
    card = card.model_copy(
        update={"best_step": 4, "dev": {"dev/audio_image/mean_recall_at_1": 0.5}}
    )
    for name in model_names(study.params, MODEL):
        save_card(model_folder(MODEL, name, project), card)
        path = project / f"data/embeddings/{CORPUS}/{MODEL}/{name}.safetensors"
        save_sound_vectors(path, {"test": vectors()})
    found = {"corpora": {CORPUS: corpus_outcome(study, CORPUS)}, "probes": {}}
    # As it comes back from a file.
    found |= {"models": {MODEL: json.loads(as_text(model_outcome(study, MODEL)))}}
    return Outcomes(found, INTERVAL)


def value(outcomes: Outcomes, **values: Any) -> float:
    (found,) = find(Check.model_validate({"of": "a check", "above": 0, **values}), outcomes)
    assert found.low <= found.value <= found.high
    return found.value


@pytest.mark.parametrize(
    ("direction", "hits", "chance"),
    [
        # The second clip is shown by a frame that no sound is like: a tie with all others.
        ("audio_to_image", (2 / 3, 2 / 3, 1), 1 / 3),
        ("image_to_audio", (2 / 3, 2 / 3, 1), 1 / 3),
        # Two captions of one clip are one right answer each; of them any is found.
        ("audio_to_text", (1 / 3, 2 / 3, 2 / 3), (2 / 4 + 1 / 4 + 1 / 4) / 3),
        ("text_to_audio", (2 / 4, 2 / 4, 1), 1 / 3),
    ],
)
def test_hits_of_clips_and_what_a_guess_hits(
    outcomes: Outcomes, direction: str, hits: tuple[float, ...], chance: float
) -> None:
    for k, expected in enumerate(hits, start=1):
        check = {"models": {MODEL: 1}, "hit_at": k, "directions": [direction]}
        assert value(outcomes, **check) == pytest.approx(expected)
    check = {"models": {MODEL: 1, "chance": -1}, "hit_at": 1, "directions": [direction]}
    assert value(outcomes, **check) == pytest.approx(hits[0] - chance)


def test_the_right_time_is_asked_of_clips_that_have_another(outcomes: Outcomes) -> None:
    """Of the first two: one picks its dog, one a frame where nothing is heard."""
    of_clip = {"right_time": "clip"}
    assert value(outcomes, models={MODEL: 1}, **of_clip) == pytest.approx(1 / 2)
    assert value(outcomes, models={MODEL: 0, "chance": 1}, **of_clip) == pytest.approx(1 / 2)
    assert value(outcomes, models={MODEL: 1, "chance": -1}, **of_clip) == pytest.approx(0)
    # The sounds at the times of a dog and of a cow are those frames themselves.
    assert value(outcomes, models={MODEL: 1}, right_time="segment") == pytest.approx(1)


def test_a_model_of_other_clips_is_refused(study: Study, outcomes: Outcomes) -> None:
    corpus = json.loads(as_text(outcomes.corpora[CORPUS]))
    corpus["test"]["asked"] = "others"
    found = {"corpora": {CORPUS: corpus}, "models": outcomes.models, "probes": {}}
    with pytest.raises(BrewlineError, match=f"models/{MODEL} was measured on other queries"):
        Outcomes(found, INTERVAL)


def test_the_page_has_a_table_of_clips(study: Study, outcomes: Outcomes, tmp_path: Path) -> None:
    page = tmp_path / "docs/study.md"
    verdicts = judge(load_claims(study), outcomes)
    draw(outcomes, verdicts, {}, page)
    text = page.read_text()
    assert "### videos: 3 clips, 4 captions of test" in text
    assert "| model | audio → image R@10 | image → audio R@10 | audio → text R@10 |" in text
    assert f"| {MODEL} | 100.0 (100.0 to 100.0) |" in text
    assert "| chance | 100.0 | 100.0 | 100.0 | 100.0 | 50.0 (" in text
    assert "| videos | 3 test, 1 train | - | 0.0 | - | 0 |" in text
    assert (tmp_path / "docs/study/videos-recall.svg").exists()


def test_claims_about_sounds_ask_for_directions_of_sounds(study: Study) -> None:
    """And those about speech for others: a model has no ranks of the rest."""
    tasks = {name: one.task for name, one in study.params.experiments.items()}
    for claim in load_claims(study).claims.values():
        for one in claim.checks:
            if one.probe is None:
                of_sounds = {
                    tasks[name].startswith("audio") for name in one.models if name in tasks
                }
                heard = one.right_time is not None or "audio" in one.directions[0]
                assert of_sounds == {heard}, one.of
                assert one.right_time is None or not any("still" in name for name in one.models)


def test_parts_without_sounds_are_made_of_the_same_as_before_there_were_any(study: Study) -> None:
    """A study that measured them needs not make them again."""
    sounds = {name for name, one in study.params.experiments.items() if "audio" in one.task}
    corpora = {study.params.experiments[name].data for name in sounds}
    used = {study.params.experiments[name].variant for name in sounds}
    values = {**study.values}
    for section, gone in (("experiments", sounds), ("sources", corpora), ("variants", used)):
        values[section] = {name: one for name, one in values[section].items() if name not in gone}
    for section in ("corpora", "watched"):
        values[section] = [name for name in values[section] if name not in corpora]
    values["sound_tables"] = {}
    generator = {name: one for name, one in study.generator.items() if name != "videos"}
    before = replace(study, values=values, generator=generator)
    parts = list_parts(before)
    assert len(parts) == len(list_parts(study)) - len(sounds) - len(corpora) > 0
    assert all(facts_of(before, one) == facts_of(study, one) for one in parts)


def test_a_model_after_captions_is_made_again_with_what_it_starts_from(study: Study) -> None:
    tuned = Part("models", f"{MODEL}-text", (CORPUS,))
    assert tuned in list_parts(study)
    facts = facts_of(study, tuned)
    assert {*facts["experiments"]} == {MODEL, f"{MODEL}-text"}
    assert {*facts["recipes"]} == {"sounds-long", "sounds-text"}
    assert facts["versions"].keys() <= load_versions().model_dump().keys()


def test_the_generator_still_makes_the_shipped_clips() -> None:
    """Who changes what is seen, heard or said raises its number in the study."""
    code = """
import csv, random, sys
sys.path.insert(0, "sample")
import videos
shipped = "sample/corpora/mini-videos"
texts, events = {}, {}
for row in csv.DictReader(open(f"{shipped}/clips.csv")):
    texts.setdefault(row["video"].split("/")[1][:9], []).append(row["caption"])
for row in csv.DictReader(open(f"{shipped}/events.csv")):
    events.setdefault(row["video"].split("/")[1][:9], []).append(row)
for number in range(8):
    name = f"clip{number:05}"
    rng = random.Random(f"videos/{name}")
    clip = videos.sample_clip(rng, True)
    assert videos.captions(clip, rng) == texts[name]
    heard = [(f"{act.start_s:.3f}", f"{act.end_s:.3f}", act.thing.kind) for act in clip.heard]
    assert heard == [(row["start"], row["end"], row["label"]) for row in events[name]]
    # What never changes is one thing, from the beginning to the end.
    (act,) = videos.sample_clip(rng, False).acts
    assert act.start_s == 0 and act.is_heard
"""
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
