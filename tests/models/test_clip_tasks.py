"""The tasks of clips: what is learned, by which pairing, and what goes over into text."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from sound_params import RULES
from tiny_clips import clip_data, make_clip, sound_variant
from tiny_models import IMAGE_SIZE
from tiny_models import make_clip as make_tiny_clip

from brewline.config import load_params
from brewline.config.experiments import ExperimentParams
from brewline.config.recipes import RecipeParams
from brewline.config.variants import VariantParams
from brewline.core.errors import BrewlineError
from brewline.core.ranks import ALONE, Ranks, in_ranks
from brewline.evaluation.sound_scores import score_sounds
from brewline.evaluation.sound_vectors import load_sound_vectors
from brewline.models.backbones import make_backbone
from brewline.models.card import ModelCard, needed_backbones
from brewline.models.folder import Row, Trained, load_model, load_sound_model, save_model
from brewline.samples.frame_vectors import keep_frame_vectors
from brewline.samples.sound_collator import SoundCollator
from brewline.samples.utterance import BadSampleError, Utterance
from brewline.training.experiment import TASKS
from brewline.training.loop import TrainingData, TrainingJob, train
from brewline.training.tasks.audio_image import AudioImage
from brewline.training.tasks.audio_text import AudioText
from brewline.training.tasks.embedding import Embedder

HASHES = {"clip": "c" * 64, "whisper": "a" * 64}
SEGMENTS = sound_variant("multiframe_segment")


@cache
def tiny_backbone():
    preprocess = image_transform_v2(PreprocessCfg(size=IMAGE_SIZE), is_train=False)
    return make_backbone(make_tiny_clip(), open_clip.SimpleTokenizer(context_length=16), preprocess)


def run(
    switches: VariantParams,
    recipe: RecipeParams,
    folder: Path,
    task: str = "audio_image",
    start: Any = None,
    ranks: Ranks = ALONE,
    part_size: int | None = None,
    on_row: Any = None,
    data: TrainingData | None = None,
) -> Trained:
    folder.mkdir(exist_ok=True, parents=True)
    changes = {"device": "cpu", "train_part_size": part_size, "checkpoint_every_s": 0.0}
    made: Any
    if task == "audio_image":
        made = AudioImage(switches, recipe, tiny_backbone(), folder.parent / "frames/x", 16)
    else:
        made = AudioText(switches, recipe, tiny_backbone(), 16)
    return train(
        TrainingJob(made, recipe, 0, start),
        data or clip_data(),
        folder,
        load_params().runtime.model_copy(update=changes),
        on_row,
        ranks=ranks,
    )


@pytest.fixture
def long(recipe):
    return recipe.model_copy(update={"steps": 30, "evaluate_every": 10, "learning_rate": 2e-3})


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_learns(rule, long, tmp_path):
    trained = run(sound_variant(rule), long, tmp_path / "work")
    losses = [row["loss"] for row in trained.history if "loss" in row]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    names = {name for row in trained.history for name in row}
    assert {"choice_margin", "dev/choice/entropy", "dev/choice/changed"} <= names
    assert {"dev/audio_image/mean_recall_at_1", "dev/time/clip_accuracy"} <= names
    # Zero-shot transfer, with every look at dev.
    assert "dev/audio_text/mean_recall_at_1" in trained.dev
    assert ("choice_entropy" in names) == (rule in ("random_frame", "nearest"))


def test_the_warm_phase_ends_at_its_step(recipe, tmp_path):
    """With the first steps drawn, a longer phase gives what `random_frame` gives."""
    never = run(sound_variant("nearest", warm_phase=1.0), recipe, tmp_path / "a").history
    drawn = run(sound_variant("random_frame"), recipe, tmp_path / "b").history
    half = run(sound_variant("nearest", warm_phase=6), recipe, tmp_path / "c").history
    losses = [[row["loss"] for row in one if "loss" in row] for one in (never, drawn, half)]
    assert losses[0] == losses[1]
    assert losses[2][:6] == losses[1][:6]
    assert losses[2][6:] != losses[1][6:]


def test_a_killed_training_goes_on_with_what_it_remembers(recipe, tmp_path):
    switches = sound_variant("nearest", frequency_mask=20, time_mask=20)
    undisturbed = run(switches, recipe, tmp_path / "undisturbed")

    def stop(row: Row) -> None:
        if row["step"] == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(switches, recipe, tmp_path / "killed", on_row=stop)
    again = run(switches, recipe, tmp_path / "killed")
    assert again.history == undisturbed.history
    ours, theirs = again.model.trained_tensors(), undisturbed.model.trained_tensors()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


CASES = {
    "nearest": sound_variant("nearest"),
    "segment": SEGMENTS,
    "soft": sound_variant("multiframe_segment", same_clip="soft"),
    "clip": sound_variant("multiframe_clip"),
}


def run_cases(recipe: RecipeParams, folder: Path, ranks: Ranks) -> None:
    for name, switches in CASES.items():
        trained = run(switches, recipe, folder / name, ranks=ranks)
        if ranks.is_first:
            torch.save(trained.model.trained_tensors(), folder / f"{name}.pt")


@pytest.mark.slow
def test_processes_and_parts_give_what_one_gives(recipe, tmp_path):
    short = recipe.model_copy(update={"steps": 3, "optimiser": "adam", "learning_rate": 1e-3})
    in_ranks(run_cases, (short, tmp_path / "two"), 2, torch.device("cpu"), tmp_path / "failures")
    for name, switches in CASES.items():
        alone = run(switches, short, tmp_path / "one" / name).model.trained_tensors()
        parts = run(switches, short, tmp_path / "parts" / name, part_size=3)
        together = torch.load(tmp_path / "two" / f"{name}.pt", weights_only=True)
        for found in (together, parts.model.trained_tensors()):
            for key, tensor in alone.items():
                torch.testing.assert_close(found[key], tensor, atol=2e-4, rtol=1e-3)


@pytest.mark.slow
def test_text_is_learned_from_a_model_of_frames(long, tmp_path):
    first = run(sound_variant("nearest"), long, tmp_path / "first")
    zero_shot = first.dev["dev/audio_text/mean_recall_at_1"]
    start = first.model.trained_tensors()
    second = run(sound_variant("nearest"), long, tmp_path / "second", "audio_text", start)
    assert second.dev["dev/audio_text/mean_recall_at_1"] >= zero_shot
    losses = [row["loss"] for row in second.history if "loss" in row]
    assert sum(losses[-3:]) < 0.9 * sum(losses[:3])
    # It starts where the first one ended, not anew.
    anew = run(sound_variant("nearest"), long, tmp_path / "anew", "audio_text")
    assert losses[0] != next(row["loss"] for row in anew.history if "loss" in row)
    assert not any("audio_image" in name for row in second.history for name in row)


def test_a_trained_text_tower_moves_at_a_tenth_of_the_rate(recipe, tmp_path):
    """Adam's first step is as long as the rate, whatever the gradient."""
    once = recipe.model_copy(update={"steps": 2, "warmup_steps": 0, "evaluate_every": 1})
    switches = sound_variant(text_tower="trained")
    trained = run(switches, once, tmp_path / "work", "audio_text").model.trained_tensors()
    before = tiny_backbone().clip.state_dict()
    text = "brewclip.clip.text_projection"
    moved = (trained[text] - before["text_projection"]).abs().max()
    sound = (trained["encoder.projection"] - before["visual.proj"]).abs().max()
    assert float(moved / sound) == pytest.approx(0.1, rel=0.05)


def test_frames_are_embedded_once(backbone, tmp_path):
    clips = [make_clip(number, frames=3 + number % 2) for number in range(5)]
    collator = SoundCollator.of(backbone, SEGMENTS, 0)
    calls = []

    def embed(some):
        calls.append(len(some))
        pictures = collator.pictures(some)
        features = backbone.clip.encode_image(pictures.pixels.float() / 255)
        return torch.nn.functional.normalize(features, dim=-1)

    kept = keep_frame_vectors(tmp_path / "frames/x", lambda: clips, embed, 2)
    again = keep_frame_vectors(tmp_path / "frames/x", lambda: clips, embed, 2)
    assert calls == [2, 2, 1]
    assert kept.max_frames == 4
    found = again.of([clips[4], clips[1]])
    assert not found[0, 3].any()
    expected = embed([clips[1]])
    torch.testing.assert_close(found[1], expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(found[1].norm(dim=-1), torch.ones(4))
    changed = replace(clips[1], frames=clips[1].frames[:2])
    with pytest.raises(BrewlineError, match="2 frames, of which 4"):
        again.of([changed])
    with pytest.raises(BrewlineError, match="of which 0"):
        again.of([make_clip(99)])


def spoiled(clip: Utterance) -> Utterance:
    """With a damaged frame, or a damaged sound."""
    if clip.utterance_id == "clip3":
        first, *others = clip.frames
        return replace(clip, frames=(replace(first, image=first.image[:50]), *others))
    assert clip.sound is not None
    return replace(clip, sound=clip.sound[:60]) if clip.utterance_id == "clip6" else clip


def damaged_data() -> TrainingData:
    data = clip_data()
    return replace(
        data,
        read_training=lambda *numbers: [*map(spoiled, data.read_training(*numbers))],
        read_without_states=lambda split: [*map(spoiled, data.read_without_states(split))],
    )


@pytest.mark.parametrize(
    ("task", "bad"), [("audio_image", ["clip3", "clip6"]), ("audio_text", ["clip6"])]
)
def test_bad_clips_are_skipped_counted_and_named(task, bad, recipe, tmp_path):
    """A task that looks at no frame misses none."""
    short = recipe.model_copy(update={"steps": 4, "evaluate_every": 4})
    rows = []
    trained = run(SEGMENTS, short, tmp_path / "work", task, on_row=rows.append, data=damaged_data())
    assert sorted(trained.skipped) == bad
    assert all(f"clip {name!r}" in why for name, why in trained.skipped.items() if name == "clip6")
    assert [row["skipped_samples"] for row in rows if "skipped_samples" in row] == [len(bad)]
    losses = [row["loss"] for row in trained.history if "loss" in row]
    assert len(losses) == 4
    # Once they are mended, it is as if nothing had ever been wrong.
    mended = run(SEGMENTS, short, tmp_path / "mended", task)
    assert not mended.skipped
    assert mended.history == run(SEGMENTS, short, tmp_path / "elsewhere/work", task).history


def test_vectors_of_frames_are_kept_until_one_is_damaged(tmp_path):
    clips, calls = [make_clip(number) for number in range(3)], []

    def embed(some):
        calls.append(len(some))
        if any(clip is bad for clip in some):
            raise BadSampleError(bad.utterance_id, "a frame is damaged")
        return torch.ones(sum(len(clip.frames) for clip in some), 5)

    bad = clips[1]
    kept = keep_frame_vectors(tmp_path / "x", lambda: clips, embed, 2)
    assert kept.of([clips[0], clips[2]]).shape == (2, 4, 5)
    with pytest.raises(BadSampleError, match="a frame is damaged") as caught:
        kept.of(clips)
    assert caught.value.utterance_id == "clip1"
    # Two together, each alone, the good one, and the last one.
    assert calls == [2, 1, 1, 1, 1]
    with pytest.raises(BrewlineError, match="a frame is damaged"):
        keep_frame_vectors(tmp_path / "all", lambda: [bad], embed, 2)
    assert not (tmp_path / "all").exists()
    calls.clear()
    bad = None
    for _ in range(2):
        keep_frame_vectors(tmp_path / "x", lambda: clips, embed, 2).of(clips)
    assert calls == [2, 1]


def test_vectors_that_the_disk_does_not_give_are_those_of_a_bad_clip(tmp_path, monkeypatch):
    clips = [make_clip(number) for number in range(3)]
    kept = keep_frame_vectors(tmp_path / "x", lambda: clips, lambda some: torch.ones(12, 5), 3)

    def load(mapped, start, size):
        if start <= 4 * 5 * 2 < start + size:
            raise OSError("Input/output error")

    monkeypatch.setattr("brewline.samples.frame_vectors.load_mapped", load)
    kept.of([clips[0], clips[2]])
    with pytest.raises(BadSampleError, match=r"cannot be read at clip 'clip1'.*remove it"):
        kept.of(clips)


def test_clips_without_frames_or_captions_are_told(recipe, tmp_path):
    with pytest.raises(BrewlineError, match="has no frames"):
        keep_frame_vectors(
            tmp_path / "x", lambda: [replace(make_clip(1), frames=())], lambda _: torch.zeros(1), 1
        )
    assert not (tmp_path / "x").exists()
    task = AudioText(sound_variant(), recipe, tiny_backbone(), 0)
    with pytest.raises(BrewlineError, match="has no caption"):
        task.make_model(make_clip(1, captions=0))


def test_every_caption_is_drawn(recipe):
    task = AudioText(sound_variant(), recipe, tiny_backbone(), 0)
    clips = [make_clip(1, captions=3), make_clip(2, captions=1)] * 10
    model = task.make_model(clips[0])
    texts = task.forward(model, task.collate(clips))["texts"]
    assert len({tuple(row.tolist()) for row in texts[::2]}) == 3
    assert len({tuple(row.tolist()) for row in texts[1::2]}) == 1


def test_a_kept_model_hears_as_before(recipe, tmp_path, backbone):
    for task, text_tower in (("audio_image", "trained"), ("audio_text", "trained")):
        switches = sound_variant(text_tower=text_tower)
        trained = run(
            switches, recipe.model_copy(update={"steps": 2}), tmp_path / f"work-{task}", task
        )
        card = ModelCard(
            experiment="e",
            task=task,
            corpus="tiny",
            trained_on="tiny",
            variant="v",
            switches=switches,
            backbones=needed_backbones(switches, HASHES),
            seed=0,
            recipe=recipe.model_dump(exclude={"seeds"}),
        )
        assert card.backbones["whisper"] is None
        save_model(tmp_path / task, card, trained)
        # Serving loads what hears speech.
        with pytest.raises(BrewlineError, match=r"hears sounds, .* are models of speech"):
            load_model(tmp_path / task, backbone, HASHES)
        loaded, _ = load_sound_model(tmp_path / task, backbone, HASHES)
        collator = SoundCollator.of(backbone, switches, 0)
        inputs = collator.sounds([make_clip(3)])
        assert torch.equal(
            loaded.encode_sounds(inputs).clips, trained.model.encode_sounds(inputs).clips
        )
        texts = collator.tokens(["a red sound"])
        assert torch.equal(loaded.encode_texts(texts), trained.model.encode_texts(texts))


def test_an_experiment_goes_from_parameters_to_vectors(recipe, tmp_path, monkeypatch):
    """Made as stages make it, of clips that stand in for shards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("brewline.training.experiment.load_clip", tiny_backbone)
    read = clip_data().read_split
    monkeypatch.setattr(
        "brewline.training.tasks.embedding.read_split", lambda _, split: read(split)
    )
    switches = sound_variant("multiframe_segment")
    card = ModelCard(
        experiment="sounds",
        task="audio_image",
        corpus="tiny",
        trained_on="tiny",
        variant="v",
        switches=switches,
        backbones=needed_backbones(switches, HASHES),
        seed=0,
        recipe=recipe.model_dump(exclude={"seeds"}),
        data={"shards": "d" * 64},
    )
    params = load_params(Path(__file__).parents[2] / "params.yaml")
    task = TASKS["audio_image"](params, card, recipe)
    runtime = params.runtime.model_copy(update={"device": "cpu"})
    trained = train(TrainingJob(task, recipe, 0), clip_data(), tmp_path, runtime)
    assert len([one for one in (tmp_path / "work/frames").iterdir() if one.is_dir()]) == 1
    save_model(tmp_path / "model", card, trained)
    embedder = Embedder(
        experiment=ExperimentParams(
            task="audio_text", data="tiny", states="none", variant="v", recipe="none", init="x"
        ),
        switches=switches,
        backbone=tiny_backbone(),
        hashes=HASHES,
        shards=tmp_path,
        states=None,
        device=torch.device("cpu"),
        batch_size=3,
        cache_mb=1,
    )
    path = tmp_path / "vectors.safetensors"
    embedder.embed(tmp_path / "model", path)
    found = load_sound_vectors(path)
    assert {split: len(one.clip_ids) for split, one in found.items()} == {"dev": 8, "test": 8}
    assert found["test"].frames.shape == found["test"].segments.shape == (32, 20)
    assert len(found["test"].captions) == 16
    assert sum(bool(labels) for labels in found["test"].frame_labels) == 8
    # Whole or not at all, and not made twice.
    before = path.stat().st_mtime_ns
    embedder.embed(tmp_path / "model", path)
    assert path.stat().st_mtime_ns == before
    # The same as the task measured on dev, but for frames in half precision.
    scores = score_sounds(found["dev"], "dev", (1,)).metrics
    name = "dev/audio_text/mean_recall_at_1"
    assert scores[name] == trained.dev[name]
