"""A trained model as a folder: what was learned, and a card that says of what it is a part.

    model.json          the card: switches, sizes, the backbones' hashes, results on dev
    model.safetensors   the trained tensors alone; absent where nothing was trained
    history.jsonl       training and dev rows; absent where nothing was trained
    skipped_samples.json  what training could not read, and why; absent where it read everything

Nothing in it depends on the time or the machine.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path, write_json
from brewline.models.backbones import ClipBackbone
from brewline.models.brewclip import BrewClip, state_shape_of
from brewline.models.card import ModelCard, load_card, save_card
from brewline.models.emotion import EmotionModel, brewclip_tensors
from brewline.models.names import SKIPPED_FILE, TENSORS_FILE
from brewline.models.sounds import SoundModel, trains_text
from brewline.models.trained import TrainedModule

HISTORY_FILE = "history.jsonl"

Row = dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """What training ends in: the model as it was at its best on dev, on the processor.

    `dev` are the metrics of that step, `history` all rows for `history.jsonl`; `skipped` says of
    samples that could not be read why, by their ids.
    """

    model: TrainedModule
    best_step: int
    dev: dict[str, float]
    history: list[Row]
    skipped: dict[str, str] = field(default_factory=dict)


def save_model(folder: Path, card: ModelCard, trained: Trained) -> None:
    """Writes a trained model's folder, whole or not at all.

    Args:
        folder: `models/<experiment>/seed-<n>`, or wherever it is kept until then.
        card: What was trained, on what; its results are filled in from `trained`.
        trained: What came out.
    """
    results = {
        "num_trained_parameters": trained.model.num_trained_parameters,
        "best_step": trained.best_step,
        "dev": trained.dev,
    }
    with atomic_path(folder) as partial:
        partial.mkdir()
        save_card(partial, card.model_copy(update=results))
        save_file(trained.model.trained_tensors(), partial / TENSORS_FILE)
        rows = "".join(json.dumps(row, sort_keys=True) + "\n" for row in trained.history)
        (partial / HISTORY_FILE).write_text(rows, encoding="utf-8")
        if trained.skipped:
            write_json(partial / SKIPPED_FILE, trained.skipped)


def load_model(
    folder: Path, backbone: ClipBackbone, backbone_hashes: Mapping[str, str]
) -> tuple[BrewClip, ModelCard]:
    """Loads a model on the processor, ready to embed.

    Args:
        folder: What `save_model` wrote, or a card alone where nothing was trained.
        backbone: The CLIP to put it on.
        backbone_hashes: The hashes of the backbones in use, by role.

    Raises:
        BrewlineError: a file is missing or damaged, or the model was trained on other backbones.
    """
    card = _card_for(folder, backbone_hashes)
    if card.switches.sound is not None:
        raise BrewlineError(
            f"{folder} hears sounds, which have frames and captions and no transcript: what is "
            "served, registered and exported are models of speech; `brewline search` takes it",
            "settings",
        )
    tensors = {} if card.recipe is None else load_tensors(folder)
    try:
        model = _make_brewclip(card, tensors, backbone)
        model.load_trained_tensors(tensors)
    except ValueError as error:
        raise BrewlineError(f"{folder} does not fit its own card: {error}") from None
    return model, card


def load_emotion_model(
    folder: Path, backbone: ClipBackbone, backbone_hashes: Mapping[str, str]
) -> tuple[EmotionModel, ModelCard]:
    """Loads the model of a fold of task `emotion`; see `load_model`."""
    card, tensors = _card_for(folder, backbone_hashes), load_tensors(folder)
    if card.fine_tuned is None:
        raise BrewlineError(f"{folder} was not trained on emotions; run `dvc repro`")
    try:
        brewclip = _make_brewclip(card, brewclip_tensors(tensors), backbone)
        num_classes = len(card.fine_tuned.classes)
        model = EmotionModel(brewclip, backbone.embedding_size, num_classes)
        model.load_trained_tensors(tensors)
    except ValueError as error:
        raise BrewlineError(f"{folder} does not fit its own card: {error}") from None
    return model, card


def load_sound_model(
    folder: Path, backbone: ClipBackbone, backbone_hashes: Mapping[str, str]
) -> tuple[SoundModel, ModelCard]:
    """Loads a model of sounds; see `load_model`."""
    card, tensors = _card_for(folder, backbone_hashes), load_tensors(folder)
    if card.recipe is None or card.switches.sound is None:
        raise BrewlineError(f"{folder} holds no trained model of sounds; run `dvc repro`")
    try:
        model = SoundModel(
            backbone,
            card.switches,
            card.recipe["temperature"],
            card.recipe["learn_temperature"],
            train_text=trains_text(card.task, card.switches.sound),
        )
        model.load_trained_tensors(tensors)
    except ValueError as error:
        raise BrewlineError(f"{folder} does not fit its own card: {error}") from None
    return model, card


def _card_for(folder: Path, backbone_hashes: Mapping[str, str]) -> ModelCard:
    """The card of a model, which has to be of the backbones in use."""
    card = load_card(folder)
    for role, expected in card.backbones.items():
        if expected is not None and backbone_hashes.get(role) != expected:
            raise BrewlineError(
                f"{folder} was trained on the {role} weights {expected}, but the ones in use are "
                f"{backbone_hashes.get(role)}; train it again with `dvc repro`, or put back the "
                f"{role} in params.yaml"
            )
    return card


def _make_brewclip(
    card: ModelCard, tensors: Mapping[str, Tensor], backbone: ClipBackbone
) -> BrewClip:
    """A model as the card says, whose tensors are yet to be set; they tell the shape of states."""
    acoustic = card.switches.acoustic
    state_shape = state_shape_of(tensors, acoustic) if acoustic and tensors else None
    # One that was learned is among the tensors; one that was fixed stands in the card alone.
    temperature = {} if card.recipe is None else {"temperature": card.recipe["temperature"]}
    return BrewClip(
        backbone,
        card.switches,
        state_shape,
        learn_temperature=bool(card.recipe and card.recipe["learn_temperature"]),
        with_bias=bool(card.recipe and card.recipe["loss"] == "sigmoid"),
        **temperature,
    )


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """Reads what was learned.

    Raises:
        BrewlineError: the file is missing or damaged.
    """
    path = folder / TENSORS_FILE
    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise BrewlineError(f"{path} is missing or damaged: {error}") from None
    return tensors
