"""The utterances of a corpus as the vectors of each channel of a model."""

from collections.abc import Iterable

import numpy as np
import torch

from brewline.config.variants import VariantParams
from brewline.core.errors import BrewlineError
from brewline.evaluation.vectors import ACOUSTIC, FUSED, TEXT
from brewline.models.brewclip import BrewClip
from brewline.models.inputs import InputTransforms
from brewline.probing.inputs import CAPTION, CAPTION_FUSED
from brewline.samples.collator import Collator
from brewline.samples.iteration import chunks
from brewline.samples.utterance import Utterance
from brewline.tables.features import Features


@torch.no_grad()
def embed_utterances(
    model: BrewClip,
    transforms: InputTransforms,
    switches: VariantParams,
    utterances: Iterable[Utterance],
    batch_size: int,
) -> Features:
    """Embeds utterances in fp32, batch by batch; pictures are not looked at.

    Args:
        model: In evaluation mode, on the device to use.
        transforms: How it wants its inputs.
        switches: Its variant.
        utterances: In a fixed order.
        batch_size: Utterances at a time.

    Raises:
        BrewlineError: the model gives something else than numbers.
    """
    device = model.log_logit_scale.device
    collators = {"": Collator(transforms, switches)}
    if switches.text == "asr":
        captions = switches.model_copy(update={"text": "caption"})
        collators["caption"] = Collator(transforms, captions)
    ids: list[str] = []
    parts: dict[str, list[np.ndarray]] = {}
    for batch in chunks(iter(utterances), batch_size):
        ids += [utterance.utterance_id for utterance in batch]
        for said, collator in collators.items():
            if said and any(utterance.caption is None for utterance in batch):
                continue
            found = model.encode_utterances(collator.utterance_inputs(batch).to(device))
            named = {ACOUSTIC: found.acoustic, TEXT: found.text, FUSED: found.embeddings}
            if said:
                named = {CAPTION: found.text, CAPTION_FUSED: found.embeddings}
            for name, vectors in named.items():
                if vectors is not None:
                    parts.setdefault(name, []).append(vectors.cpu().numpy())
    arrays = {name: np.concatenate(batches) for name, batches in parts.items()}
    # Captions that only some recordings have say nothing of the corpus.
    arrays = {name: array for name, array in arrays.items() if len(array) == len(ids)}
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise BrewlineError(
            "the model's embeddings are not finite; lower the recipe's learning_rate", "settings"
        )
    return Features(ids, arrays)
