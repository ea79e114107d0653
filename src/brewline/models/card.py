"""The card of a model: `model.json`, which says what a folder of weights is a part of.

Nothing in it depends on the time or the machine. Reading and writing it needs no torch.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from brewline.config import Params
from brewline.config.recipes import NONE
from brewline.config.variants import VariantParams
from brewline.core.errors import BrewlineError
from brewline.core.files import read_json, write_json
from brewline.models.names import (
    BACKBONES_FOLDER,
    ENCODERS_FILE,
    NAMES_FILE,
    SOUNDS_FILE,
    model_name,
)

CARD_FILE = "model.json"
# What options that are no default do, in a few words.
_OPTIONS = {
    "unit_sum": "channels at unit length",
    "gate": "channels weighed by confidence",
    "chunk": "long texts in windows",
    "crop": "pictures cropped",
    "letterbox": "pictures with bars",
    "squash": "pictures squashed",
    "multicrop": "pictures in squares",
}
# With which of the squares of a picture recordings are paired.
_PAIRED = {"random_frame": "a random one", "nearest": "the nearest", "multiframe_clip": "each"}
_SOUNDS_BY = {"clip": "", "whisper": " by Whisper", "ast": " by AST", "clap": " by CLAP"}


class FineTuned(BaseModel):
    """Which fold of which protocol a model of task `emotion` is of; `classes` in their order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    labels: str
    protocol: str
    speaker_folds: int
    # Whether recordings were changed a little in training.
    augment: bool = False
    fold: int
    classes: list[str]


class ModelCard(BaseModel):
    """What `model.json` says.

    `corpus` is what the experiment measures on, `trained_on` what the weights come from: another
    corpus where models were taken over, None where nothing was trained. `states` names what it
    hears, below `data/states/`; None without an acoustic channel. `backbones` are SHA-256 by role;
    `whisper` is None where nothing of the model came through it. `seed`, `best_step` and
    `recipe` are None where nothing was trained; `recipe` lacks the seeds. `init` is the experiment
    that it started from, with the SHA-256 of the model. `data` has the digests of what it was
    trained on: of the indices of its shards and, with an acoustic channel, of its states, which
    name each shard by its hash. `fine_tuned` is of task `emotion`, where something was trained.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: str
    task: str
    corpus: str
    trained_on: str | None = None
    states: str | None = None
    variant: str
    switches: VariantParams
    backbones: dict[str, str | None]
    seed: int | None = None
    num_trained_parameters: int = 0
    best_step: int | None = None
    dev: dict[str, float] = {}
    recipe: dict[str, Any] | None = None
    init: dict[str, str] | None = None
    data: dict[str, str] = {}
    fine_tuned: FineTuned | None = None

    def states_folder(self, project: Path = Path()) -> Path | None:
        """The encoder states that it hears on its corpus, if any."""
        return None if self.states is None else project / "data/states" / self.states

    @property
    def place(self) -> Path:
        """Its folder below that of the experiment: one for each seed, and for each fold in it."""
        folder = Path(model_name(self.seed))
        return folder / f"fold-{self.fine_tuned.fold}" if self.fine_tuned else folder


def new_card(params: Params, experiment: str, hashes: Mapping[str, str]) -> ModelCard:
    """The card of an experiment's models before anything is trained.

    Args:
        params: What the experiment consists of.
        experiment: Its name.
        hashes: The backbones in use, by role.
    """
    one = params.experiments[experiment]
    switches, recipe = params.variants[one.variant], params.recipes[one.recipe]
    return ModelCard(
        experiment=experiment,
        task=one.task,
        corpus=one.data,
        trained_on=None if one.recipe == NONE else one.data,
        states=None if one.states == NONE else one.states,
        variant=one.variant,
        switches=switches,
        backbones=needed_backbones(switches, hashes),
        recipe=recipe.model_dump(exclude={"seeds"}) if recipe else None,
    )


def load_backbone_hashes(path: Path = BACKBONES_FOLDER / NAMES_FILE) -> dict[str, str]:
    """Reads which weights the pipeline uses: the SHA-256 of each backbone by its role.

    Args:
        path: `backbones.json`; beside it lie `encoders.json` and `sounds.json`.

    Raises:
        BrewlineError: the file is missing or not what stage `weights` writes.
    """
    beside = [path.with_name(name) for name in (ENCODERS_FILE, SOUNDS_FILE)]
    try:
        names = read_json(path)
        for other in beside:
            names |= read_json(other) if other.exists() else {}
        return {role: str(entry["sha256"]) for role, entry in names.items()}
    except FileNotFoundError:
        raise BrewlineError(f"{path} is missing; run `dvc repro weights`") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BrewlineError(f"{path} is damaged; run `dvc repro --force weights`") from None


def needed_backbones(switches: VariantParams, hashes: Mapping[str, str]) -> dict[str, str | None]:
    """The backbones that a variant rests on: CLIP always, and what it hears with."""
    ears = switches.acoustic or switches.sound
    encoder = ears.encoder if ears else None
    by_whisper = switches.text == "asr" or encoder in ("whisper", "whisper_layers")
    needed = {"clip": hashes["clip"], "whisper": hashes["whisper"] if by_whisper else None}
    return needed | ({encoder: hashes[encoder]} if encoder in ("hubert", "ast", "clap") else {})


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


def describe(params: Params, experiment: str) -> str:
    """Says in a few words what the models of an experiment are made of, and saw in training."""
    if experiment in params.external:
        return f"computed by others, from {params.external[experiment].reads}"
    one, variant = params.experiments[experiment], params.variant_of(experiment)
    read = {"asr": ["transcripts"], "caption": ["captions"], None: []}[variant.text]
    channels = " and ".join([*read, *_heard(variant)])
    options = [
        _OPTIONS[key]
        for key in (variant.fusion, variant.long_texts, variant.pictures)
        if key in _OPTIONS
    ]
    source = params.trained_on(experiment)
    if variant.pairing is not None:
        options.append(f"paired with {_PAIRED[variant.pairing.rule]}")
    if source is None:
        return ", ".join([channels, *options, "nothing trained"])
    elsewhere = [] if source == one.data else [f"trained on {source}"]
    if variant.sound:
        return ", ".join([channels, *options, *elsewhere])
    prompts = f"{variant.prompts} prompts" if variant.prompts else "no prompts"
    if variant.prompt_depth > 1:
        prompts += f" in each of {variant.prompt_depth} layers"
    return ", ".join([channels, prompts, *options, *elsewhere])


def _heard(variant: VariantParams) -> list[str]:
    """What is heard, in a few words."""
    if variant.sound is not None:
        rule = variant.sound.pairing.rule.replace("_", " ")
        return [f"sounds{_SOUNDS_BY[variant.sound.encoder]}, {rule}"]
    acoustic = variant.acoustic
    if acoustic is None:
        return []
    by = {"whisper": "", "whisper_layers": " by Whisper's layers", "hubert": " by HuBERT"}
    heard = f"voice{by[acoustic.encoder]}"
    return [f"{heard} in {acoustic.keywords} keywords" if acoustic.keywords else heard]


def flatten(values: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    """The values of nested sections by their dotted names."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", value
