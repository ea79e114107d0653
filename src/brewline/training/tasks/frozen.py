"""Towers without prompts, run once instead of at every step."""

from collections.abc import Iterable

import torch
from torch import Tensor

from brewline.models.brewclip import BrewClip
from brewline.samples.collator import Collator, FrozenFeatures, image_id_of
from brewline.samples.iteration import chunks
from brewline.samples.utterance import Utterance


@torch.no_grad()
def frozen_features(
    model: BrewClip, collator: Collator, utterances: Iterable[Utterance], batch_size: int
) -> FrozenFeatures:
    """Runs the towers that have no prompts over a split, once.

    The batches are those of the split's fixed order, so that a restart gets the same bits.

    Args:
        model: Without prompts.
        collator: Made for the same variant.
        utterances: The training split.
        batch_size: Utterances at a time.
    """
    device = model.log_logit_scale.device
    texts: dict[str, Tensor] = {}
    images: dict[str, Tensor] = {}
    for batch in chunks(iter(utterances), batch_size):
        if model.switches.text:
            features = model.encode_text(collator.utterance_inputs(batch).to(device)).cpu()
            texts |= zip((u.utterance_id for u in batch), features.unbind(), strict=True)
        new = {image_id_of(u): u for u in batch if u.image_id not in images}
        if new:
            pictures = collator.pictures(list(new.values())).to(device)
            if model.switches.pairing is None:
                images |= zip(new, model.encode_images(pictures).cpu().unbind(), strict=True)
            else:
                squares = torch.split(model.encode_squares(pictures).cpu(), pictures.num_squares())
                images |= zip(new, squares, strict=True)
    return FrozenFeatures(texts, images)
