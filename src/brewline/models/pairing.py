"""How clips are paired with their frames: rules that say which pairs one InfoNCE contrasts.

Three of them are those of Tsubaki et al., 2024: a random frame, the nearest one, and all of them.
Of the last it is not known what exactly is meant, so there are two: each segment of a sound with
the frame of its time, and the whole sound with each frame.

Shapes: B clips of this process, L frames of a clip, E embedding size, R rows of the loss, M those
of all processes.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from brewline.config.sounds import PairingParams
from brewline.core.ranks import ALONE, Ranks
from brewline.models.losses import Pairs, pair_rows


@dataclass(frozen=True)
class ClipVectors:
    """A batch of clips as unit vectors.

    `clips` (B, E) and `segments` (B, L, E), of a rule that needs them, are of sounds, `frames`
    (B, L, E) of pictures;
    `frame_mask` (B, L) is True where there is one, and `clip_ids` (B,) are equal for equal clips.
    """

    clips: Tensor
    segments: Tensor | None
    frames: Tensor
    frame_mask: Tensor
    clip_ids: Tensor


@dataclass(frozen=True)
class Paired:
    """Rows of sounds (R, E), and of frames (R, E), and which of them belong together.

    `chosen` (B,) is the frame that stands for each clip, where one does.
    """

    sounds: Tensor
    frames: Tensor
    pairs: Pairs
    chosen: Tensor | None = None


def pair_clips(
    vectors: ClipVectors, params: PairingParams, is_warm: bool, ranks: Ranks = ALONE
) -> Paired:
    """Pairs the clips of a batch with frames by a rule.

    Args:
        vectors: Of this process.
        params: The rule.
        is_warm: Whether the warm phase of `nearest` is over.
        ranks: The processes that share the batch.
    """
    if params.rule in ("random_frame", "nearest"):
        if params.rule == "nearest" and is_warm:
            chosen_B = choose_nearest(vectors)
        else:
            chosen_B = _draw(vectors.frame_mask)
        rows = torch.arange(len(chosen_B), device=chosen_B.device)
        frames_BE = vectors.frames[rows, chosen_B]
        # The same clip once more in a batch is neither right nor wrong.
        pairs = pair_rows(vectors.clip_ids, "mask", ranks)
        return Paired(vectors.clips, frames_BE, pairs, chosen_B)
    num_frames = vectors.frames.shape[1]
    frames_RE = vectors.frames.flatten(0, 1)
    if params.rule == "multiframe_segment":
        assert vectors.segments is not None
        pairs = segment_pairs(vectors.clip_ids, vectors.frame_mask, params.same_clip, ranks)
        return Paired(vectors.segments.flatten(0, 1), frames_RE, pairs)
    # Each sound once for each of its frames: that adds a constant to the loss of frames.
    sounds_RE = vectors.clips.repeat_interleave(num_frames, dim=0)
    return Paired(sounds_RE, frames_RE, clip_pairs(vectors.clip_ids, vectors.frame_mask, ranks))


@torch.no_grad()
def choose_nearest(vectors: ClipVectors) -> Tensor:
    """The frame of each clip that is most like its sound, the first of equals; (B,)."""
    return _similarities(vectors).argmax(dim=1)


@torch.no_grad()
def margins(vectors: ClipVectors) -> Tensor:
    """By how much the nearest frame is more like the sound than the next; of one frame, 0. (B,)."""
    similarities_BL = _similarities(vectors)
    if similarities_BL.shape[1] < 2:
        return similarities_BL.new_zeros(len(similarities_BL))
    best_B2 = similarities_BL.topk(2, dim=1).values
    margin_B = best_B2[:, 0] - best_B2[:, 1]
    return margin_B.masked_fill(vectors.frame_mask.sum(dim=1) < 2, 0)


def choice_of(vectors: ClipVectors, paired: Paired, ranks: Ranks = ALONE) -> dict[str, Tensor]:
    """How clips choose among their frames, for the row of a step in a history."""
    found = {"choice_margin": margins(vectors).mean()}
    if paired.chosen is not None:
        num_frames = vectors.frames.shape[1]
        found["choice_entropy"] = choice_entropy(ranks.gather(paired.chosen), num_frames)
    return found


def choice_entropy(chosen_B: Tensor, num_frames: int) -> Tensor:
    """How evenly frames are chosen by their place in the clip, in nats: 0 where one always is."""
    shares = torch.bincount(chosen_B, minlength=num_frames) / len(chosen_B)
    entropy: Tensor = torch.special.entr(shares).sum()
    return entropy


def segment_pairs(
    clip_ids_B: Tensor, frame_mask_BL: Tensor, same_clip: str | None, ranks: Ranks = ALONE
) -> Pairs:
    """Each segment belongs to the frame of its time; rows are those of `frame_mask`, flattened.

    Args:
        clip_ids_B: Equal for equal clips, in every process.
        frame_mask_BL: Which frames are there.
        same_clip: See `brewline.config.sounds`. Of `soft` a frame counts half as much for
            each step from it to the segment's own.
        ranks: The processes that share the batch.
    """
    own_RM, same_RM, there_RM, counted_R = _rows(clip_ids_B, frame_mask_BL, ranks)
    places_L = torch.arange(frame_mask_BL.shape[1], device=clip_ids_B.device)
    place_R = places_L.repeat(len(clip_ids_B))
    apart_RM = (place_R[:, None] - ranks.gather(place_R)).abs()
    if same_clip == "soft":
        weights_RM = torch.where(same_RM & there_RM, 0.5**apart_RM, 0.0)
        # Rows that are not there need a right one too, though they do not count.
        weights_RM = torch.where(own_RM, 1.0, weights_RM)
        return Pairs(weights_RM, ~there_RM & ~own_RM, counted_R)
    neither_RM = same_RM if same_clip == "mask" else same_RM & (apart_RM == 0)
    return Pairs(own_RM, (neither_RM | ~there_RM) & ~own_RM, counted_R)


def clip_pairs(clip_ids_B: Tensor, frame_mask_BL: Tensor, ranks: Ranks = ALONE) -> Pairs:
    """Each frame of a clip belongs to its sound; rows are those of `frame_mask`, flattened."""
    own_RM, same_RM, there_RM, counted_R = _rows(clip_ids_B, frame_mask_BL, ranks)
    return Pairs((same_RM & there_RM) | own_RM, ~there_RM & ~own_RM, counted_R)


def _rows(
    clip_ids_B: Tensor, frame_mask_BL: Tensor, ranks: Ranks
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of all pairs of rows, whether they are one, of one clip, and both there; and which count."""
    counted_R = frame_mask_BL.flatten()
    clip_R = clip_ids_B.repeat_interleave(frame_mask_BL.shape[1])
    same_RM = clip_R[:, None] == ranks.gather(clip_R)
    there_RM = counted_R[:, None] & ranks.gather(counted_R.int()).bool()
    own_RM = torch.zeros_like(same_RM)
    own_RM.diagonal(ranks.rank * len(counted_R)).fill_(True)
    return own_RM, same_RM, there_RM, counted_R


def _similarities(vectors: ClipVectors) -> Tensor:
    """Cosines of each sound with its own frames, (B, L)."""
    cosines_BL = torch.einsum("be,ble->bl", vectors.clips.float(), vectors.frames.float())
    return cosines_BL.masked_fill(~vectors.frame_mask, -torch.inf)


def _draw(frame_mask_BL: Tensor) -> Tensor:
    """A frame of each clip that is there, each as likely, from torch's generator; (B,)."""
    numbers_B = torch.rand(len(frame_mask_BL)).to(frame_mask_BL.device)
    # Those that are there come first.
    return (numbers_B * frame_mask_BL.sum(dim=1)).long()
