"""What becomes of each utterance of a corpus: a row of the manifest, or one of the quarantine."""

import functools
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

from tqdm import tqdm

from brewline.config.validate import ValidateParams
from brewline.core.errors import BrewlineError
from brewline.core.workers import Lost, WorkerPool
from brewline.media.archives import MediaStore, canonical_name
from brewline.quality.checks import Fault, Finding, check_audio, check_image, check_listing
from brewline.quality.signals import Signal
from brewline.tables.listing import SPLITS, Listing

_LISTED = tuple(field.name for field in fields(Listing))
_FROM_SIGNAL = ("duration_s", "sample_rate_hz", "num_channels", "audio_sha256")


@dataclass(frozen=True)
class Verdict:
    """What was found out about one utterance: facts, or why it is dropped."""

    listing: Listing
    reason: str | None = None
    detail: str = ""
    duration_s: float = 0.0
    sample_rate_hz: int = 0
    num_channels: int = 0
    audio_sha256: str = ""
    # The first utterance whose recording has the same bytes, if that is another.
    same_audio_as: str | None = None

    def manifest_row(self, corpus: str) -> dict[str, Any]:
        """The row of the manifest."""
        listed = {name: getattr(self.listing, name) for name in _LISTED}
        return {"corpus": corpus, **listed, **{name: getattr(self, name) for name in _FROM_SIGNAL}}

    def quarantine_row(self) -> dict[str, Any]:
        """The row of the quarantine; what is no text in it is escaped."""
        listed = {name: getattr(self.listing, name) for name in _LISTED}
        row = {**listed, "reason": self.reason, "detail": self.detail}
        return {
            name: value and value.encode("utf-8", "backslashreplace").decode()
            for name, value in row.items()
        }


class MediaTask(NamedTuple):
    """A file to open and check: what it should be, and its stored name."""

    kind: Literal["audio", "image"]
    name: str


@dataclass(frozen=True)
class MediaChecker:
    """Opens and checks files, in a worker process."""

    store: MediaStore
    limits: ValidateParams

    def __call__(self, task: MediaTask) -> Finding:
        try:
            content = self.store.read(task.name)
        except (BrewlineError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            # The archive could be listed; this member of it is damaged.
            return Finding(Fault("unreadable", str(error)))
        if task.kind == "audio":
            return check_audio(content, self.limits)
        return check_image(content, self.limits)


MediaPool = WorkerPool[MediaTask, Finding]


def open_pool(
    store: MediaStore, limits: ValidateParams, workers: int, decode_limit_s: float
) -> MediaPool:
    """Starts processes that check media; a file that takes one longer is given up."""
    # The store travels: listing a large archive anew in each process takes longer.
    prepare = functools.partial(MediaChecker, store, limits)
    return WorkerPool(prepare, workers, decode_limit_s)


def check_corpus(
    store: MediaStore,
    listings: Sequence[Listing],
    limits: ValidateParams,
    workers: int,
    decode_limit_s: float,
) -> Iterator[Verdict]:
    """Checks every picture once, then every utterance, in worker processes.

    Args:
        store: The corpus' files.
        listings: What the corpus lists.
        limits: Thresholds.
        workers: The number of processes.
        decode_limit_s: Seconds after which a file is given up.

    Yields:
        One verdict per listing, sorted by split and utterance id, as soon as it is known.
    """
    listed = sorted(judge_listings(store, listings), key=lambda pair: _order(pair[0]))
    with open_pool(store, limits, workers, decode_limit_s) as pool:
        bad_images = _bad_images(pool, store, listings)
        names = (store.find(row.audio_path) or "" for row, fault in listed if fault is None)
        findings = pool.map(MediaTask("audio", name) for name in names)
        bar = tqdm(listed, "utterances", unit=" utt", disable=None)
        first_with: dict[bytes, str] = {}
        ids = [row.utterance_id for row in listings]
        for verdict in one_of_each_id(_judge(bar, findings, bad_images), ids):
            yield _with_duplicate(verdict, first_with, limits)


def _judge(
    listed: Iterable[tuple[Listing, Fault | None]],
    findings: Iterator[Finding | Lost],
    bad_images: Mapping[str | None, Fault],
) -> Iterator[Verdict]:
    """Judges each utterance by itself; of those without a fault of the listing, in its order."""
    for row, fault in listed:
        if fault:
            yield Verdict(row, *fault)
            continue
        verdict = _verdict(row, found(next(findings)))
        if verdict.reason is None and row.image_path in bad_images:
            verdict = Verdict(row, *bad_images[row.image_path])
        yield verdict


def one_of_each_id(verdicts: Iterable[Verdict], ids: Iterable[str]) -> Iterator[Verdict]:
    """Of utterances with one id, keeps the first that is good.

    Args:
        verdicts: What came of each by itself.
        ids: The ids of all of them.

    Yields:
        The verdicts; those with one id together, when the last of them is known.
    """
    counts = {name: count for name, count in Counter(ids).items() if count > 1}
    waiting: dict[str, list[Verdict]] = {name: [] for name in counts}
    for verdict in verdicts:
        name = verdict.listing.utterance_id
        if name not in counts:
            yield verdict
            continue
        same = waiting[name]
        if verdict.reason is None and any(other.reason is None for other in same):
            detail = "another good utterance has the same id"
            verdict = Verdict(verdict.listing, "duplicate_id", detail)
        same.append(verdict)
        if len(same) == counts[name]:
            yield from waiting.pop(name)


def _order(listing: Listing) -> tuple[int, str]:
    # What is no record may be in no split.
    split = listing.split
    return SPLITS.index(split) if split in SPLITS else len(SPLITS), listing.utterance_id


def judge_listings(
    store: MediaStore, listings: Sequence[Listing]
) -> Iterator[tuple[Listing, Fault | None]]:
    """Finds what is wrong before anything is opened."""
    recordings = {canonical_name(row.audio_path) for row in listings}
    for listing in listings:
        fault = check_listing(listing)
        if fault is None:
            name, path = store.find(listing.audio_path), canonical_name(listing.audio_path)
            # Under another suffix it may be found, unless that is a recording by itself.
            if name is None or (name != path and name in recordings):
                fault = Fault("missing_audio", store.absence(path))
        yield listing, fault


def _bad_images(
    pool: MediaPool, store: MediaStore, listings: Iterable[Listing]
) -> dict[str | None, Fault]:
    """What is wrong with pictures, by path; each is opened once, however many describe it."""
    paths = sorted({row.image_path for row in listings if row.image_path})
    faults: dict[str | None, Fault] = {
        path: Fault("missing_image", store.absence(path)) for path in paths if path not in store
    }
    present = [path for path in paths if path not in faults]
    findings = pool.map(MediaTask("image", path) for path in present)
    bar = tqdm(findings, "images", len(present), unit=" img", disable=None)
    for path, finding in zip(present, bar, strict=True):
        fault = found(finding).fault
        if fault:
            faults[path] = fault
    return faults


def found(answer: Finding | Lost) -> Finding:
    """What was found out about a file, a lost worker included."""
    if isinstance(answer, Lost):
        return Finding(Fault(f"decoder_{answer.how}", answer.detail))
    return answer


def _verdict(listing: Listing, finding: Finding) -> Verdict:
    if finding.fault:
        return Verdict(listing, *finding.fault)
    signal = finding.facts
    assert isinstance(signal, Signal)
    return Verdict(
        listing,
        duration_s=signal.duration_s,
        sample_rate_hz=signal.sample_rate_hz,
        num_channels=signal.num_channels,
        audio_sha256=finding.sha256,
    )


def _with_duplicate(
    verdict: Verdict, first_with: dict[bytes, str], limits: ValidateParams
) -> Verdict:
    """Names the first good utterance whose recording has the same bytes."""
    if verdict.reason:
        return verdict
    first = first_with.setdefault(bytes.fromhex(verdict.audio_sha256), verdict.listing.utterance_id)
    if first == verdict.listing.utterance_id:
        return verdict
    if limits.duplicate_audio == "quarantine":
        return Verdict(verdict.listing, "duplicate_audio", f"the same bytes as {first}")
    return replace(verdict, same_audio_as=first)


def count_reasons(quarantine: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many utterances each reason dropped, most first."""
    return dict(Counter(row["reason"] for row in quarantine).most_common())
