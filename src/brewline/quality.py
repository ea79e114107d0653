"""Is the data lawful? Checks on every utterance, and expectations on a whole corpus.

Every utterance that a corpus lists ends in the manifest, or in the quarantine with a reason. A
check is a small function with a reason code; its threshold stands in `params.yaml` under
`validate`. What must hold for the corpus as a whole is a Great Expectations suite.
"""

import hashlib
import io
import multiprocessing
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from brewline.archives import MediaStore
from brewline.audio import Audio, AudioError, decode
from brewline.corpora.listing import Listing
from brewline.params import ValidateParams
from brewline.processes import die_with_parent

# A sample this close to full scale is counted as clipped.
_CLIPPED = 0.999
_KEY = re.compile(r"[A-Za-z0-9_-]+")
# Utterances handed to a worker at a time: few enough for the progress bar to move.
_CHUNK = 32


@dataclass(frozen=True)
class Verdict:
    """What was found out about one utterance: measured facts, or why it is dropped."""

    listing: Listing
    reason: str | None = None
    detail: str = ""
    duration_s: float = 0.0
    sample_rate_hz: int = 0
    num_channels: int = 0
    audio_sha256: str = ""

    def manifest_row(self, corpus: str) -> dict[str, Any]:
        """The row of the manifest."""
        facts = ("duration_s", "sample_rate_hz", "num_channels", "audio_sha256")
        return {"corpus": corpus, **asdict(self.listing), **{f: getattr(self, f) for f in facts}}

    def quarantine_row(self) -> dict[str, Any]:
        """The row of the quarantine."""
        return {**asdict(self.listing), "reason": self.reason, "detail": self.detail}


AudioCheck = Callable[[Audio, ValidateParams], str | None]


def _shorter_than_header(audio: Audio, limits: ValidateParams) -> str | None:
    missing_s = audio.promised_duration_s - audio.duration_s
    if missing_s > limits.max_duration_mismatch_s:
        return f"{audio.duration_s:.2f} s of the {audio.promised_duration_s:.2f} s promised"
    return None


def _truncated(audio: Audio, limits: ValidateParams) -> str | None:
    if limits.require_stream_end and not audio.has_end:
        return f"the stream stops after {audio.duration_s:.2f} s without its end mark"
    return None


def _too_short(audio: Audio, limits: ValidateParams) -> str | None:
    short = audio.duration_s < limits.min_duration_s
    return f"{audio.duration_s:.3f} s, under {limits.min_duration_s} s" if short else None


def _too_long(audio: Audio, limits: ValidateParams) -> str | None:
    long = audio.duration_s > limits.max_duration_s
    return f"{audio.duration_s:.0f} s, over {limits.max_duration_s:.0f} s" if long else None


def _low_sample_rate(audio: Audio, limits: ValidateParams) -> str | None:
    low = audio.sample_rate_hz < limits.min_sample_rate_hz
    return f"{audio.sample_rate_hz} Hz, under {limits.min_sample_rate_hz} Hz" if low else None


def _non_finite(audio: Audio, limits: ValidateParams) -> str | None:
    count = int(np.count_nonzero(~np.isfinite(audio.samples)))
    return f"{count} samples of {audio.samples.size} are NaN or infinite" if count else None


def _silent(audio: Audio, limits: ValidateParams) -> str | None:
    peak = float(np.abs(audio.samples).max())
    loudest_dbfs = 20 * np.log10(max(peak, 1e-10))
    if loudest_dbfs < limits.silence_dbfs:
        return f"the loudest sample is at {loudest_dbfs:.0f} dBFS"
    return None


def _clipped(audio: Audio, limits: ValidateParams) -> str | None:
    share = float(np.mean(np.abs(audio.samples) >= _CLIPPED))
    return (
        f"{share:.0%} of the samples are clipped" if share > limits.max_clipped_fraction else None
    )


def _dc_offset(audio: Audio, limits: ValidateParams) -> str | None:
    offset = float(np.abs(audio.samples.mean()))
    return f"the mean is {offset:.2f} of full scale" if offset > limits.max_dc_offset else None


# In this order; the first that fails gives the reason. Those after `non_finite` need finite
# samples, those after `too_short` need some.
AUDIO_CHECKS: dict[str, AudioCheck] = {
    "truncated": _truncated,
    "shorter_than_header": _shorter_than_header,
    "too_short": _too_short,
    "too_long": _too_long,
    "low_sample_rate": _low_sample_rate,
    "non_finite": _non_finite,
    "silent": _silent,
    "clipped": _clipped,
    "dc_offset": _dc_offset,
}


def check_audio(content: bytes, limits: ValidateParams) -> tuple[Audio | None, str, str]:
    """Decodes a recording to its end and checks it.

    Returns:
        (the recording, "", "") if it is good, else (None, reason code, detail).
    """
    try:
        audio = decode(content)
    except AudioError as error:
        return None, error.reason, error.detail
    for reason, check in AUDIO_CHECKS.items():
        detail = check(audio, limits)
        if detail:
            return None, reason, detail
    return audio, "", ""


def check_image(content: bytes, limits: ValidateParams) -> tuple[str, str] | None:
    """Opens a picture fully; returns (reason code, detail) if it is bad."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # Pillow warns of a decompression bomb before it refuses one; both end here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content)) as image:
                image.load()
                side = min(image.size)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning) as error:
        return "bad_image", str(error)
    if side < limits.min_image_side_px:
        return "small_image", f"the short side is {side} px, under {limits.min_image_side_px} px"
    return None


def check_utterance(store: MediaStore, listing: Listing, limits: ValidateParams) -> Verdict:
    """Checks everything about one utterance but its image."""
    if not _KEY.fullmatch(listing.utterance_id):
        return Verdict(listing, "bad_key", "an id may hold letters, digits, _ and - only")
    if listing.caption is not None and not listing.caption.strip():
        return Verdict(listing, "empty_caption", "the caption has no text")
    path = store.find(listing.audio_path)
    if path is None:
        return Verdict(listing, "missing_audio", f"{listing.audio_path} is not in the archives")
    content = store.read(path)
    audio, reason, detail = check_audio(content, limits)
    if audio is None:
        return Verdict(listing, reason, detail)
    return Verdict(
        listing,
        duration_s=audio.duration_s,
        sample_rate_hz=audio.sample_rate_hz,
        num_channels=audio.samples.shape[1],
        audio_sha256=hashlib.sha256(content).hexdigest(),
    )


# The store of a worker process, opened once by `_open_store`.
_store: MediaStore | None = None


def _open_store(root: Path) -> None:
    global _store
    die_with_parent()
    _store = MediaStore(root)


def _check_one_utterance(task: tuple[Listing, ValidateParams]) -> Verdict:
    assert _store is not None
    return check_utterance(_store, *task)


def _check_one_image(task: tuple[str, ValidateParams]) -> tuple[str, str] | None:
    assert _store is not None
    name, limits = task
    if name not in _store:
        return "missing_image", f"{name} is not in the archives"
    return check_image(_store.read(name), limits)


def check_corpus(
    root: Path, listings: list[Listing], limits: ValidateParams, workers: int
) -> list[Verdict]:
    """Checks every utterance, and every image once, in worker processes.

    Args:
        root: `data/raw/<corpus>`.
        listings: What the corpus lists.
        limits: Thresholds.
        workers: The number of processes.

    Returns:
        One verdict per listing, sorted by split and utterance id.
    """
    images = sorted({row.image_path for row in listings if row.image_path})
    with ProcessPoolExecutor(
        workers,
        # A fork would inherit the locks of whatever threads this process runs.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_open_store,
        initargs=(root,),
    ) as pool:
        tasks = [(row, limits) for row in listings]
        checked = pool.map(_check_one_utterance, tasks, chunksize=_CHUNK)
        verdicts = list(tqdm(checked, "utterances", len(tasks), unit=" utt", disable=None))
        faults = pool.map(_check_one_image, [(name, limits) for name in images], chunksize=_CHUNK)
        bad_images = dict(
            zip(images, tqdm(faults, "images", len(images), unit=" img", disable=None), strict=True)
        )
    return sorted(_with_images(verdicts, bad_images), key=_order)


def _order(verdict: Verdict) -> tuple[int, str]:
    return ("train", "dev", "test").index(verdict.listing.split), verdict.listing.utterance_id


def _with_images(
    verdicts: list[Verdict], bad_images: dict[str, tuple[str, str] | None]
) -> Iterator[Verdict]:
    """Drops the utterances of bad images, and every second use of an id."""
    seen: set[str] = set()
    for verdict in verdicts:
        listing = verdict.listing
        fault = bad_images[listing.image_path] if listing.image_path else None
        if listing.utterance_id in seen:
            yield Verdict(listing, "duplicate_id", "another utterance has the same id")
        elif verdict.reason is None and fault:
            yield Verdict(listing, *fault)
        else:
            yield verdict
        seen.add(listing.utterance_id)


@dataclass(frozen=True)
class Expectation:
    """The outcome of one expectation on a corpus."""

    name: str
    success: bool
    observed: str


def expect(
    manifest: list[dict[str, Any]],
    quarantine: list[dict[str, Any]],
    num_listed: int,
    limits: ValidateParams,
) -> list[Expectation]:
    """Holds a corpus against its suite of expectations, with Great Expectations.

    Args:
        manifest: Its rows.
        quarantine: Its rows.
        num_listed: How many utterances the corpus lists.
        limits: `max_quarantine_rate`.

    Returns:
        Every expectation with what was observed, in the order of the suite.
    """
    import great_expectations as gx
    import pandas
    from great_expectations.data_context.types.base import ProgressBarsConfig

    from brewline.manifest import MANIFEST

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    source = context.data_sources.add_pandas("brewline")
    utterances = pandas.DataFrame(manifest, columns=MANIFEST.names)
    images = utterances.dropna(subset=["image_id"]).groupby("image_id")["split"].nunique()
    speakers = utterances.groupby("speaker_id")["split"].nunique()
    tables = {
        "utterances": utterances,
        "images": pandas.DataFrame({"num_splits": images}),
        "speakers": pandas.DataFrame({"num_splits": speakers}),
        "corpus": pandas.DataFrame(
            {
                "num_listed": [num_listed],
                "num_accounted_for": [len(manifest) + len(quarantine)],
                "quarantine_rate": [len(quarantine) / max(num_listed, 1)],
            }
        ),
    }
    outcomes = []
    for name, expectations in _suites(utterances, limits).items():
        asset = source.add_dataframe_asset(name)
        batch = asset.add_batch_definition_whole_dataframe("all").get_batch(
            {"dataframe": tables[name]}
        )
        result = batch.validate(
            gx.ExpectationSuite(name=name, expectations=expectations), result_format="BASIC"
        )
        for each in result.to_json_dict()["results"]:
            outcomes.append(_outcome(name, each))
    return outcomes


def _suites(utterances: Any, limits: ValidateParams) -> dict[str, list[Any]]:
    import great_expectations.expectations as gxe

    from brewline.manifest import MANIFEST

    suites = {
        "utterances": [
            gxe.ExpectTableColumnsToMatchOrderedList(column_list=MANIFEST.names),
            gxe.ExpectTableRowCountToBeBetween(min_value=1),
            gxe.ExpectColumnValuesToBeUnique(column="utterance_id"),
            gxe.ExpectColumnValuesToMatchRegex(column="utterance_id", regex="^[A-Za-z0-9_-]+$"),
            gxe.ExpectColumnDistinctValuesToBeInSet(
                column="split", value_set=["train", "dev", "test"]
            ),
            gxe.ExpectColumnDistinctValuesToContainSet(column="split", value_set=["train", "test"]),
            gxe.ExpectColumnValuesToNotBeNull(column="audio_path"),
            gxe.ExpectColumnValuesToBeBetween(
                column="duration_s",
                min_value=limits.min_duration_s,
                max_value=limits.max_duration_s,
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="sample_rate_hz", min_value=limits.min_sample_rate_hz
            ),
            gxe.ExpectColumnValuesToMatchRegex(column="audio_sha256", regex="^[0-9a-f]{64}$"),
        ],
        "corpus": [
            gxe.ExpectColumnPairValuesToBeEqual(
                column_A="num_listed", column_B="num_accounted_for"
            ),
            gxe.ExpectColumnValuesToBeBetween(
                column="quarantine_rate", max_value=limits.max_quarantine_rate
            ),
        ],
    }
    in_one_split = gxe.ExpectColumnValuesToBeBetween(column="num_splits", min_value=1, max_value=1)
    if utterances["image_id"].notna().any():
        suites["images"] = [in_one_split]
    if utterances["emotion"].notna().any():
        suites["speakers"] = [in_one_split]
    return suites


def _outcome(table: str, result: dict[str, Any]) -> Expectation:
    config = result["expectation_config"]
    settings = {k: v for k, v in config["kwargs"].items() if k not in ("batch_id", "column_list")}
    observed = {
        key: value
        for key, value in result["result"].items()
        if key in ("observed_value", "element_count", "unexpected_count")
    }
    trouble = [e["exception_message"] for e in _exceptions(result) if e["raised_exception"]]
    told = trouble or [f"{key} {value}" for key, value in observed.items()]
    name = ", ".join(f"{key}={value}" for key, value in settings.items())
    return Expectation(f"{table}: {config['type']}({name})", result["success"], "; ".join(told))


def _exceptions(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The errors raised by a check itself: one, or one per metric."""
    info = result["exception_info"]
    return [info] if "raised_exception" in info else list(info.values())


def count_reasons(quarantine: list[dict[str, Any]]) -> dict[str, int]:
    """How many utterances each reason dropped, most first."""
    return dict(Counter(row["reason"] for row in quarantine).most_common())
