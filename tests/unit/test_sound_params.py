"""Parameters of what hears sounds, and their tables in the report."""

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from sound_params import sound_params
from test_sound_scores import model, unit

from brewline.config import Params
from brewline.config.loading import parse_params
from brewline.config.published import PUBLISHED_FILE, Published, load_published
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json
from brewline.evaluation.sound_table import (
    read_sound_metrics,
    score_sound_table,
    write_sound_evaluation,
)
from brewline.models.card import describe
from brewline.report.published import NOTHING
from brewline.report.sounds import SoundPart, short_columns, sound_sections, sounds_markdown
from brewline.report.text import results_table

PROJECT = Path(__file__).parents[2]
PUBLISHED = load_published(PROJECT / PUBLISHED_FILE)
CORPUS = "mini-lncoco"
PAIRINGS = {
    "random": sound_params("random_frame"),
    "nearest": sound_params("nearest", warm_phase=0.2),
    "multiframe": sound_params("multiframe_segment"),
}


def experiment(task: str, variant: str, recipe: str, init: str = "none") -> dict[str, str]:
    parts = {"task": task, "data": CORPUS, "states": "none", "variant": variant}
    return {**parts, "recipe": recipe, "init": init}


def sound_values() -> dict[str, Any]:
    """Three pairings x short and long x zero-shot and fine-tuned, as rows of one table."""
    values: dict[str, Any] = yaml.safe_load((PROJECT / "params.yaml").read_text())
    values["recipes"]["long"] = {**values["recipes"]["mini"], "steps": 80}
    rows = {}
    for name, sound in PAIRINGS.items():
        values["variants"][name] = {"prompts": 0, "sound": copy.deepcopy(sound)}
        for length, recipe in (("short", "mini"), ("long", "long")):
            first = f"s-{name}-{length}"
            values["experiments"][first] = experiment("audio_image", name, recipe)
            tuned = experiment("audio_text", name, "mini", first)
            values["experiments"][f"{first}-tuned"] = tuned
            rows |= {f"{name}-{length}": first, f"{name}-{length}-tuned": f"{first}-tuned"}
    table = {"data": CORPUS, "rows": rows, "baseline": "random-short"}
    values["sound_tables"] = {"sounds": table}
    return values


@pytest.fixture
def values() -> dict[str, Any]:
    return sound_values()


def test_the_whole_table_can_be_written(values: dict[str, Any]) -> None:
    params = parse_params(values, "params.yaml")
    assert len(params.sound_tables["sounds"].rows) == 12
    assert params.seeds_of("s-nearest-long-tuned") == [0, 1]
    assert describe(params, "s-nearest-long") == "sounds, nearest"
    # Nothing of it is a row of speech.
    assert params.row_of("s-nearest-long") is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("variants.random.text", "asr", "variants.random.sound: stands alone; take out text and"),
        ("variants.random.prompts", 4, "variants.random.sound: stands alone"),
        ("variants.random.sound.patch", [256, 16], "patch: 256 bins are more than the 128"),
        ("variants.random.sound.stride", [16, 32], "stride: [16, 32] leaves gaps between patches"),
        ("variants.random.sound.patch", None, "sound.patch: is missing; encoder clip needs it"),
        (
            "variants.random.sound.encoder",
            "whisper",
            "patch: belongs to encoder clip, not to whisper",
        ),
        ("variants.random.sound.encoder", "ast", "'ast' needs its weights; name them under backbo"),
        ("variants.random.sound.frequency_mask", 129, "frequency_mask: there are 128 bins"),
        ("variants.random.sound.pairing.warm_phase", 5, "warm_phase: belongs to nearest, not to"),
        (
            "variants.nearest.sound.pairing.warm_phase",
            None,
            "warm_phase: is missing; nearest",
        ),
        ("variants.nearest.sound.pairing.warm_phase", 1.5, "warm_phase: 1.5 is more than all"),
        ("variants.multiframe.sound.pairing.same_clip", None, "same_clip: is missing; multiframe_"),
        (
            "variants.nearest.sound.pairing.same_clip",
            "mask",
            "same_clip: belongs to multiframe",
        ),
        ("experiments.s-random-short.task", "retrieval", "'random' hears sounds, which task retr"),
        ("experiments.s-random-short.variant", "full", "'full' has no `sound`, which task audio_i"),
        ("recipes.mini.loss", "sigmoid", "recipe: task audio_image has loss info_nce alone"),
        ("sound_tables.sounds.data", "nowhere", "sound_tables.sounds.data: unknown corpus"),
        ("sound_tables.sounds.rows.x", "mini-lncoco-full", "is of task retrieval, which hears no"),
        ("sound_tables.sounds.rows.x", "s-rando-short", "did you mean 's-random-short'?"),
        ("sound_tables.sounds.baseline", "none", "sound_tables.sounds.baseline: no row 'none'"),
        ("tables.mini-lncoco.rows.x", "s-random-short", "which stands under sound_tables"),
        ("sound_tables.sounds.rows.x", "s-random-short", "rows: names s-random-short twice"),
    ],
)
def test_what_does_not_fit_is_told_why(
    values: dict[str, Any], key: str, value: object, message: str
) -> None:
    *sections, last = key.split(".")
    place = values
    for section in sections:
        place = place[section]
    place[last] = value
    with pytest.raises(BrewlineError, match=re.escape(message)):
        parse_params(values, "params.yaml")


def test_frames_are_not_learned_after_a_trained_text_tower(values: dict[str, Any]) -> None:
    values["variants"]["random"]["sound"]["text_tower"] = "trained"
    again = experiment("audio_image", "random", "mini", "s-random-short-tuned")
    values["experiments"]["again"] = again
    with pytest.raises(BrewlineError, match="has a text tower of its own"):
        parse_params(values, "params.yaml")


@pytest.fixture
def scored(values: dict[str, Any], tmp_path: Path) -> Params:
    rows = {"random": "s-random-short", "nearest": "s-nearest-short"}
    table = {"data": CORPUS, "rows": rows, "baseline": "random"}
    values["sound_tables"] = {"sounds": table}
    params = parse_params(values, "params.yaml")
    vectors = [model("random", f"s-random-short/seed-{seed}", unit(90, 40, 0)) for seed in (0, 1)]
    vectors += [model("nearest", f"s-nearest-short/seed-{seed}") for seed in (0, 1)]
    found = score_sound_table(vectors, params.sound_tables["sounds"], params.evaluate)
    write_sound_evaluation(found, "sounds", tmp_path)
    return params


# By table, row and model: the second of `nearest` looked at dev once, where nobody chose the last.
LOOKS = [
    {"step": 1, "loss": 2.0, "choice_margin": 0.1},
    {"step": 2, "dev/choice/frame_1": 0.5, "dev/choice/frame_2": 0.5, "dev/choice/margin": 0.1},
    {"step": 4, "dev/choice/frame_1": 0.25, "dev/choice/frame_2": 0.75, "dev/choice/changed": 0.5},
]
ONCE = [{"step": 2, "dev/choice/frame_1": 1.0, "dev/choice/margin": 0.3}]
HISTORIES = {"sounds": {"random": {"seed-0": ONCE}, "nearest": {"seed-0": LOOKS, "seed-1": ONCE}}}


def test_which_frames_are_chosen_is_drawn(scored: Params, tmp_path: Path) -> None:
    (section,) = sections(scored, tmp_path)
    figures = {one.name: one for one in section.figures}
    # Of entropy there are no numbers.
    assert [*figures] == [f"sounds-choice-{name}" for name in ("frames", "margin", "changed")]
    assert figures["sounds-choice-frames"].rows == [
        {"line": "random", "x": 1, "y": 1.0},
        {"line": "nearest", "x": 1, "y": 0.625},
        {"line": "nearest", "x": 2, "y": 0.375},
    ]
    assert figures["sounds-choice-margin"].rows == [
        {"line": "random, seed-0", "x": 2, "y": 0.3},
        {"line": "nearest, seed-0", "x": 2, "y": 0.1},
        {"line": "nearest, seed-1", "x": 2, "y": 0.3},
    ]
    assert figures["sounds-choice-changed"].rows == [{"line": "nearest, seed-0", "x": 4, "y": 0.5}]
    assert section.styles == {"random": 0, "nearest": 1}


def sections(params: Params, project: Path, published: Published = PUBLISHED) -> list[Any]:
    comparisons = read_json(project / "reports/sounds/sounds/comparisons.json")
    metrics = read_sound_metrics(params, project / "metrics")
    return sound_sections(params, metrics, {"sounds": comparisons}, published, HISTORIES)


def test_a_report_has_every_direction_and_the_right_time(scored: Params, tmp_path: Path) -> None:
    (section,) = sections(scored, tmp_path)
    assert [len(part.rows) for part in section.parts] == [2, 2, 2, 2]
    assert not any(part.published for part in section.parts)
    assert "Their numbers show" in section.notice
    text = sounds_markdown([section])
    assert "66.7 (" in text
    assert "nearest against random +66.7 points" in text
    assert "audio → text R@5" in text


def test_a_terminal_shows_captions_and_sounds_both_ways(scored: Params, tmp_path: Path) -> None:
    alone = scored.model_copy(update={"tables": {}})
    title, head, first, second, *notes = results_table(alone, tmp_path / "metrics").splitlines()
    assert title == f"sounds ({CORPUS}), test: 2 sounds"
    assert head.split() == ["row", "T2A", "R@1", "R@5", "R@10", "A2T", "R@1", "R@5", "R@10"]
    metrics = read_sound_metrics(scored, tmp_path / "metrics")["sounds"]
    for line, (row, values) in zip((first, second), metrics.items(), strict=True):
        found = f"{100 * values['test/text_to_audio/recall_at_1']:.1f} ("
        assert line.startswith(row)
        assert line.removeprefix(row).lstrip().startswith(found)
        assert len(line) <= 100
    assert "A: sounds" in "".join(notes)
    assert "hear speech" not in "".join(notes)
    seen = {
        row: {name: one for name, one in values.items() if "text" not in name}
        for row, values in metrics.items()
    }
    assert [column.label for column in short_columns([1, 5], seen)] == [
        "I2A R@1", "R@5", "A2I R@1", "R@5",
    ]  # fmt: skip


def test_published_numbers_stand_beside_real_corpora_alone(scored: Params, tmp_path: Path) -> None:
    def of_texts_of(release: str) -> SoundPart:
        known = {"reader": "audiocaps", "synthetic": False, "release": release}
        source = scored.sources[CORPUS].model_copy(update=known)
        real = scored.model_copy(update={"sources": {**scored.sources, CORPUS: source}})
        (section,) = sections(real, tmp_path)
        assert not section.parts[0].published
        return section.parts[2]

    # They are of the first release; results of the second one are not to be compared with them.
    assert not of_texts_of("v2").published
    of_texts = of_texts_of("v1")
    names = [system for system, _, _ in of_texts.published]
    assert names[0] == "Wav2CLIP"
    assert "CLAP, unfused" in names
    wav2clip = dict(
        zip((c.metric for c in of_texts.columns), of_texts.published[0][2], strict=True)
    )
    assert wav2clip["audio_to_text/any_hit_recall_at_1"] == "3.6"
    assert wav2clip["text_to_audio/recall_at_10"] == "4.0"
    assert wav2clip["text_to_audio/median_rank"] == NOTHING


# Copied by hand from the sources, text to audio.
PRINTED = {
    ("Wav2CLIP", "clotho"): {1: 0.3, 5: 1.1, 10: 2.2},
    ("ImageBind", "audiocaps"): {1: 9.3, 10: 42.3},
    ("ImageBind", "clotho"): {1: 6.0, 10: 28.4},
    ("AVFIC", "audiocaps"): {1: 8.7, 10: 37.7},
    ("LanguageBind", "audiocaps"): {1: 12.2, 10: 53.2},
    ("LanguageBind, fully tuned", "clotho"): {1: 16.7, 10: 52.0},
    ("CLAP, unfused", "audiocaps"): {1: 30.2, 5: 62.3, 10: 76.9},
    ("CLAP, unfused", "clotho"): {1: 14.1, 5: 34.2, 10: 44.3},
}


@pytest.mark.parametrize("key", PRINTED)
def test_a_number_is_the_one_that_was_printed(key: tuple[str, str]) -> None:
    (found,) = (one for one in PUBLISHED.sounds if (one.system, one.reader) == key)
    assert found.text_to_audio == PRINTED[key]
