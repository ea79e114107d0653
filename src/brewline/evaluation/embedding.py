"""A split of a corpus, as a model sees it: its utterances and its images as unit vectors."""

from collections.abc import Iterable

import numpy as np
import torch

from brewline.core.errors import BrewlineError
from brewline.evaluation.vectors import ACOUSTIC, TEXT, Embeddings, SplitEmbeddings
from brewline.models.brewclip import BrewClip, UtteranceFeatures
from brewline.samples.collator import Collator, image_id_of
from brewline.samples.iteration import chunks
from brewline.samples.utterance import Utterance


@torch.no_grad()
def embed_split(
    model: BrewClip,
    collator: Collator,
    utterances: Iterable[Utterance],
    batch_size: int,
    keep_channels: bool = False,
) -> SplitEmbeddings:
    """Embeds a split in fp32, batch by batch; only embeddings and ids are kept.

    Args:
        model: In evaluation mode, on the device to use.
        collator: Made for the same variant.
        utterances: The split, in a fixed order.
        batch_size: Utterances, and images, at a time.
        keep_channels: Whether both channels are kept too, of a model that has two.

    Raises:
        BrewlineError: there are no utterances, or the model gives something else than numbers.
    """
    device = model.log_logit_scale.device
    ids: list[str] = []
    image_of: list[str] = []
    spoken: list[Embeddings] = []
    channels: dict[str, list[Embeddings]] = {}
    seen: list[Embeddings] = []
    known: dict[str, None] = {}
    waiting: list[Utterance] = []

    def flush() -> None:
        if waiting:
            images = collator.frozen_images(waiting)
            if images is None:
                images = model.encode_images(collator.pictures(waiting).to(device)).cpu()
            seen.append(images.numpy())
            waiting.clear()

    for batch in chunks(iter(utterances), batch_size):
        inputs = collator.utterance_inputs(batch).to(device)
        features = model.encode_utterances(inputs)
        spoken.append(features.embeddings.cpu().numpy())
        for name, vectors in _channels(features).items() if keep_channels else ():
            channels.setdefault(name, []).append(vectors)
        for utterance in batch:
            image_id = image_id_of(utterance)
            ids.append(utterance.utterance_id)
            image_of.append(image_id)
            if image_id not in known:
                known[image_id] = None
                waiting.append(utterance)
                if len(waiting) == batch_size:
                    flush()
    flush()
    if not ids:
        raise BrewlineError("the split has no utterances to embed")
    joined = {name: np.concatenate(batches) for name, batches in channels.items()}
    result = SplitEmbeddings(
        ids, image_of, np.concatenate(spoken), list(known), np.concatenate(seen), joined
    )
    _require_finite(result)
    return result


def _channels(features: UtteranceFeatures) -> dict[str, Embeddings]:
    """Both channels of utterances; none of a model that has one."""
    if features.acoustic is None or features.text is None:
        return {}
    return {
        ACOUSTIC: features.acoustic.cpu().numpy(),
        TEXT: features.text.float().cpu().numpy(),
    }


def _require_finite(split: SplitEmbeddings) -> None:
    for embeddings in (split.utterance_embeddings, split.image_embeddings):
        if not np.isfinite(embeddings).all():
            raise BrewlineError(
                "the model's embeddings are not finite; lower the recipe's learning_rate",
                "settings",
            )
