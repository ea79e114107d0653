"""The study: which parts are missing, how claims are judged, and what the page says."""

import json
import math
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from brewline.core.errors import BrewlineError
from study.definition import PROJECT, STUDY, Study, digest, load_study
from study.judging import (
    Check,
    Claim,
    Claims,
    Finding,
    Interval,
    Outcomes,
    Verdict,
    find,
    judge,
    load_claims,
    load_remarks,
)
from study.outcomes import as_text
from study.page import draw
from study.parts import (
    estimated_minutes,
    facts_of,
    finished_outcomes,
    is_finished,
    list_parts,
    missing_parts,
)

INTERVAL = Interval(samples=200, seed=0, confidence=0.95)
NUM_IMAGES, TAKES = 40, 3


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """The shipped study, in a folder of its own."""
    for name in ("params.yaml", "claims.yaml"):
        shutil.copy(PROJECT / STUDY / name, tmp_path)
    return load_study(tmp_path)


def corpus_file(word_errors: list[int]) -> dict[str, Any]:
    """A corpus of pictures that are each described three times, in ten words."""
    num = NUM_IMAGES * TAKES
    test = {"asked": "a", "image": [row // TAKES for row in range(num)]}
    test |= {"num_words": [10] * num, "word_errors": word_errors}
    of_test = {"num_utterances": {"test": num}, "num_images": {"test": NUM_IMAGES}}
    return of_test | {"hours": 0.1, "quarantined": {}, "wer": {"test": 0.1}, "test": test}


def ranks(hits: list[bool], seeds: int = 2) -> dict[str, Any]:
    """A model that ranks the right picture first, or tenth."""
    forward = [1 if hit else 10 for hit in hits]
    backward = [min(forward[row * TAKES : row * TAKES + TAKES]) for row in range(NUM_IMAGES)]
    one = {"speech_to_image": forward, "image_to_speech": backward}
    return {"data": "narrations", "asked": "a", "models": {f"seed-{n}": one for n in range(seeds)}}


def outcomes_of(**files: Any) -> Outcomes:
    found: dict[str, dict[str, Any]] = {"corpora": {}, "models": {}, "probes": {}}
    for name, content in files.items():
        kind, _, subject = name.partition("__")
        # As it comes back from a file.
        found[kind][subject.replace("_", "-")] = json.loads(json.dumps(content))
    return Outcomes(found, INTERVAL)


def test_the_page_looks_at_finished_parts_whose_corpora_are_there(study: Study) -> None:
    """A model alone, and one of other parameters, are not yet measured."""
    parts = {part.name: part for part in list_parts(study)}

    def leave(name: str, **changes: Any) -> None:
        file = parts[name].file(study)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(as_text({"made_of": facts_of(study, parts[name]) | changes}))

    leave("models/captions-prompted")
    assert finished_outcomes(study) == {"corpora": {}, "models": {}, "probes": {}}
    leave("models/captions-full", recipes={})
    leave("corpora/captions")
    found = finished_outcomes(study)
    assert [*found["corpora"]] == ["captions"]
    assert [*found["models"]] == ["captions-prompted"]
    leave("corpora/captions", generator="another")
    assert finished_outcomes(study)["corpora"] == {}


def judge_one(one: Check, outcomes: Outcomes) -> list[Verdict]:
    claim = {"says": "a claim", "source": "ours", "checks": [one]}
    return judge(Claims(interval=INTERVAL, claims={"one": Claim(**claim)}), outcomes)


def check(**values: Any) -> Check:
    return Check.model_validate({"of": "a check", "hit_at": 1} | values)


def test_parts_follow_those_that_they_start_from(study: Study) -> None:
    names = [part.name for part in list_parts(study)]
    assert names.index("corpora/captions") < names.index("models/captions-full")
    assert names.index("models/narrations-full") < names.index("models/captions-full-of-narrations")
    assert names[-1] == "probes/emotions"
    # Experiments of task emotion are parts of their probe.
    assert not any(name.startswith("models/emotions") for name in names)
    (probe,) = (part for part in list_parts(study) if part.kind == "probes")
    assert probe.corpora == ("emotions", "narrations")


def test_every_model_of_a_claim_is_there_or_is_yet_to_be_built(study: Study) -> None:
    known = {*study.params.experiments, "chance"}
    rows = {row for probe in study.params.probes.values() for row in probe.rows}
    yet = set()
    for name, claim in load_claims(study).claims.items():
        for one in claim.checks:
            if one.probe is None:
                yet |= {name} if set(one.models) - known else set()
            else:
                assert {model.split("/")[0] for model in one.models} <= {*rows, "majority"}
                assert one.protocol in study.params.probes[one.probe].protocols
                assert one.labels in study.params.probes[one.probe].labels
    assert not yet


def test_how_long_a_part_takes_follows_from_its_parameters(study: Study) -> None:
    parts = {part.name: part for part in list_parts(study)}

    def minutes(name: str, of: Study = study) -> float:
        return estimated_minutes(of, parts[name])

    # The bound of the whole, on two cores.
    assert 120 < sum(map(minutes, parts)) < 360
    assert minutes("corpora/narrations") > 2 * minutes("corpora/captions")
    # Three times as many steps, of the same batches.
    one, three = minutes("models/captions-prompted"), minutes("models/captions-e2e")
    assert 1.5 * one < three < 3 * one
    assert minutes("models/captions-zero-shot") < one / 2
    values = json.loads(json.dumps(study.values))
    values["experiments"]["emotions-tuned"]["fine_tuning"]["protocol"] = "paper"
    assert minutes("probes/emotions", replace(study, values=values)) < minutes("probes/emotions")


def test_a_part_is_made_again_where_what_it_is_made_of_has_changed(study: Study) -> None:
    part = next(one for one in list_parts(study) if one.name == "models/captions-full")
    assert not is_finished(study, part)
    part.file(study).parent.mkdir(parents=True)
    part.file(study).write_text(as_text({"made_of": facts_of(study, part)}))
    assert is_finished(study, part)
    assert part not in list(missing_parts(study, []))
    (other,) = missing_parts(study, ["models/captions-prompted"])
    changes = {
        "variants": ("full", "alpha", 0.2),
        "recipes": ("prompts", "steps", 250),
        "asr": (None, "max_tokens", 100),
    }
    for section, (name, key, value) in changes.items():
        values = json.loads(json.dumps(study.values))
        (values[section][name] if name else values[section])[key] = value
        assert not is_finished(replace(study, values=values), part), section
    values = json.loads(json.dumps(study.values))
    values["variants"]["prompted"]["prompts"] = 8
    changed = replace(study, values=values)
    assert is_finished(changed, part)
    assert digest(facts_of(changed, other)) != digest(facts_of(study, other))
    larger = {**study.generate, "captions": {**study.generate["captions"], "speakers": 7}}
    assert not is_finished(replace(study, generate=larger), part)
    # The generator of another layout is none of its own.
    assert not is_finished(replace(study, generator={**study.generator, "flickr8k": 2}), part)
    assert is_finished(replace(study, generator={**study.generator, "lncoco": 2}), part)
    with pytest.raises(BrewlineError, match="no part is called models/ful"):
        list(missing_parts(study, ["models/ful"]))


def test_a_corpus_that_nothing_generates_is_told(study: Study) -> None:
    path = study.folder / "params.yaml"
    values = yaml.safe_load(path.read_text())
    del values["generate"]["emotions"]
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(BrewlineError, match="nothing says how emotions is generated"):
        load_study(study.folder)


@pytest.mark.parametrize(
    ("keys", "value", "sentence"),
    [
        (("generate", "wide", "aspects"), 2.0, r"generate.wide is.*\n.*aspects: unknown.*aspect"),
        (("generate", "wide", "layout"), "coco", r"generate.wide is not valid:\n.*layout: 'coco'"),
        (("generate", "emotions", "actors"), 25, r"generate.emotions is not valid:\n.*actors: 25"),
        (("generator", "coco"), 1, "has to have a number of flickr8k, lncoco, ravdess"),
        (("generators",), {}, "generators: unknown key.*generator"),
        (("pipeline", "recipe"), {}, "recipe: unknown key.*recipes"),
    ],
)  # fmt: skip
def test_the_parameters_of_the_study_are_read_strictly(
    study: Study, keys: tuple[str, ...], value: Any, sentence: str
) -> None:
    path = study.folder / "params.yaml"
    values = yaml.safe_load(path.read_text())
    inner = values
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(BrewlineError, match=sentence):
        list_parts(load_study(study.folder))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hits_at": 1}, "hits_at: unknown key.*hit_at"),
        ({"below": 0}, "has to have one of above, below and within"),
        ({"above": None}, "has to have one of above, below and within"),
        ({"probe": "emotions"}, "either hit_at, of models of retrieval, or right_time, of sounds"),
        ({"right_time": "clip"}, "either hit_at, of models of retrieval, or right_time, of sounds"),
        ({"labels": "paper4"}, "a check of a probe, and no other one, has labels"),
    ],
)
def test_claims_are_read_strictly(study: Study, changes: dict[str, Any], sentence: str) -> None:
    path = study.folder / "claims.yaml"
    values = yaml.safe_load(path.read_text())
    values["claims"]["crop"]["checks"][0] |= changes
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(BrewlineError, match=sentence):
        load_claims(study)


def test_the_generator_still_makes_the_shipped_corpora() -> None:
    """Who changes what it draws or says raises its number in the study, and makes them again."""
    code = """
import json, random, sys, tarfile
sys.path.insert(0, "sample")
import corpora, language
shipped = corpora.Path("sample/corpora")
def kept(archive, name):
    with tarfile.open(shipped / archive) as opened:
        return opened.extractfile(name).read()
lines = [line.split("\\t") for line in open(shipped / "mini-flickr8k/Flickr8k.token.txt")]
written = {name: text for name, text in lines}
size, rng = corpora.Captioned(), random.Random("flickr8k")
for index in range(6):
    stem = f"{rng.randint(10**9, 4 * 10**9 - 1)}_{rng.getrandbits(40):010x}"
    picture, captions = corpora._caption_picture(index, size.speakers, size.aspect)
    assert picture == kept("mini-flickr8k/Images.tar", f"Images/{stem}.jpg")
    for number, (caption, _) in enumerate(captions):
        assert written[f"{stem}.jpg#{number}"] == f"{caption[:-1]} .\\n"
ids = random.Random("lncoco").sample(range(1_000, 581_929), 1_000)
told = (shipped / "mini-lncoco").glob("coco_train_localized_narratives*")
first = json.loads(next(told).open().readline())
telling = corpora._Telling("train", 0, ids[0], first["annotator_id"], None)
scene, _ = corpora._scene("lncoco", 0)
assert language.written_narration(language.narration(scene, telling.rng)) == first["caption"]
name = f"train2017/{ids[0]:012d}.jpg"
assert corpora._narrated_picture(0) == kept("mini-lncoco/train2017.tar", name)
"""
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


def test_the_sides_of_a_wide_picture_lie_outside_of_its_crop() -> None:
    code = """
import sys
sys.path.insert(0, "sample")
import corpora, drawing
outside = 0
for index in range(20):
    scene, rng = corpora._scene("flickr8k", index)
    picture = drawing.draw_scene(scene, rng, aspect=2.0)
    assert picture.size == (512, 256)
    scene, rng = corpora._scene("flickr8k", index)
    for thing, (left, _, right, _) in zip(scene.things, drawing.thing_boxes(scene, rng, 2.0)):
        seen = max(0, min(right, 0.75) - max(left, 0.25)) / (right - left)
        assert seen > 0.9 if thing.side == "middle" else seen < 0.25, (thing, left, right)
        outside += thing.side != "middle"
assert outside > 20
"""
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)


def test_a_difference_is_that_of_the_recalls_and_its_interval_is_paired(study: Study) -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(NUM_IMAGES * TAKES) < 0.5
    better = hard.copy()
    better[::10] = True
    outcomes = outcomes_of(
        corpora__narrations=corpus_file([0] * len(hard)),
        models__ours=ranks(better.tolist()),
        models__theirs=ranks(hard.tolist()),
    )
    both = list(find(check(models={"ours": 1, "theirs": -1}, above=0), outcomes))
    forward, backward = both
    assert (forward.direction, backward.direction) == ("speech_to_image", "image_to_speech")
    assert forward.value == pytest.approx(better.mean() - hard.mean())
    # Most pictures are answered alike: paired, the interval is far narrower than of either alone.
    (alone, _) = find(check(models={"ours": 1}, above=0), outcomes)
    assert forward.high - forward.low < 0.6 * (alone.high - alone.low)
    assert forward.low <= forward.value <= forward.high
    assert forward.verdict == ("yes" if forward.low > 0 else "no")
    (same, _) = find(check(models={"ours": 1, "chance": -1}, above=0), outcomes)
    assert same.value == pytest.approx(alone.value - 1 / NUM_IMAGES)


def test_chance_is_what_a_guess_hits(study: Study) -> None:
    outcomes = outcomes_of(corpora__narrations=corpus_file([0] * NUM_IMAGES * TAKES))
    rng, k, total = random.Random(0), 10, NUM_IMAGES * TAKES
    assert outcomes.chance("narrations", "speech_to_image", k) == k / NUM_IMAGES
    hits = [min(rng.sample(range(total), k)) < TAKES for _ in range(20_000)]
    found = outcomes.chance("narrations", "image_to_speech", k)
    assert found == pytest.approx(np.mean(hits), abs=0.02)


def test_repair_is_looked_for_where_words_were_heard_otherwise(study: Study) -> None:
    rng = np.random.default_rng(1)
    errors = rng.integers(0, 8, NUM_IMAGES * TAKES)
    # Theirs is lost where much was heard otherwise; ours loses less there, and nothing elsewhere.
    theirs = rng.random(len(errors)) > errors / 9
    ours = theirs | ((errors >= 3) & (rng.random(len(errors)) < 0.7))
    outcomes = outcomes_of(
        corpora__narrations=corpus_file(errors.tolist()),
        models__ours=ranks(ours.tolist()),
        models__theirs=ranks(theirs.tolist()),
    )
    values = {"models": {"ours": 1, "theirs": -1}, "directions": ["speech_to_image"]}
    (wrong,) = find(check(**values, word_error_rate={"from": 0.3}, above=0), outcomes)
    chosen = errors >= 3
    assert wrong.value == pytest.approx(ours[chosen].mean() - theirs[chosen].mean())
    assert wrong.verdict == "yes"
    (right,) = find(check(**values, word_error_rate={"to": 0.2}, within=0.05), outcomes)
    assert (right.value, right.low, right.high, right.verdict) == (0, 0, 0, "yes")
    (nobody,) = find(check(**values, word_error_rate={"from": 0.9}, above=0), outcomes)
    assert math.isnan(nobody.value) and nobody.verdict == "no"
    (slope,) = find(check(**values, slope_over="word_error_rate", above=0), outcomes)
    assert slope.value > 0 and slope.verdict == "yes"


def test_accuracy_is_paired_over_speakers(study: Study) -> None:
    recordings = {f"{speaker:02d}": 10 for speaker in range(12)}
    rights = {
        "majority": {"0": [3] * 12},
        "heard": {"0": [4, 9] * 6, "1": [5, 9] * 6},
        "deaf": {"0": [3] * 12, "1": [3] * 12},
    }
    probe = {
        "data": "emotions",
        "recordings": {"emobox/paper4": recordings},
        "right": {name: {"emobox/paper4": one} for name, one in rights.items()},
    }
    nothing = corpus_file([]) | {"num_images": {"test": 0}}
    outcomes = outcomes_of(corpora__emotions=nothing, probes__emotions=probe)
    values = {"hit_at": None, "probe": "emotions", "labels": "paper4"}
    (found,) = find(check(models={"heard": 1, "majority": -1}, above=0, **values), outcomes)
    assert found.value == pytest.approx((4 + 9 + 5 + 9) / 40 - 0.3)
    assert found.verdict == "yes"
    (claim,) = judge_one(
        check(models={"heard": 1}, above=0, **values | {"labels": "all8"}), outcomes
    )
    assert claim.missing == ["heard"] and claim.words == "not yet measured"
    (found,) = find(check(models={"deaf": 1, "majority": -1}, below=0.05, **values), outcomes)
    assert (found.value, found.low, found.high, found.verdict) == (0, 0, 0, "yes")


@pytest.mark.parametrize(
    ("bound", "low", "high", "verdict"),
    [
        ({"above": 0}, 0.01, 0.1, "yes"),
        ({"above": 0}, -0.01, 0.1, "no"),
        ({"above": 0}, -0.2, -0.1, "the contrary"),
        ({"below": 0.05}, -0.2, 0.04, "yes"),
        ({"below": 0}, -0.2, 0.04, "no"),
        ({"below": 0}, 0.01, 0.04, "the contrary"),
        ({"within": 0.05}, -0.04, 0.04, "yes"),
        ({"within": 0.05}, -0.04, 0.06, "no"),
        ({"within": 0.05}, 0.06, 0.08, "the contrary"),
    ],
)
def test_the_whole_interval_has_to_lie_beyond_the_bound(
    bound: dict[str, float], low: float, high: float, verdict: str
) -> None:
    one = check(models={"a": 1}, **bound)
    assert Finding(one, "speech_to_image", (low + high) / 2, low, high).verdict == verdict


def test_models_of_other_queries_are_refused(study: Study) -> None:
    of_others = ranks([True] * NUM_IMAGES * TAKES) | {"asked": "b"}
    with pytest.raises(BrewlineError, match="models/ours was measured on other queries"):
        outcomes_of(corpora__narrations=corpus_file([0] * 120), models__ours=of_others)


def test_the_page_says_what_was_shown_and_what_is_yet_to_be_measured(
    study: Study, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    errors = rng.integers(0, 8, NUM_IMAGES * TAKES)
    hits = rng.random(len(errors)) > errors / 9
    outcomes = outcomes_of(
        corpora__narrations=corpus_file(errors.tolist()),
        models__narrations_full=ranks((hits | (errors >= 2)).tolist()),
        models__narrations_prompted=ranks(hits.tolist()),
    )
    verdicts = judge(load_claims(study), outcomes)
    words = {one.name: one.words for one in verdicts}
    assert words["repair"] == "shown"
    assert words["gate"] == words["prompts"] == words["emotion"] == "not yet measured"
    page = tmp_path / "docs/study.md"
    remarks = study.folder / "remarks.yaml"
    remarks.write_text("remarks: {repair: Noise hides words.}")
    draw(outcomes, verdicts, load_remarks(study, load_claims(study)), page)
    text = page.read_text()
    assert "Intervals cover 95 %" in text
    assert "\n**Shown.** Noise hides words.\n" in text
    remarks.write_text("remarks: {repairs: Noise hides words.}")
    with pytest.raises(BrewlineError, match=r"claims.yaml has no claim repairs"):
        load_remarks(study, load_claims(study))
    assert "the study has no narrations-full-gated, no narrations-full-unit-sum." in text
    assert "| The acoustic channel repairs what recognition got wrong |" in text
    assert f"### narrations: {NUM_IMAGES} pictures, {len(errors)} utterances of test" in text
    figures = {path.name for path in (tmp_path / "docs/study").iterdir()}
    assert {"narrations-recall.svg", "word-errors.svg"} <= figures
    assert all(f"(study/{name})" in text for name in figures if name.endswith(".svg"))


def test_the_library_speaks_as_the_program_does_whatever_it_said_before() -> None:
    code = """
import random, shutil, subprocess, sys
sys.path.insert(0, "sample")
import numpy as np, language, scenes, speech
rng, jobs = random.Random(3), []
for number in range(6):
    scene, voice = scenes.sample_scene(rng), speech.sample_voice(rng)
    jobs.append((language.spoken_narration(language.narration(scene, rng), rng), voice))
def said(text, voice):
    name = f"{voice.accent}+{voice.variant}"
    return speech.speak(text, name, voice.rate, voice.pitch, voice.volume)[0]
for text, voice in jobs[::-1]:
    said(text, voice)
for text, voice in jobs:
    heard = said(text, voice)
    assert len(heard) > 10_000 and np.abs(heard).max() > 1000
    if not shutil.which("espeak-ng"):
        continue
    command = ["espeak-ng", "-m", "--stdout", "-z", "-v", f"{voice.accent}+{voice.variant}"]
    command += ["-s", str(voice.rate), "-p", str(voice.pitch), "-a", str(voice.volume), text]
    wav = subprocess.run(command, check=True, capture_output=True).stdout
    assert heard.tobytes() == wav[44:], text
"""
    subprocess.run([sys.executable, "-c", code], cwd=PROJECT, check=True)
