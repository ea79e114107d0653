"""Why one utterance was dropped, or was not: every check with what it found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from brewline.config.validate import ValidateParams
from brewline.core.errors import BrewlineError
from brewline.media.archives import MediaStore, canonical_name
from brewline.quality.checks import (
    AUDIO_CHECKS,
    IMAGE_CHECKS,
    SOUND_CHECKS,
    VIDEO_CHECKS,
    Check,
    Fault,
)
from brewline.quality.known_facts import known_videos
from brewline.quality.verdicts import Judge, judge_listings
from brewline.tables.facts import PictureFacts, VideoFacts
from brewline.tables.listing import Listing


def explain(
    store: MediaStore,
    listings: Sequence[Listing],
    utterance_id: str,
    facts: Path,
    limits: ValidateParams,
) -> Iterator[str]:
    """Judges one utterance again.

    Args:
        store: The corpus' files.
        listings: What the corpus lists.
        utterance_id: The utterance.
        facts: `data/facts/<corpus>`.
        limits: Thresholds.

    Yields:
        Lines of text: the verdict, then each check with its number and its threshold.

    Raises:
        BrewlineError: the corpus lists no such utterance, or the facts are missing.
    """
    rows = [row for row in listings if row.utterance_id == utterance_id]
    if not rows:
        raise BrewlineError(f"{store.root} lists no utterance {utterance_id!r}", "settings")
    judge = Judge(store, facts, limits)
    for verdict in judge.corpus(rows):
        row = verdict.listing
        fault = Fault(verdict.reason, verdict.detail) if verdict.reason else None
        yield f"{utterance_id} ({row.split or 'no split'}): {_say(fault) if fault else 'good'}"
        ((_, listed),) = judge_listings(store, [row])
        wrong = listed if isinstance(listed, Fault) else None
        yield _line("listing", wrong, "id, caption, and whether the recording is there")
        if audio := store.find(row.audio_path):
            yield audio
            (place,) = judge.recordings.rows([audio])
            checks = SOUND_CHECKS if row.is_clip else AUDIO_CHECKS
            yield from _lines(checks, judge.recordings[place], limits)
        if row.video_path:
            video: VideoFacts | Fault = Fault("missing_video", store.absence(row.video_path))
            if row.video_path in store:
                videos = known_videos(facts)
                (place,) = videos.rows([canonical_name(row.video_path)])
                video = videos[place]
            yield from _lines(VIDEO_CHECKS, video, limits)
        if row.image_path:
            yield row.image_path
            found: PictureFacts | Fault = Fault("missing_image", store.absence(row.image_path))
            if row.image_path in store:
                (place,) = judge.pictures.rows([canonical_name(row.image_path)])
                found = judge.pictures[place]
            yield from _lines(IMAGE_CHECKS, found, limits)
    if len(rows) > 1:
        yield f"{len(rows)} rows have this id; the first of those that are good is kept."
    yield "Whether another utterance has the same recording shows over the whole corpus only."


def _lines(checks: Mapping[str, Check], facts: Any, limits: ValidateParams) -> Iterator[str]:
    if isinstance(facts, Fault):
        yield _line("opens", facts, "")
        return
    yield _line("opens", None, ", ".join(f"{k} {_short(v)}" for k, v in asdict(facts).items()))
    for reason, check in checks.items():
        outcome = check.outcome(facts, limits)
        fault = Fault(reason, check.say(facts, outcome)) if outcome.failed else None
        numbers = f"{outcome.value:.6g} ({check.threshold}: {outcome.threshold:g})"
        yield _line(reason, fault, numbers)


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, int | float) else str(value)


def _line(name: str, fault: Fault | None, numbers: str) -> str:
    text = f"{_say(fault)}; {numbers}" if fault and numbers else _say(fault) if fault else numbers
    return f"  {'FAIL' if fault else 'ok':4}  {name:20}  {text}"


def _say(fault: Fault) -> str:
    return f"`{fault.reason}`: {fault.detail}"
