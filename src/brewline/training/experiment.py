"""The training of an experiment's models, from their cards to finished folders."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from brewline.config import Params
from brewline.config.recipes import RecipeParams
from brewline.core.files import FRAMES_FOLDER, fingerprint, remove, sha256_tree, write_json
from brewline.models.backbones import load_clip
from brewline.models.card import ModelCard
from brewline.models.folder import Trained, load_tensors, save_model
from brewline.models.names import model_folder, model_name
from brewline.samples.decoded_pictures import shared_pictures
from brewline.samples.shards import index_digest
from brewline.training.checkpoint import CHECKPOINT_FILE
from brewline.training.fold_data import Labelled, fold_cards, fold_data, read_labelled, split_of
from brewline.training.loop import TrainingData, TrainingJob
from brewline.training.start import FINISHED, MODEL, start_from
from brewline.training.task import Task
from brewline.training.tasks.audio_image import AudioImage
from brewline.training.tasks.audio_text import AudioText
from brewline.training.tasks.emotion import Emotion
from brewline.training.tasks.retrieval import Retrieval

_Maker = Callable[[Params, ModelCard, RecipeParams], Task[Any]]


def _retrieval(params: Params, card: ModelCard, recipe: RecipeParams) -> Retrieval:
    backbone, views = load_clip(), card.switches.pictures
    side, max_mb = backbone.image_size, params.runtime.image_cache_mb
    decoded = shared_pictures(card.backbones["clip"], views, card.data["shards"], side, max_mb)
    return Retrieval(card.switches, recipe, backbone, decoded)


def _emotion(params: Params, card: ModelCard, recipe: RecipeParams) -> Emotion:
    tuned = card.fine_tuned
    assert tuned is not None
    return Emotion(card.switches, recipe, load_clip(), tuned.labels, tuned.classes)


def _audio_image(params: Params, card: ModelCard, recipe: RecipeParams) -> AudioImage:
    # Of one CLIP and the same pictures all seeds and rules share the vectors.
    name = fingerprint(2, [card.backbones["clip"], card.switches.pictures, card.data["shards"]], [])
    backbone, cache_mb = load_clip(), params.runtime.image_cache_mb
    return AudioImage(card.switches, recipe, backbone, FRAMES_FOLDER / name, cache_mb)


def _audio_text(params: Params, card: ModelCard, recipe: RecipeParams) -> AudioText:
    return AudioText(card.switches, recipe, load_clip(), params.runtime.image_cache_mb)


# By the names in `params.yaml`: how each is made for a model.
TASKS: Mapping[str, _Maker] = {
    "retrieval": _retrieval,
    "emotion": _emotion,
    "audio_image": _audio_image,
    "audio_text": _audio_text,
}


def cards_to_train(params: Params, card: ModelCard) -> Iterator[ModelCard]:
    """The cards of the models of each seed: of task `emotion` one for each fold, else one.

    Raises:
        BrewlineError: a model to start from is missing, the corpus has no emotions, or its speakers
            do not fit the protocol.
    """
    one = params.experiments[card.experiment]
    tuning = one.fine_tuning
    utterances = read_labelled(*_places(card), tuning.labels).utterances if tuning else []
    for seed in params.seeds_of_recipe(one.recipe):
        own = start_from(one.init, card.model_copy(update={"seed": seed}))
        yield from fold_cards(own, tuning, utterances) if tuning else [own]


def data_digests(card: ModelCard) -> dict[str, str]:
    """The digests of the indices of what a card's models are trained on, by kind of data.

    Raises:
        BrewlineError: an index is missing.
    """
    folders = _places(card)
    return {folder.parent.name: index_digest(folder) for folder in folders if folder}


def labelled_of(card: ModelCard) -> Labelled:
    """The recordings that a fine-tuned model's folds are cut from."""
    assert card.fine_tuned is not None
    return read_labelled(*_places(card), card.fine_tuned.labels)


def make_job(params: Params, card: ModelCard) -> TrainingJob:
    """What is to be trained for a card.

    Raises:
        BrewlineError: the backbone or the model to start from is missing or damaged.
    """
    one = params.experiments[card.experiment]
    recipe = params.recipes[one.recipe]
    assert recipe is not None and card.seed is not None
    task = TASKS[one.task](params, card, recipe)
    start = None
    if card.init is not None:
        start = load_tensors(model_folder(card.init["experiment"], model_name(card.seed)))
    return TrainingJob(task, recipe, card.seed, start)


def read_data(card: ModelCard) -> TrainingData:
    """Reads what a card's model is trained on."""
    if card.fine_tuned is None:
        return TrainingData.from_shards(*_places(card))
    labelled = labelled_of(card)
    return fold_data(labelled, split_of(card, labelled.utterances))


def _places(card: ModelCard) -> tuple[Path, Path | None]:
    """The shards of a card's corpus, and its states where the model hears them."""
    return Path("data/shards") / card.corpus, card.states_folder()


def keep(work: Path, card: ModelCard, trained: Trained) -> Path:
    """Keeps a trained model in its work folder; returns its place there."""
    folder = work / MODEL
    save_model(folder, card, trained)
    return folder


def mark_finished(work: Path) -> None:
    """Notes that the seed of a work folder is finished, for a later run with more seeds.

    What a restart would need is removed: it is several times as large.
    """
    write_json(work / FINISHED, {"sha256": sha256_tree(work / MODEL)})
    remove(work / CHECKPOINT_FILE)
