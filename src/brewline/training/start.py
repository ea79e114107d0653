"""What an experiment's models start from, and what of them is finished already; needs no torch."""

import shutil
from pathlib import Path
from typing import Any

from brewline.config import Params
from brewline.config.recipes import NONE
from brewline.core.files import read_partial_json, sha256_tree
from brewline.models.card import ModelCard, load_card, save_card
from brewline.models.names import TENSORS_FILE, model_folder, model_name, model_names

# A finished seed's model in its work folder, and the note that it is whole.
MODEL = "model"
FINISHED = "finished.json"


def start_from(init: str, card: ModelCard) -> ModelCard:
    """Adds to the card of a model which one it starts from: that of the same seed of `init`.

    Raises:
        BrewlineError: that one is missing.
    """
    if init == NONE:
        return card
    return card.model_copy(update={"init": _facts_of(init, model_name(card.seed))})


def _facts_of(experiment: str, name: str) -> dict[str, str]:
    folder = model_folder(experiment, name)
    load_card(folder)
    return {"experiment": experiment, "sha256": sha256_tree(folder)}


def take_over(params: Params, card: ModelCard, folder: Path) -> None:
    """Fills the folder of an experiment without a recipe.

    Args:
        params: The experiments.
        card: Of the experiment, before anything is trained.
        folder: Gets the models of the experiment that this one starts from, as they are, or the
            card alone where nothing was ever trained.

    Raises:
        BrewlineError: a model to start from is missing.
    """
    init = params.experiments[card.experiment].init
    if init == NONE:
        save_card(folder / model_name(None), card)
        return
    for name in model_names(params, init):
        source = model_folder(init, name)
        update: dict[str, Any] = {"experiment": card.experiment, "corpus": card.corpus}
        update["states"] = card.states
        update["init"] = _facts_of(init, name)
        save_card(folder / name, load_card(source).model_copy(update=update))
        shutil.copyfile(source / TENSORS_FILE, folder / name / TENSORS_FILE)


def finished_model(work: Path) -> Path | None:
    """The model that an earlier run kept, if it is whole."""
    folder = work / MODEL
    facts = read_partial_json(work / FINISHED, "this seed is trained anew")
    if not isinstance(facts, dict) or not folder.is_dir():
        return None
    return folder if facts.get("sha256") == sha256_tree(folder) else None
