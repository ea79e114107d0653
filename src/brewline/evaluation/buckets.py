"""Recall by what a recording is like: how long, how noisy, how well heard, who speaks.

Every recording of test is in one bucket of each kind, so that the numbers add up.
"""

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brewline.config.evaluate import EvaluateParams
from brewline.evaluation.bootstrap import Bootstrap, sum_by_image
from brewline.evaluation.model_scores import ModelScores
from brewline.evaluation.query_facts import QueryFacts
from brewline.speech.error_rates import Errors

DURATION, LEVEL_RANGE, WER, WORDS, SPEAKER = (
    "duration_s",
    "level_range_db",
    "wer",
    "caption_words",
    "speaker",
)
# Upper ends of word error rates, and what lies up to each of them.
_RATES = {
    0.0: "no error",
    0.1: "up to 10 %",
    0.25: "10 to 25 %",
    0.5: "25 to 50 %",
    np.inf: "over 50 %",
}
_MAX_SPEAKERS = 20


@dataclass(frozen=True)
class Bucket:
    """Recordings that are alike in one respect."""

    kind: str
    name: str
    utterance_ids: list[str]


def make_buckets(
    facts: Mapping[str, QueryFacts],
    errors: Mapping[str, Errors],
    image_of: Mapping[str, str],
    min_images: int,
) -> list[Bucket]:
    """Sorts recordings into buckets, kind by kind.

    Lengths, noise and captions are cut into quarters of these recordings, word error rates at fixed
    places; speakers of fewer than `min_images` images are taken together.

    Args:
        facts: Of every recording, by utterance id.
        errors: Of those with a caption, by utterance id.
        image_of: The image of every recording.
        min_images: Of a speaker.
    """
    quarters: dict[str, Callable[[str], float | None]] = {
        DURATION: lambda name: facts[name].duration_s,
        LEVEL_RANGE: lambda name: facts[name].level_range_db,
        WORDS: lambda name: errors[name].num_words if name in errors else None,
    }
    return [
        *(bucket for kind, value in quarters.items() for bucket in _quarters(kind, facts, value)),
        *_rates(facts, errors),
        *_speakers(facts, image_of, min_images),
    ]


def _quarters(
    kind: str, names: Iterable[str], value: Callable[[str], float | None]
) -> Iterator[Bucket]:
    known: dict[str, float] = {}
    unknown = []
    for name in names:
        found = value(name)
        if found is None:
            unknown.append(name)
        else:
            # As it is shown, so that no two buckets look alike.
            known[name] = round(found, 1)
    if known:
        ends = np.unique(np.quantile(list(known.values()), [0.25, 0.5, 0.75, 1], method="lower"))
        groups: dict[int, list[str]] = collections.defaultdict(list)
        for name, found in known.items():
            groups[int(np.searchsorted(ends, found))].append(name)
        for _, group in sorted(groups.items()):
            low, high = (end(known[name] for name in group) for end in (min, max))
            shown = [f"{one:.0f}" if kind == WORDS else f"{one:.1f}" for one in (low, high)]
            yield Bucket(kind, " to ".join(dict.fromkeys(shown)), group)
    if unknown:
        yield Bucket(kind, "not known", unknown)


def _rates(names: Iterable[str], errors: Mapping[str, Errors]) -> Iterator[Bucket]:
    groups: dict[str, list[str]] = {one: [] for one in (*_RATES.values(), "no caption")}
    for name in names:
        if name in errors:
            groups[next(one for end, one in _RATES.items() if errors[name].wer <= end)].append(name)
        else:
            groups["no caption"].append(name)
    yield from (Bucket(WER, one, group) for one, group in groups.items() if group)


def _speakers(
    facts: Mapping[str, QueryFacts], image_of: Mapping[str, str], min_images: int
) -> Iterator[Bucket]:
    groups: dict[str, list[str]] = collections.defaultdict(list)
    for name, one in facts.items():
        groups[one.speaker_id].append(name)
    often = sorted(groups, key=lambda speaker: (-len(groups[speaker]), speaker))[:_MAX_SPEAKERS]
    shown = [
        speaker
        for speaker in often
        if len({image_of[name] for name in groups[speaker]}) >= min_images
    ]
    yield from (Bucket(SPEAKER, speaker, groups[speaker]) for speaker in sorted(shown))
    others = [name for speaker in groups if speaker not in shown for name in groups[speaker]]
    if others:
        yield Bucket(SPEAKER, f"{len(groups) - len(shown)} others", others)


def score_buckets(
    scores: Mapping[str, Sequence[ModelScores]],
    buckets: Iterable[Bucket],
    image_of: Mapping[str, str],
    params: EvaluateParams,
    bootstrap: Bootstrap,
) -> Iterator[dict[str, Any]]:
    """Yields the rows of `buckets.csv`: recall@k of a row's recordings in a bucket.

    Each recording asks the whole gallery. Intervals are over the images of the bucket, and seeds;
    of few images they would be too narrow, and no recall is given.

    Args:
        scores: Of each row's models.
        buckets: Of the recordings of test.
        image_of: The image of each recording.
        params: Say k, and how many images are few.
        bootstrap: How intervals are estimated.
    """
    k = params.bucket_recall_at
    for bucket in buckets:
        images = [image_of[name] for name in bucket.utterance_ids]
        for row, models in scores.items():
            found: dict[str, float | None] = {"recall": None, "low": None, "high": None}
            if len(set(images)) >= params.min_bucket_images:
                rank_of = [one.rank_of for one in models]
                found = dict(mean_recall(bucket.utterance_ids, rank_of, image_of, k, bootstrap))
            yield {
                "kind": bucket.kind,
                "bucket": bucket.name,
                "row": row,
                "num_queries": len(images),
                "num_images": len(set(images)),
                "k": k,
                **found,
            }


def mean_recall(
    utterance_ids: Sequence[str],
    rank_of: Sequence[Mapping[str, int]],
    image_of: Mapping[str, str],
    k: int,
    bootstrap: Bootstrap,
) -> dict[str, float]:
    """Recall@k of some recordings over the models of a row, with an interval over images and seeds.

    Args:
        utterance_ids: The recordings.
        rank_of: Of each model: the rank of the right image, by utterance id.
        image_of: The image of each recording.
        k: How many ranks are a hit.
        bootstrap: How the interval is estimated.

    Returns:
        `recall`, `low` and `high`.
    """
    images = [image_of[name] for name in utterance_ids]
    means = [
        sum_by_image(np.array([ranks[name] <= k for name in utterance_ids], float), images)
        for ranks in rank_of
    ]
    low, high = bootstrap.interval(bootstrap.over_seeds([bootstrap.drawn(mean) for mean in means]))
    return {"recall": float(np.mean([mean.value for mean in means])), "low": low, "high": high}
