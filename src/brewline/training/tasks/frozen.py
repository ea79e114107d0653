"""Towers without prompts, run once instead of at every step."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from brewline.evaluation.vectors import TEXT, SplitEmbeddings
from brewline.models.brewclip import BrewClip
from brewline.models.inputs import PictureInputs
from brewline.samples.collator import Collator, FrozenFeatures, image_id_of
from brewline.samples.iteration import chunks, make_of_good
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
    damaged: dict[str, str] = {}
    for batch in chunks(iter(utterances), batch_size):
        if model.switches.text:
            features = model.encode_text(collator.text_inputs(batch).to(device)).cpu()
            texts |= zip((u.utterance_id for u in batch), features.unbind(), strict=True)
        seen = images.keys() | damaged.keys()
        new = {image_id_of(u): u for u in batch if u.image_id not in seen}
        pictures, good, bad = make_of_good(collator.pictures, [*new.values()])
        damaged |= {key: bad[u.utterance_id] for key, u in new.items() if u.utterance_id in bad}
        if pictures:
            embedded = _embedded(model, pictures.to(device))
            images |= zip(map(image_id_of, good), embedded, strict=True)
    return FrozenFeatures(texts, images, damaged)


def _embedded(model: BrewClip, pictures: PictureInputs) -> Sequence[Tensor]:
    """The unit embedding (E) of each image or, where they are paired, those of its squares."""
    if model.switches.pairing is None:
        return model.encode_images(pictures).cpu().unbind()
    return torch.split(model.encode_squares(pictures).cpu(), pictures.num_squares())


def features_of(embeddings: SplitEmbeddings) -> FrozenFeatures:
    """What towers without prompts gave when a split was embedded.

    Args:
        embeddings: With both channels, where the model has two.
    """
    texts = torch.from_numpy(embeddings.channels[TEXT]) if TEXT in embeddings.channels else ()
    images = torch.from_numpy(embeddings.image_embeddings)
    return FrozenFeatures(
        dict(zip(embeddings.utterance_ids, texts, strict=bool(len(texts)))),
        dict(zip(embeddings.image_ids, images, strict=True)),
    )
