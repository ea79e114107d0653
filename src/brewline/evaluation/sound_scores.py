"""How well sounds, frames and captions find one another, and whether sounds find the right time.

Metric names are `<split>/<direction>/<metric>`, values are fractions, or ranks from 1. Of a clip's
frames the middle one is its picture at test time: `audio_to_image` and back rank these, one for
each clip; `audio_to_frame` and back rank all frames. All queries belong to a clip, and clips are
what is drawn again for intervals.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from brewline.evaluation.bootstrap import ByImage, Statistic, median_by_image, sum_by_image
from brewline.evaluation.ranks import Ints, Ranks, rank_both_ways
from brewline.evaluation.scores import RetrievalScores
from brewline.evaluation.sound_vectors import SoundEmbeddings
from brewline.evaluation.vectors import Embeddings

AUDIO_TO_IMAGE, IMAGE_TO_AUDIO = "audio_to_image", "image_to_audio"
AUDIO_TO_FRAME, FRAME_TO_AUDIO = "audio_to_frame", "frame_to_audio"
AUDIO_TO_TEXT, TEXT_TO_AUDIO = "audio_to_text", "text_to_audio"
# Which direction finds any of several right answers, by their name.
ANY_HIT = (AUDIO_TO_FRAME, AUDIO_TO_TEXT)
# By these models are chosen on dev: recall@1, the mean of both directions.
IMAGE_METRIC, TEXT_METRIC = "audio_image/mean_recall_at_1", "audio_text/mean_recall_at_1"
_MAP_AT = 10


def recall_name(direction: str, k: int) -> str:
    """What recall by K of a direction is called, without its split."""
    return f"{direction}/{'any_hit_' * (direction in ANY_HIT)}recall_at_{k}"


def score_sounds(found: SoundEmbeddings, split: str, recall_at: Sequence[int]) -> RetrievalScores:
    """The metrics of a split; those of frames or captions are there where it has any.

    A clip without frames, or without captions, is in no gallery of the directions that need them.
    """
    statistics: dict[str, Statistic] = {}
    metrics: dict[str, float] = {}
    for direction, ranks, ids in rank_sounds(found):
        prefix = f"{split}/{direction}"
        for k in recall_at:
            name = f"{split}/{recall_name(direction, k)}"
            statistics[name] = sum_by_image(ranks.any_hit(k), ids)
        precision = ranks.average_precision(_MAP_AT)
        statistics[f"{prefix}/map_at_{_MAP_AT}"] = sum_by_image(precision, ids)
        best = ranks.best.astype(np.float64)
        statistics[f"{prefix}/median_rank"] = median_by_image(best, ids)
        metrics[f"{prefix}/num_queries"] = float(ranks.num_queries)
        metrics[f"{prefix}/gallery_size"] = float(ranks.gallery_size)
    statistics |= {f"{split}/time/{name}": one for name, one in right_times(found)}
    metrics |= {name: one.value for name, one in statistics.items()}
    for mean, pair in (
        (IMAGE_METRIC, (AUDIO_TO_IMAGE, IMAGE_TO_AUDIO)),
        (TEXT_METRIC, (AUDIO_TO_TEXT, TEXT_TO_AUDIO)),
    ):
        parts = [f"{split}/{recall_name(direction, 1)}" for direction in pair]
        if parts[0] in metrics and 1 in recall_at:
            metrics[f"{split}/{mean}"] = sum(metrics[part] for part in parts) / 2
    return RetrievalScores(metrics, statistics)


def rank_sounds(found: SoundEmbeddings) -> Iterator[tuple[str, Ranks, list[str]]]:
    """Yields each direction that there is something for, its ranks, and the clip of each query.

    Queries of a direction are in the order of their clips, as the vectors are.
    """
    middles = middle_frames(found.frame_clips)
    clips_of_frames = np.array(found.frame_clips, np.int64)
    for there, back, vectors, clips in (
        (IMAGE_TO_AUDIO, AUDIO_TO_IMAGE, found.frames[middles], clips_of_frames[middles]),
        (FRAME_TO_AUDIO, AUDIO_TO_FRAME, found.frames, clips_of_frames),
        (TEXT_TO_AUDIO, AUDIO_TO_TEXT, found.captions, np.array(found.caption_clips, np.int64)),
    ):
        if len(clips):
            yield from _both_ways(found, there, back, vectors, clips)


def frame_choices(found: SoundEmbeddings) -> tuple[Ints, dict[str, float]]:
    """Which of its own frames each sound is most like, by the frame's place in its clip.

    Returns:
        The places, from 0, of clips that have frames; and by name the entropy of places in nats,
        the mean margin to the next frame, and the share of each place, from `frame_1`.
    """
    chosen, margins = [], []
    for clip, frames in _frames_by_clip(found):
        cosines = found.frames[frames] @ found.sounds[clip]
        chosen.append(int(np.argmax(cosines)))
        if len(cosines) > 1:
            second, first = np.sort(cosines)[-2:]
            margins.append(float(first - second))
    places = np.array(chosen, np.int64)
    shares = np.bincount(places) / max(1, len(places))
    positive = shares[shares > 0]
    shown = {"entropy": float(-(positive * np.log(positive)).sum())}
    if margins:
        shown["margin"] = float(np.mean(margins))
    return places, shown | {f"frame_{k}": float(share) for k, share in enumerate(shares, 1)}


def _both_ways(
    found: SoundEmbeddings, there: str, back: str, vectors: Embeddings, clips: Ints
) -> Iterator[tuple[str, Ranks, list[str]]]:
    """Yields a direction, its ranks, and the clip of each query."""
    asked = np.unique(clips)
    ids = [found.clip_ids[clip] for clip in asked]
    ids_of = [found.clip_ids[clip] for clip in clips]
    forward, backward = rank_both_ways(vectors, found.sounds[asked], ids_of, ids)
    yield there, forward, ids_of
    yield back, backward, ids


def middle_frames(frame_clips: Sequence[int]) -> list[int]:
    """The middle frame of each clip that has any, the earlier of two."""
    clips = np.array(frame_clips, np.int64)
    _, first, count = np.unique(clips, return_index=True, return_counts=True)
    return [int(place) for place in first + (count - 1) // 2]


def _frames_by_clip(found: SoundEmbeddings) -> Iterator[tuple[int, slice]]:
    """Yields each clip that has frames, and which those are."""
    clips = np.array(found.frame_clips, np.int64)
    numbers, first, count = np.unique(clips, return_index=True, return_counts=True)
    for clip, start, size in zip(numbers.tolist(), first.tolist(), count.tolist(), strict=True):
        yield clip, slice(start, start + size)


def right_times(found: SoundEmbeddings) -> Iterator[tuple[str, ByImage]]:
    """Yields how often sounds pick a frame of the right time, and how often chance does.

    `clip`: a whole sound picks a frame at the time of an event; of clips that have frames of other
    times too. `segment`: the sound at the time of an event picks a frame of the same event, where
    the clip has other frames too.
    """
    right: dict[str, list[tuple[str, float, float]]] = {"clip": [], "segment": []}
    for clip, frames in _frames_by_clip(found):
        labels, vectors = found.frame_labels[frames], found.frames[frames]
        eventful = np.array([bool(one) for one in labels])
        queries = [("clip", found.sounds[clip], eventful)]
        for own, segment in zip(labels, found.segments[frames], strict=True):
            queries.append(
                ("segment", segment, np.array([bool({*own} & {*one}) for one in labels]))
            )
        for kind, query, is_right in queries:
            if is_right.any() and not is_right.all():
                picked = is_right[int(np.argmax(vectors @ query))]
                right[kind].append((found.clip_ids[clip], float(picked), float(is_right.mean())))
    for kind, rows in right.items():
        if rows:
            ids = [clip_id for clip_id, _, _ in rows]
            picks: NDArray[np.float64] = np.array([[pick, chance] for _, pick, chance in rows])
            yield f"{kind}_accuracy", sum_by_image(picks[:, 0], ids)
            yield f"{kind}_chance", sum_by_image(picks[:, 1], ids)
