"""Why one utterance was dropped, or was not: every check with what it found."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

from brewline.config.validate import ValidateParams
from brewline.core.errors import BrewlineError
from brewline.media.archives import MediaStore
from brewline.quality.checks import AUDIO_CHECKS, IMAGE_CHECKS, Check, Fault, Finding
from brewline.quality.verdicts import MediaTask, found, judge_listings, open_pool
from brewline.tables.listing import Listing


def explain(
    store: MediaStore,
    listings: Sequence[Listing],
    utterance_id: str,
    limits: ValidateParams,
    decode_limit_s: float,
) -> Iterator[str]:
    """Checks one utterance again, in a process of its own.

    Args:
        store: The corpus' files.
        listings: What the corpus lists.
        utterance_id: The utterance.
        limits: Thresholds.
        decode_limit_s: Seconds after which a file is given up.

    Yields:
        Lines of text: the verdict, then each check with its number and its threshold.

    Raises:
        BrewlineError: the corpus lists no such utterance.
    """
    rows = [row for row in listings if row.utterance_id == utterance_id]
    if not rows:
        raise BrewlineError(f"{store.root} lists no utterance {utterance_id!r}", "settings")
    for row, fault in judge_listings(store, rows):
        media = list(_media(store, row, limits, decode_limit_s))
        faults = [fault, *(finding.fault for _, _, finding in media)]
        first = next((one for one in faults if one), None)
        yield f"{utterance_id} ({row.split or 'no split'}): {_say(first) if first else 'good'}"
        yield _line("listing", fault, "id, caption, and whether the recording is there")
        for name, checks, finding in media:
            yield f"{name}"
            yield from _lines(checks, finding, limits)
    if len(rows) > 1:
        yield f"{len(rows)} rows have this id; the first of those that are good is kept."
    yield "Whether another utterance has the same recording shows over the whole corpus only."


def _media(
    store: MediaStore, row: Listing, limits: ValidateParams, decode_limit_s: float
) -> Iterator[tuple[str, Mapping[str, Check], Finding]]:
    """Opens the recording and the picture: stored name, checks, finding."""
    audio = store.find(row.audio_path)
    tasks = [MediaTask("audio", audio)] if audio else []
    if row.image_path and row.image_path in store:
        tasks.append(MediaTask("image", row.image_path))
    checks = {"audio": AUDIO_CHECKS, "image": IMAGE_CHECKS}
    with open_pool(store, limits, 1, decode_limit_s) as pool:
        for task, answer in zip(tasks, pool.map(tasks), strict=True):
            yield task.name, checks[task.kind], found(answer)
    if row.image_path and row.image_path not in store:
        missing = Fault("missing_image", store.absence(row.image_path))
        yield row.image_path, IMAGE_CHECKS, Finding(missing)


def _lines(checks: Mapping[str, Check], finding: Finding, limits: ValidateParams) -> Iterator[str]:
    if finding.facts is None:
        yield _line("opens", finding.fault, "")
        return
    yield _line("opens", None, ", ".join(f"{k} {v:.6g}" for k, v in asdict(finding.facts).items()))
    for reason, check in checks.items():
        outcome = check.outcome(finding.facts, limits)
        fault = Fault(reason, check.say(finding.facts, outcome)) if outcome.failed else None
        numbers = f"{outcome.value:.6g} ({check.threshold}: {outcome.threshold:g})"
        yield _line(reason, fault, numbers)


def _line(name: str, fault: Fault | None, numbers: str) -> str:
    text = f"{_say(fault)}; {numbers}" if fault and numbers else _say(fault) if fault else numbers
    return f"  {'FAIL' if fault else 'ok':4}  {name:20}  {text}"


def _say(fault: Fault) -> str:
    return f"`{fault.reason}`: {fault.detail}"
