"""Recordings paired with one of several squares of their picture, from parameters to the report."""

import copy
import io
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tiny_models import COLOURS, IMAGE_SIZE, RGB, make_world

from brewline.config import Params
from brewline.config.loading import parse_params
from brewline.config.recipes import RecipeParams
from brewline.config.variants import VariantParams
from brewline.core.errors import BrewlineError
from brewline.models.backbones import ClipBackbone
from brewline.models.card import ModelCard, describe, new_card
from brewline.models.folder import Trained
from brewline.models.losses import contrastive_loss
from brewline.samples.training_reader import TrainingOrder
from brewline.samples.utterance import Utterance
from brewline.training.experiment import TASKS
from brewline.training.loop import TrainingData, TrainingJob, train
from brewline.training.tasks.retrieval import Retrieval

VALUES = yaml.safe_load((Path(__file__).parents[2] / "params.yaml").read_text())
ACOUSTIC = {"layers": 1, "heads": 4, "feedforward_width": 32, "dropout": 0.0, "pool_frames": 2}
HASHES = {"clip": "c" * 64, "whisper": "a" * 64}
RULES: dict[str, dict[str, Any]] = {
    "random_frame": {},
    "nearest": {"warm_phase": 0.2},
    "multiframe_clip": {},
}


def params_of(rule: str, **changes: Any) -> Params:
    """The parameters of the project, with an experiment whose recordings are paired by a rule."""
    values = copy.deepcopy(VALUES)
    variant = {
        "prompts": 0,
        "acoustic": {**ACOUSTIC, "padding_mask": "valid"},
        "pictures": "multicrop",
        "pairing": {"rule": rule, **RULES.get(rule, {})},
    }
    values["variants"]["squares"] = variant | changes
    values["experiments"]["squares"] = {
        "task": "retrieval",
        "data": "mini-lncoco",
        "states": "mini-lncoco",
        "variant": "squares",
        "recipe": "mini",
        "init": "none",
    }
    return parse_params(values, "params.yaml")


def with_distractors(utterance: Utterance) -> tuple[Utterance, int]:
    """What is spoken of is seen in one of three squares; the others are grey noise."""
    number = int(utterance.utterance_id[1:].split("-")[0])
    rng = np.random.default_rng(number)
    place = int(rng.integers(3))
    pixels = 128 + rng.integers(-120, 120, (IMAGE_SIZE, 3 * IMAGE_SIZE, 3))
    colour = np.array(RGB[number % len(COLOURS)])
    pixels[:, place * IMAGE_SIZE : (place + 1) * IMAGE_SIZE] = colour
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
    return replace(utterance, image=buffer.getvalue()), place


@cache
def world() -> dict[str, list[tuple[Utterance, int]]]:
    numbers = {"train": (16, 0), "dev": (8, 80), "test": (8, 160)}
    return {
        split: [with_distractors(one) for one in make_world(count, takes=1, first=first)]
        for split, (count, first) in numbers.items()
    }


def data() -> TrainingData:
    splits = {split: [one for one, _ in pairs] for split, pairs in world().items()}

    def read_training(seed: int, start: int, stop: int) -> list[Utterance]:
        order = TrainingOrder([len(splits["train"])], seed)
        return [splits["train"][place.row] for place in order.places(start, stop)]

    return TrainingData(read_training, splits.__getitem__, splits.__getitem__)


@pytest.fixture
def long(recipe: RecipeParams) -> RecipeParams:
    changes = {"steps": 40, "evaluate_every": 20, "learning_rate": 3e-3, "same_image": "mask"}
    return recipe.model_copy(update=changes)


def run(
    params: Params, recipe: RecipeParams, folder: Path, part_size: int | None = None
) -> tuple[Retrieval, Trained]:
    folder.mkdir(parents=True)
    card = new_card(params, "squares", HASHES).model_copy(update={"data": {"shards": "5" * 64}})
    task: Any = TASKS["retrieval"](params, card, recipe)
    runtime = params.runtime.model_copy(update={"device": "cpu", "train_part_size": part_size})
    return task, train(TrainingJob(task, recipe, 0), data(), folder, runtime)


@pytest.fixture(autouse=True)
def tiny_clip(monkeypatch: pytest.MonkeyPatch, backbone: ClipBackbone, tmp_path: Path) -> None:
    # Decoded pictures are kept there.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("brewline.training.experiment.load_clip", lambda: backbone)


@pytest.mark.parametrize("rule", RULES)
def test_speech_learns_by_every_rule(rule: str, long: RecipeParams, tmp_path: Path) -> None:
    params = params_of(rule)
    _, trained = run(params, long, tmp_path / "work")
    losses = [row["loss"] for row in trained.history if "loss" in row]
    assert sum(losses[-5:]) < 0.9 * sum(losses[:5])
    names = {name for row in trained.history for name in row}
    assert "choice_margin" in names
    assert ("choice_entropy" in names) == (rule != "multiframe_clip")
    # What a report says of its row.
    words = {"random_frame": "a random one", "nearest": "the nearest", "multiframe_clip": "each"}
    expected = f"voice, no prompts, pictures in squares, paired with {words[rule]}"
    assert describe(params, "squares") == expected


def test_the_nearest_square_is_the_one_that_is_spoken_of(
    long: RecipeParams, tmp_path: Path
) -> None:
    task, trained = run(params_of("nearest"), long, tmp_path / "work")
    pairs = world()["train"]
    batch = task.collate([one for one, _ in pairs])
    assert batch.square_mask is not None
    assert batch.square_mask.shape == (16, 3)
    with torch.no_grad():
        rows = task.forward(trained.model, batch)
    chosen = torch.einsum("be,ble->bl", rows["utterances"], rows["images"]).argmax(dim=1)
    right = sum(int(one) == place for one, (_, place) in zip(chosen, pairs, strict=True))
    # By chance a third of 16 is right.
    assert right >= 13


def test_squares_are_those_that_are_seen_one_by_one(
    long: RecipeParams, backbone: ClipBackbone, tmp_path: Path
) -> None:
    """And a picture that has fewer is padded, and never paired with the padding."""
    task, _ = run(params_of("random_frame"), long.model_copy(update={"steps": 2}), tmp_path / "w")
    (utterance, _), *_ = world()["train"]
    batch = task.collate([utterance])
    picture = Image.open(io.BytesIO(utterance.image or b""))
    assert batch.image_embeddings is not None
    for place in range(3):
        square = picture.crop((place * IMAGE_SIZE, 0, (place + 1) * IMAGE_SIZE, IMAGE_SIZE))
        pixels = backbone.preprocess(square)[None]
        expected = torch.nn.functional.normalize(backbone.clip.encode_image(pixels), dim=-1)
        torch.testing.assert_close(batch.image_embeddings[0, place], expected[0], atol=1e-5, rtol=0)
    frozen = task._train_collator._frozen
    assert frozen is not None
    short = {image_id: image[:1] for image_id, image in frozen.images.items() if image_id == "i0"}
    task._train_collator._frozen = replace(frozen, images={**frozen.images, **short})
    batch = task.collate([one for one, _ in world()["train"]])
    assert batch.square_mask is not None
    assert batch.square_mask.sum(dim=1).tolist() == [1] + [3] * 15


def test_a_drawn_square_gives_the_loss_that_is_computed_by_hand(
    long: RecipeParams, tmp_path: Path
) -> None:
    task, trained = run(params_of("nearest"), long.model_copy(update={"steps": 2}), tmp_path / "w")
    model: Any = trained.model
    from brewline.core.ranks import ALONE
    from brewline.models.losses import pair_rows

    rows = task.forward(model, task.collate([one for one, _ in world()["train"]]))
    loss = task.loss(model, rows, ALONE, step=39)
    nearest = torch.stack(
        [
            image[(image @ one).argmax()]
            for one, image in zip(rows["utterances"], rows["images"], strict=True)
        ]
    )
    pairs = pair_rows(rows["image_ids"], "mask")
    expected = contrastive_loss(rows["utterances"], nearest, model.logit_scale, pairs)
    torch.testing.assert_close(loss.total, expected)


def test_parts_give_what_the_whole_gives(long: RecipeParams, tmp_path: Path) -> None:
    short = long.model_copy(update={"steps": 4})
    # What is drawn in a warm phase is drawn elsewhere, so there is none.
    for pairing in ({"rule": "nearest", "warm_phase": 0}, {"rule": "multiframe_clip"}):
        params, rule = params_of("nearest", pairing=pairing), pairing["rule"]
        _, whole = run(params, short, tmp_path / f"{rule}-whole")
        _, parts = run(params, short, tmp_path / f"{rule}-parts", part_size=3)
        # Adam makes large steps of gradients that are almost zero; losses tell of the others.
        expected, found = (
            [row["loss"] for row in one.history if "loss" in row] for one in (whole, parts)
        )
        assert found == pytest.approx(expected, rel=1e-3)


def test_cards_of_models_that_are_not_paired_say_what_they_said() -> None:
    switches = VariantParams(text="asr", prompts=4)
    assert "pairing" not in switches.model_dump()
    paired = params_of("nearest").variants["squares"]
    card = ModelCard(
        experiment="e", task="retrieval", corpus="c", variant="v", switches=paired, backbones={}
    )
    assert ModelCard.model_validate(card.model_dump()).switches == paired


@pytest.mark.parametrize(
    ("rule", "changes", "words"),
    [
        ("nearest", {"pictures": "crop"}, "squares of pictures; set pictures: multicrop"),
        ("nearest", {"prompts": 2}, "variants.squares.pairing: needs prompts: 0"),
        ("nearest", {"acoustic": None, "text": "asr"}, "it needs `acoustic`"),
        ("nearest", {"pairing": {"rule": "nearest"}}, "squares.pairing.warm_phase: is missing"),
        ("multiframe_segment", {}, "a recording has one vector, and no segments; take random_fra"),
    ],
)
def test_what_speech_cannot_be_paired_by_is_told(
    rule: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(BrewlineError, match=words):
        params_of(rule, **changes)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("task", "emotion", "'squares' pairs squares, for task retrieval with a recipe"),
        ("recipe", "sigmoid", "pairing has loss info_nce alone, not sigmoid"),
    ],
)
def test_where_it_does_not_belong_is_told(
    key: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = copy.deepcopy(VALUES)
    values["recipes"]["sigmoid"] = values["recipes"]["mini"] | {"loss": "sigmoid"}
    monkeypatch.setitem(globals(), "VALUES", values)
    values["variants"]["squares"] = params_of("nearest").variants["squares"].model_dump()
    one = params_of("nearest").experiments["squares"].model_dump(exclude_none=True)
    values["experiments"]["other"] = one | {key: value}
    with pytest.raises(BrewlineError, match=words):
        params_of("nearest")
