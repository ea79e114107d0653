"""A split of a corpus, as a model sees it: its utterances and its images as unit vectors."""

from collections.abc import Iterable

import numpy as np
import torch

from brewline.core.errors import BrewlineError
from brewline.evaluation.vectors import Embeddings, SplitEmbeddings
from brewline.models.brewclip import BrewClip
from brewline.samples.collator import Collator, image_id_of
from brewline.samples.iteration import chunks
from brewline.samples.shards import Utterance


@torch.no_grad()
def embed_split(
    model: BrewClip, collator: Collator, utterances: Iterable[Utterance], batch_size: int
) -> SplitEmbeddings:
    """Embeds a split in fp32, batch by batch; only embeddings and ids are kept.

    Args:
        model: In evaluation mode, on the device to use.
        collator: Made for the same variant.
        utterances: The split, in a fixed order.
        batch_size: Utterances, and images, at a time.

    Raises:
        BrewlineError: there are no utterances, or the model gives something else than numbers.
    """
    device = model.log_logit_scale.device
    ids: list[str] = []
    image_of: list[str] = []
    spoken: list[Embeddings] = []
    seen: list[Embeddings] = []
    known: dict[str, None] = {}
    waiting: list[Utterance] = []

    def flush() -> None:
        if waiting:
            pixels = collator.pixels(waiting).to(device)
            seen.append(model.encode_images(pixels).cpu().numpy())
            waiting.clear()

    for batch in chunks(iter(utterances), batch_size):
        inputs = collator.utterance_inputs(batch).to(device)
        spoken.append(model.encode_utterances(inputs).embeddings.cpu().numpy())
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
    result = SplitEmbeddings(
        ids, image_of, np.concatenate(spoken), list(known), np.concatenate(seen)
    )
    for embeddings in (result.utterance_embeddings, result.image_embeddings):
        if not np.isfinite(embeddings).all():
            raise BrewlineError(
                "the model's embeddings are not finite; lower the recipe's learning_rate",
                "settings",
            )
    return result
