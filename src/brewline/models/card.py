"""The card of a model: `model.json`, which says what a folder of weights is a part of.

Nothing in it depends on the time or the machine. Reading and writing it needs no torch.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from brewline.config.models import AcousticParams, VariantParams
from brewline.config.train import TrainParams
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json, write_json
from brewline.models.names import BACKBONES_FOLDER, NAMES_FILE

CARD_FILE = "model.json"


class ModelCard(BaseModel):
    """What `model.json` says.

    `backbones` are SHA-256 by role; `whisper` is None where nothing of the model came through it.
    `seed`, `best_step` and `train` are None where nothing was trained; `train` holds the settings
    that apply to the variant. `data` has the digests of what it was trained on: of the indices of
    its shards and, with an acoustic channel, of its states, which name each shard by its hash.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: str
    variant: str
    switches: VariantParams
    backbones: dict[str, str | None]
    acoustic: AcousticParams | None = None
    seed: int | None = None
    num_trained_parameters: int = 0
    best_step: int | None = None
    dev: dict[str, float] = {}
    train: dict[str, Any] | None = None
    data: dict[str, str] = {}


def load_backbone_hashes(path: Path = BACKBONES_FOLDER / NAMES_FILE) -> dict[str, str]:
    """Reads which weights the pipeline uses: the SHA-256 of each backbone by its role.

    Raises:
        BrewlineError: the file is missing or not what stage `weights` writes.
    """
    try:
        return {role: str(entry["sha256"]) for role, entry in read_json(path).items()}
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; run `dvc repro weights`") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BrewlineError(f"{path} is damaged; run `dvc repro --force weights`") from None


def needed_backbones(switches: VariantParams, hashes: Mapping[str, str]) -> dict[str, str | None]:
    """The backbones that a variant rests on: CLIP always, Whisper unless it reads captions only."""
    hears = switches.acoustic or switches.transcript == "asr"
    return {"clip": hashes["clip"], "whisper": hashes["whisper"] if hears else None}


def settings_that_apply(settings: TrainParams, switches: VariantParams) -> dict[str, Any]:
    """The training settings that can change a variant's weights, for one seed.

    Alpha weighs a loss between two channels, so it says nothing about a model that has one.
    """
    unused = {"seeds"} if switches.text and switches.acoustic else {"seeds", "alpha"}
    return settings.model_dump(exclude=unused)


def save_card(folder: Path, card: ModelCard) -> None:
    """Writes `model.json` into `folder`, which is made if it is new."""
    write_json(folder / CARD_FILE, card.model_dump())


def load_card(folder: Path) -> ModelCard:
    """Reads `model.json`.

    Raises:
        BrewlineError: it is missing or damaged.
    """
    path = folder / CARD_FILE
    try:
        return ModelCard.model_validate(read_json(path))
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; run `dvc repro`") from None
    except (ValueError, ValidationError) as error:
        raise BrewlineError(f"{path} is not the card of a model: {error}") from None


def describe_variant(variant: VariantParams) -> str:
    """Says in a few words what a variant is made of."""
    channels = [
        *(["captions" if variant.transcript == "caption" else "transcripts"] * variant.text),
        *(["voice"] * variant.acoustic),
    ]
    trained = f"{variant.prompts} prompts" if variant.prompts else "no prompts"
    return f"{' and '.join(channels)}, {trained if variant.trained else 'nothing trained'}"
