"""A split of clips, as a model of sounds hears and sees it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from torch import Tensor

from brewline.core.errors import BrewlineError
from brewline.evaluation.sound_vectors import SoundEmbeddings
from brewline.evaluation.vectors import Embeddings
from brewline.models.sounds import SoundModel
from brewline.samples.iteration import chunks
from brewline.samples.sound_collator import SoundCollator
from brewline.samples.utterance import Utterance


@dataclass
class _Parts:
    """What becomes `SoundEmbeddings`, batch by batch."""

    size: int
    clip_ids: list[str] = field(default_factory=list)
    frame_clips: list[int] = field(default_factory=list)
    frame_labels: list[list[str]] = field(default_factory=list)
    caption_clips: list[int] = field(default_factory=list)
    vectors: dict[str, list[Embeddings]] = field(default_factory=dict)

    def add(self, name: str, rows: Tensor) -> None:
        self.vectors.setdefault(name, []).append(rows.cpu().numpy())

    def add_facts(self, clips: Sequence[Utterance], with_frames: bool) -> None:
        for place, clip in enumerate(clips, len(self.clip_ids)):
            frames = clip.frames if with_frames else ()
            self.frame_clips += [place] * len(frames)
            self.frame_labels += [_labels_at(clip, frame.time_s) for frame in frames]
            self.caption_clips += [place] * len(clip.captions)
        self.clip_ids += [clip.utterance_id for clip in clips]

    def joined(self, name: str) -> Embeddings:
        nothing = np.zeros((0, self.size), np.float32)
        return np.concatenate([nothing, *self.vectors.get(name, [])])


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
    parts = _Parts(model.embedding_size)
    for batch in chunks(iter(clips), batch_size):
        inputs = collator.sounds(batch)
        features = model.encode_sounds(inputs.to(model.device))
        parts.add("sounds", features.clips)
        pictured = torch.tensor([bool(clip.frames) for clip in batch])
        if embed_frames is not None and bool(pictured.any()):
            parts.add("frames", embed_frames([clip for clip in batch if clip.frames]))
            own = inputs.frame_mask & pictured[:, None]
            parts.add("segments", features.segments.cpu()[own])
        texts = [caption for clip in batch for caption in clip.captions]
        if texts:
            token_ids = collator.tokens(texts).to(model.device)
            parts.add("captions", model.encode_texts(token_ids))
        parts.add_facts(batch, embed_frames is not None)
    if not parts.clip_ids:
        raise BrewlineError("the split has no clips to embed")
    found = SoundEmbeddings(
        clip_ids=parts.clip_ids,
        sounds=parts.joined("sounds"),
        frame_clips=parts.frame_clips,
        frames=parts.joined("frames"),
        segments=parts.joined("segments"),
        frame_labels=parts.frame_labels,
        caption_clips=parts.caption_clips,
        captions=parts.joined("captions"),
    )
    for vectors in (found.sounds, found.frames, found.segments, found.captions):
        if not np.isfinite(vectors).all():
            raise BrewlineError(
                "the model's embeddings are not finite; lower the recipe's learning_rate",
                "settings",
            )
    return found


def embed_splits(
    model: SoundModel,
    collator: SoundCollator,
    splits: Mapping[str, Iterable[Utterance]],
    batch_size: int,
) -> dict[str, SoundEmbeddings]:
    """Embeds splits by their names, with their frames; see `embed_clips`."""
    frames = partial(frame_embeddings, model, collator)
    return {
        name: embed_clips(model, collator, clips, batch_size, frames)
        for name, clips in splits.items()
    }


@torch.no_grad()
def frame_embeddings(
    model: SoundModel, collator: SoundCollator, clips: Sequence[Utterance]
) -> Tensor:
    """Unit vectors of all frames of clips, one after the other, (frames, E)."""
    return model.encode_pictures(collator.pictures(clips).to(model.device))


def _labels_at(clip: Utterance, time_s: float) -> list[str]:
    """The events of a clip at a time."""
    return sorted({one.label for one in clip.events if one.start_s <= time_s < one.end_s})
