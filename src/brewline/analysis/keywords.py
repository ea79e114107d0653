"""The words that models hear in recordings whose acoustic branch says keywords (SpeechCLIP-C)."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from brewline.analysis.attention_maps import join_tokens
from brewline.analysis.attention_queries import read_samples
from brewline.analysis.inputs import TableInputs
from brewline.models.backbones import ClipBackbone
from brewline.models.card import load_backbone_hashes
from brewline.models.cascaded import CascadedBranch
from brewline.models.folder import load_model
from brewline.models.names import BACKBONES_FOLDER, NAMES_FILE
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator


@torch.no_grad()
def say_keywords(
    inputs: TableInputs, backbone: ClipBackbone, number: int, seed: int
) -> Iterator[dict[str, Any]]:
    """Yields recordings of test, by lot, with the keywords of the first model of each such row.

    Args:
        inputs: The table.
        backbone: The CLIP, whose words they are.
        number: How many recordings of each row.
        seed: Of the lot.

    Raises:
        BrewlineError: a model or a shard cannot be read.
    """
    lot = np.random.default_rng(seed).permutation(sorted(inputs.image_of))[:number].tolist()
    for row, one in inputs.rows.items():
        if not one.says_keywords:
            continue
        hashes = load_backbone_hashes(inputs.project / BACKBONES_FOLDER / NAMES_FILE)
        model, card = load_model(inputs.project / "models" / one.models[0], backbone, hashes)
        assert isinstance(model.acoustic, CascadedBranch)
        collator = Collator(input_transforms(backbone, card.switches), card.switches)
        shards = inputs.project / "data/shards" / inputs.corpus
        samples = read_samples(shards, card.states_folder(inputs.project), lot)
        batch = collator.utterance_inputs([samples[name] for name in lot])
        tokens = model.acoustic.keywords(*model.frames(batch))
        for name, said in zip(lot, tokens.tolist(), strict=True):
            yield {
                "row": row,
                "utterance_id": name,
                "image_id": inputs.image_of[name],
                "rank": inputs.ranks[row][0][name],
                "heard": samples[name].transcript,
                "keywords": [_word(backbone, token) for token in said],
            }


def _word(backbone: ClipBackbone, token: int) -> str:
    """A token as people read it, or the part of a word that it is."""
    words, _ = join_tokens(backbone.tokenizer, [token], np.ones(1))
    return words[0]
