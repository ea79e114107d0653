"""What models that were fine-tuned on emotions say of the recordings that their folds tested."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from brewline.core.errors import BrewlineError
from brewline.models.backbones import ClipBackbone
from brewline.models.card import load_card
from brewline.models.folder import load_emotion_model
from brewline.models.transforms import input_transforms
from brewline.probing.inputs import ANSWERED
from brewline.samples.collator import Collator
from brewline.samples.iteration import chunks
from brewline.tables.features import Features
from brewline.training.experiment import labelled_of
from brewline.training.fold_data import split_of


@torch.no_grad()
def answer_folds(
    folder: Path,
    backbone: ClipBackbone,
    hashes: Mapping[str, str],
    device: torch.device,
    batch_size: int,
) -> Features:
    """Asks the model of each fold about its own test.

    Args:
        folder: `models/<experiment>/seed-<n>`, with a folder for each fold.
        backbone: The CLIP to put the models on.
        hashes: Of the backbones in use, by role.
        device: Where to run them.
        batch_size: Recordings at a time.

    Returns:
        The recordings that some fold tests, with the number of the class that was said.

    Raises:
        BrewlineError: a model is missing or damaged, or a recording cannot be read.
    """
    ids: list[str] = []
    answers: list[np.ndarray] = []
    folds = sorted(folder.glob("fold-*"), key=lambda path: int(path.name.removeprefix("fold-")))
    if not folds:
        raise BrewlineError(f"{folder} has no folds; run `dvc repro train`")
    # All folds are cut from the same recordings.
    labelled = labelled_of(load_card(folds[0]))
    for place in folds:
        model, card = load_emotion_model(place, backbone, hashes)
        model = model.to(device)
        collator = Collator(input_transforms(backbone, card.switches), card.switches)
        tested = labelled.take(split_of(card, labelled.utterances).test)
        for rows in chunks(iter(tested), batch_size):
            logits = model(collator.utterance_inputs(rows).to(device))
            ids += [one.utterance_id for one in rows]
            answers.append(logits.argmax(dim=1).cpu().numpy().astype(np.float32))
    return Features(ids, {ANSWERED: np.concatenate(answers)})
