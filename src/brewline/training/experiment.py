"""The training of an experiment's models, from their cards to finished folders."""

from pathlib import Path

from brewline.config import Params
from brewline.core.files import remove, sha256_tree, write_json
from brewline.models.backbones import load_clip
from brewline.models.card import ModelCard
from brewline.models.folder import Trained, load_tensors, save_model
from brewline.models.names import model_folder, model_name
from brewline.training.checkpoint import CHECKPOINT_FILE
from brewline.training.loop import TrainingData, TrainingJob
from brewline.training.start import FINISHED, MODEL
from brewline.training.tasks.retrieval import Retrieval

# By the names in `params.yaml`. Each is made of a variant, a recipe, the frozen CLIP and the memory
# for images in MB.
TASKS = {"retrieval": Retrieval}


def make_job(params: Params, card: ModelCard) -> TrainingJob:
    """What is to be trained for a card.

    Raises:
        BrewlineError: the backbone or the model to start from is missing or damaged.
    """
    one = params.experiments[card.experiment]
    recipe = params.recipes[one.recipe]
    assert recipe is not None and card.seed is not None
    task = TASKS[one.task](card.switches, recipe, load_clip(), params.runtime.image_cache_mb)
    start = None
    if card.init is not None:
        start = load_tensors(model_folder(card.init["experiment"], model_name(card.seed)))
    return TrainingJob(task, recipe, card.seed, start)


def read_data(card: ModelCard) -> TrainingData:
    """Reads what a card's model is trained on."""
    states = Path("data/states") / card.corpus if card.switches.acoustic else None
    return TrainingData.from_shards(Path("data/shards") / card.corpus, states)


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
