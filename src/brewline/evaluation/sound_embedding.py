"""A split of clips, as a model of sounds hears and sees it."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from brewline.core.errors import BrewlineError
from brewline.evaluation.sound_vectors import SoundEmbeddings
from brewline.evaluation.vectors import Embeddings
from brewline.models.sounds import SoundModel
from brewline.samples.iteration import chunks
from brewline.samples.shards import Utterance
from brewline.samples.sound_collator import SoundCollator


@torch.no_grad()
def embed_clips(
    model: SoundModel,
    collator: SoundCollator,
    clips: Iterable[Utterance],
    batch_size: int,
    embed_frames: Callable[[Sequence[Utterance]], Tensor] | None = None,
) -> SoundEmbeddings:
    """Embeds sounds, frames and captions in fp32, batch by batch; only vectors are kept.

    Args:
        model: In evaluation mode, on the device to use.
        collator: Made for the same variant.
        clips: In a fixed order.
        batch_size: Clips at a time.
        embed_frames: Gives the vectors of all frames of some clips, one after the other; None:
            frames are left out.

    Raises:
        BrewlineError: there are no clips, or the model gives something else than numbers.
    """
    size = model.embedding_size
    clip_ids: list[str] = []
    frame_clips: list[int] = []
    labels: list[list[str]] = []
    caption_clips: list[int] = []
    found: dict[str, list[Embeddings]] = {
        name: [np.zeros((0, size), np.float32)]
        for name in ("sounds", "frames", "segments", "captions")
    }
    for batch in chunks(iter(clips), batch_size):
        inputs = collator.sounds(batch)
        features = model.encode_sounds(inputs.to(model.device))
        found["sounds"].append(features.clips.cpu().numpy())
        pictured = torch.tensor([bool(clip.frames) for clip in batch])
        if embed_frames is not None and bool(pictured.any()):
            seen = embed_frames([clip for clip in batch if clip.frames])
            found["frames"].append(seen.cpu().numpy())
            own = inputs.frame_mask & pictured[:, None]
            found["segments"].append(features.segments.cpu()[own].numpy())
        texts = [caption for clip in batch for caption in clip.captions]
        if texts:
            token_ids = collator.tokens(texts).to(model.device)
            found["captions"].append(model.encode_texts(token_ids).cpu().numpy())
        for place, clip in enumerate(batch, len(clip_ids)):
            frames = clip.frames if embed_frames is not None else ()
            frame_clips += [place] * len(frames)
            labels += [_labels_at(clip, frame.time_s) for frame in frames]
            caption_clips += [place] * len(clip.captions)
        clip_ids += [clip.utterance_id for clip in batch]
    if not clip_ids:
        raise BrewlineError("the split has no clips to embed")
    arrays = {name: np.concatenate(parts) for name, parts in found.items()}
    if not all(np.isfinite(vectors).all() for vectors in arrays.values()):
        raise BrewlineError(
            "the model's embeddings are not finite; lower the recipe's learning_rate", "settings"
        )
    return SoundEmbeddings(
        clip_ids=clip_ids,
        frame_clips=frame_clips,
        frame_labels=labels,
        caption_clips=caption_clips,
        **arrays,
    )


def frame_embeddings(
    model: SoundModel, collator: SoundCollator, clips: Sequence[Utterance]
) -> Tensor:
    """Unit vectors of all frames of clips, one after the other, (frames, E)."""
    return model.encode_pictures(collator.pictures(clips).to(model.device))


def _labels_at(clip: Utterance, time_s: float) -> list[str]:
    """The events of a clip at a time."""
    return sorted({one.label for one in clip.events if one.start_s <= time_s < one.end_s})
