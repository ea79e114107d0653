"""A split as embeddings, and how well they find one another.

Embeddings travel with their ids: U utterances, I images, D dimension. Metric names are
`<split>/<direction>/<metric>`, values are fractions. Training chooses by these on dev.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from brewline.core.errors import BrewlineError
from brewline.evaluation.ranks import ByImage, Ranks, rank_embeddings, sum_by_image
from brewline.models.brewclip import BrewClip
from brewline.samples.collator import Collator, chunks, image_id_of
from brewline.samples.shards import Utterance

SELECTION_METRIC = "dev/mean_recall_at_1"

Embeddings = NDArray[np.float32]


@dataclass(frozen=True)
class SplitEmbeddings:
    """A split as unit vectors: every utterance (U, D), and every image once (I, D).

    Images stand in the order in which they were first met.
    """

    utterance_ids: list[str]
    utterance_image_ids: list[str]
    utterance_embeddings: Embeddings
    image_ids: list[str]
    image_embeddings: Embeddings


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
                "the model's embeddings are not finite; lower train.learning_rate", "settings"
            )
    return result


@dataclass(frozen=True)
class Measures:
    """The metrics of one model; `by_image` has what their intervals are computed from.

    `rank_of` is the rank of the right image by utterance id, on test.
    """

    metrics: dict[str, float]
    by_image: dict[str, ByImage] = field(default_factory=dict)
    rank_of: dict[str, int] = field(default_factory=dict)


def measure(embeddings: SplitEmbeddings, split: str, recall_at: Sequence[int]) -> Measures:
    """Computes the metrics of one split, both directions (BrewCLIP, section 4.2).

    Speech to image: every utterance asks for its image. Image to speech: every image asks for its
    utterances; `any_hit_recall_at_k` wants one of them in the top k (the paper's number),
    `recall_at_k` is the share of them there.
    """
    utterances, images = embeddings.utterance_embeddings, embeddings.image_embeddings
    image_of, image_ids = embeddings.utterance_image_ids, embeddings.image_ids
    forward = rank_embeddings(utterances, images, image_of, image_ids)
    backward = rank_embeddings(images, utterances, image_ids, image_of)
    s2i, i2s = f"{split}/speech_to_image", f"{split}/image_to_speech"
    by_image: dict[str, ByImage] = {}
    for k in recall_at:
        by_image[f"{s2i}/recall_at_{k}"] = sum_by_image(forward.any_hit(k), image_of)
        by_image[f"{i2s}/any_hit_recall_at_{k}"] = sum_by_image(backward.any_hit(k), image_ids)
        by_image[f"{i2s}/recall_at_{k}"] = sum_by_image(backward.fraction_found(k), image_ids)
    metrics = {name: table.mean for name, table in by_image.items()}
    metrics |= _sizes(s2i, forward) | _sizes(i2s, backward)
    if split == "dev":
        metrics[SELECTION_METRIC] = float(
            (forward.any_hit(1).mean() + backward.any_hit(1).mean()) / 2
        )
    rank_of = dict(zip(embeddings.utterance_ids, forward.best.tolist(), strict=True))
    return Measures(metrics, by_image, rank_of)


def _sizes(prefix: str, ranks: Ranks) -> dict[str, float]:
    return {
        f"{prefix}/median_rank": float(np.median(ranks.best)),
        f"{prefix}/num_queries": float(ranks.num_queries),
        f"{prefix}/gallery_size": float(ranks.gallery_size),
    }
