"""Every planted corruption is caught with its reason; good recordings pass; the counts add up."""

import gc
import io
import json
import os
import pickle
import shutil
import signal
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow.parquet
import pytest
import yaml
from PIL import Image
from world import (
    SAMPLE_RATE_HZ,
    corrupted_recordings,
    encode_audio,
    make_lncoco,
    make_ravdess,
    picture,
    tone,
    tone_limits,
    write_facts,
)

from brewline.config import load_params
from brewline.config.sources import ExpectedParams, SourceParams
from brewline.config.validate import ValidateParams
from brewline.core.compute import EngineName
from brewline.core.engines import open_engine
from brewline.core.errors import BrewlineError
from brewline.core.files import sha256_tree
from brewline.corpora.readers import READERS
from brewline.media import file_runs
from brewline.media.archives import MediaStore
from brewline.media.audio import decode, to_mono_16k
from brewline.quality import inspection
from brewline.quality.checks import (
    AUDIO_CHECKS,
    IMAGE_CHECKS,
    Fault,
    check_listing,
    first_fault,
)
from brewline.quality.corpus_suites import Account, account, count_words, expect
from brewline.quality.expectations import Expectation
from brewline.quality.explain import explain
from brewline.quality.inspection import (
    Inspection,
    InspectionRun,
    Inspector,
    MediaTask,
    inspect_files,
    join_runs,
    list_files,
)
from brewline.quality.known_facts import known_pictures, known_recordings
from brewline.quality.leaks import Leaks, alike
from brewline.quality.page import validation_page
from brewline.quality.picture_facts import perceptual_hash
from brewline.quality.queries import check_audio, check_image
from brewline.quality.recording_facts import read_recording_facts
from brewline.quality.results import distribution, gather, write_tables
from brewline.quality.verdicts import Judge, Verdict
from brewline.stages import validate as validate_stage
from brewline.tables import parquet
from brewline.tables.facts import RecordingFacts
from brewline.tables.listing import Listing
from brewline.tables.manifest import MANIFEST, row_order
from brewline.tables.parquet import read_frame, read_table, write_table

PROJECT = Path(__file__).parents[2]
DECODE_LIMIT_S = 60.0
MAX_MEGAPIXELS = 250.0


@pytest.fixture
def limits() -> ValidateParams:
    return ValidateParams(**tone_limits())


def reason(content: bytes, limits: ValidateParams) -> str | None:
    fault = check_audio(content, limits).fault
    return fault.reason if fault else None


@pytest.mark.parametrize("planted", corrupted_recordings())
def test_each_corruption_has_its_reason(planted: str, limits: ValidateParams) -> None:
    fault = check_audio(corrupted_recordings()[planted], limits).fault
    assert fault
    assert fault.reason == planted
    assert fault.detail


# A second of speech-like level at 16 kHz, by hand.
GOOD = RecordingFacts(
    sha256="0" * 64,
    content="0" * 32,
    duration_s=1.0,
    promised_duration_s=1.0,
    has_end=True,
    sample_rate_hz=16_000,
    num_channels=1,
    num_samples=16_000,
    num_non_finite=0,
    num_clipped=0,
    low=-0.5,
    high=0.5,
    mean=0.0,
    rms_dbfs=-18.0,
    mono_peak=0.5,
    level_dbfs=-12.0,
    noise_dbfs=-50.0,
    burst_share=0.1,
    loudness_lufs=-20.0,
)
NO_LEAKS = Leaks(0, 0, [], [])


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("truncated", {"has_end": True}, {"has_end": False}),
        ("shorter_than_header", {"promised_duration_s": 1.09}, {"promised_duration_s": 1.11}),
        ("too_short", {"duration_s": 0.3}, {"duration_s": 0.29}),
        ("too_long", {"duration_s": 400.0}, {"duration_s": 400.1}),
        ("low_sample_rate", {"sample_rate_hz": 8000}, {"sample_rate_hz": 7999}),
        ("too_many_channels", {"num_channels": 2}, {"num_channels": 3}),
        ("non_finite", {"num_non_finite": 0}, {"num_non_finite": 1}),
        ("silent", {"low": -0.0011, "high": 0.0}, {"low": -0.0009, "high": 0.0009}),
        ("constant", {"low": 0.05, "high": 0.0521}, {"low": 0.05, "high": 0.0519}),
        ("channels_cancel", {"mono_peak": 0.0011}, {"mono_peak": 0.0009}),
        ("clipped", {"num_clipped": 1600}, {"num_clipped": 1601}),
        ("dc_offset", {"mean": -0.1}, {"mean": -0.11}),
        ("click", {"burst_share": 0.9}, {"burst_share": 0.91}),
        ("noise", {"noise_dbfs": -15.0}, {"noise_dbfs": -14.9}),
        ("no_speech", {"speech_share": None}, {"speech_share": 0.09}),
    ],
)
def test_each_check_on_both_sides_of_its_threshold(
    name: str, good: dict[str, Any], bad: dict[str, Any], limits: ValidateParams
) -> None:
    limits = limits.model_copy(update={"min_level_range_db": 3.0})
    check = AUDIO_CHECKS[name]
    assert not check.outcome(replace(GOOD, **good), limits).failed
    assert check.outcome(replace(GOOD, **bad), limits).failed
    assert hasattr(limits, check.threshold)


def test_no_check_is_without_a_test() -> None:
    marks = test_each_check_on_both_sides_of_its_threshold.pytestmark
    assert [case[0] for case in marks[0].args[1]] == list(AUDIO_CHECKS)


def test_require_stream_end_can_be_switched_off(limits: ValidateParams) -> None:
    lenient = limits.model_copy(update={"require_stream_end": False})
    assert AUDIO_CHECKS["truncated"].quantity(GOOD) == 1
    content = encode_audio(tone(1, 2.0))
    # The last page of Ogg, which has the end mark, is left out.
    content = content[: content.rindex(b"OggS")]
    assert reason(content, limits) == "truncated"
    assert reason(content, lenient) is None


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.sign(tone(3, 1.0)), "clipped"),
        (0.3 + 0.1 * tone(3, 1.0), "dc_offset"),
        (1e-4 * tone(3, 1.0), "silent"),
        (np.full(SAMPLE_RATE_HZ, 0.05, np.float32), "constant"),
    ],
)
@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16", "PCM_24"])
def test_unusable_signals(
    samples: np.ndarray, expected: str, subtype: str, limits: ValidateParams
) -> None:
    assert reason(encode_audio(samples, "WAV", subtype), limits) == expected


def test_too_long_and_low_rate(limits: ValidateParams) -> None:
    strict = limits.model_copy(update={"max_duration_s": 1.0})
    assert reason(encode_audio(tone(1, 2.0)), strict) == "too_long"
    assert reason(encode_audio(tone(1, 2.0), "WAV", "PCM_16", rate=4000), limits) == (
        "low_sample_rate"
    )


@pytest.mark.parametrize(
    ("format", "subtype"),
    [("OGG", "OPUS"), ("OGG", "VORBIS"), ("WAV", "PCM_16"), ("WAV", "FLOAT"), ("WAV", "PCM_24"),
     ("RF64", "PCM_16"), ("WAVEX", "PCM_16"), ("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")],
)  # fmt: skip
def test_a_good_recording_passes_in_every_codec(
    format: str, subtype: str, limits: ValidateParams
) -> None:
    finding = check_audio(encode_audio(tone(1, 1.0), format, subtype), limits)
    assert finding.fault is None
    assert isinstance(finding.facts, RecordingFacts)
    assert finding.facts.sample_rate_hz == SAMPLE_RATE_HZ
    assert finding.facts.duration_s == pytest.approx(1.0, abs=0.05)
    assert len(finding.facts.sha256) == 64


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_what_is_measured_of_hand_made_samples(subtype: str) -> None:
    samples = np.array([[0.5, -0.25], [1.0, 0.0], [-1.0, 0.25], [0.0, 0.0]], np.float32)
    signal = read_recording_facts(encode_audio(samples, "WAV", subtype, rate=8))
    # The highest 16-bit sample is a step below full scale.
    step = 1 / 32768 if subtype == "PCM_16" else 0.0
    assert signal.duration_s == signal.promised_duration_s == 0.5
    assert (signal.num_channels, signal.num_samples) == (2, 8)
    assert (signal.low, signal.high) == (-1.0, 1.0 - step)
    assert signal.num_clipped == 2
    assert signal.mean == pytest.approx(0.5 / 8, abs=2 * step)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    samples = np.array([0.5, np.nan, -np.inf, -0.25], np.float32)
    signal = read_recording_facts(encode_audio(samples, "WAV", "FLOAT", rate=4))
    assert (signal.num_samples, signal.num_non_finite, signal.num_clipped) == (4, 2, 0)
    assert (signal.low, signal.high) == (-0.25, 0.5)
    nothing = read_recording_facts(
        encode_audio(np.full(4, np.nan, np.float32), "WAV", "FLOAT", rate=4)
    )
    assert (nothing.num_non_finite, nothing.low, nothing.high, nothing.mean) == (4, 0, 0, 0)


@pytest.mark.parametrize(
    ("format", "subtype"), [("OGG", "OPUS"), ("OGG", "VORBIS"), ("FLAC", "PCM_16")]
)
def test_blocks_make_no_difference(
    format: str, subtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encode_audio(tone(1, 2.0), format, subtype)
    whole = read_recording_facts(content)
    monkeypatch.setattr("brewline.media.decoders._BLOCK_SAMPLES", 1000)
    parts = read_recording_facts(content)
    assert parts.num_samples == whole.num_samples == 2 * SAMPLE_RATE_HZ
    assert (parts.low, parts.high) == (whole.low, whole.high)
    assert parts.mean == pytest.approx(whole.mean, abs=1e-9)


def test_images(limits: ValidateParams) -> None:
    def fault(content: bytes) -> str | None:
        found = check_image(content, limits).fault
        return found.reason if found else None

    good = picture(1)
    assert fault(good) is None
    assert fault(good[: len(good) // 2]) == "bad_image"
    assert fault(b"<html>") == "bad_image"
    assert fault(picture(1, (200, 20))) == "small_image"
    # No address of this process in the detail, so that equal corpora give equal tables.
    assert check_image(b"<html>", limits).fault == (
        "bad_image",
        "no known image format (JPEG, PNG, WEBP, GIF, BMP, TIFF); starts with '<html>'",
    )


def test_formats_whose_decoders_start_programs_are_refused(limits: ValidateParams) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "EPS")
    assert check_image(buffer.getvalue(), limits).fault


def test_the_listing_itself(tmp_path: Path, limits: ValidateParams) -> None:
    ok = {"utterance_id": "a", "split": "train", "audio_path": "a.wav", "speaker_id": "1"}

    def fault(**facts: str) -> str | None:
        found = check_listing(Listing(**(ok | facts)))
        return found.reason if found else None

    assert fault() is None
    assert fault(caption="Straße mit Bäumen") is None
    assert fault(utterance_id="a.b") == "bad_key"
    assert fault(caption="  ") == "empty_caption"
    latin_1 = "Bäume".encode("latin-1")
    assert fault(caption=latin_1.decode("utf-8", "surrogateescape")) == "bad_text"
    assert fault(caption=latin_1.decode("utf-8", "replace")) == "bad_text"
    (verdict,) = judged(MediaStore(tmp_path), [Listing(**ok)], tmp_path / "facts", limits)
    assert verdict.reason == "missing_audio"


def test_what_is_no_text_can_still_be_quarantined(tmp_path: Path) -> None:
    listing = Listing("B\udce4ume", "train", "B\udce4ume.wav", "1", caption="B\udce4ume")
    row = Verdict(listing, "bad_key", "x").quarantine_row()
    assert row["utterance_id"] == "B\\udce4ume"
    assert row["image_path"] is None


def judged(
    store: MediaStore,
    listings: list[Listing],
    facts: Path,
    limits: ValidateParams,
    decode_limit_s: float = DECODE_LIMIT_S,
) -> list[Verdict]:
    """Both stages."""
    write_facts(store, listings, facts, decode_limit_s)
    return list(Judge(store, facts, limits).corpus(listings))


class Corpus:
    """Localized Narratives with planted faults, listed."""

    def __init__(self, folder: Path) -> None:
        self.planted = make_lncoco(folder)
        self.store = MediaStore(folder)
        source = SourceParams(
            reader="localized_narratives", licence="", files={}, dev_fraction=0.25
        )
        self.listings = READERS[source.reader](self.store, source)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(tmp_path / "ln")


def validate(
    corpus: Corpus,
    folder: Path,
    limits: ValidateParams,
    published: ExpectedParams | None = None,
    decode_limit_s: float = DECODE_LIMIT_S,
) -> tuple[pandas.DataFrame, pandas.DataFrame, Any]:
    """The manifest, the quarantine and the results."""
    found = judged(corpus.store, corpus.listings, folder / "facts", limits, decode_limit_s)
    manifest, quarantine = folder / "m.parquet", folder / "q.parquet"
    duplicates, leaks = write_tables(found, "ln", manifest, quarantine)
    good, bad = read_frame(manifest), read_frame(quarantine)
    listed = account(corpus.listings, len(bad))
    words = count_words(good)
    outcomes = expect(good, words, listed, leaks, limits, published)
    rows = bad.to_dict("records")
    return good, bad, gather(good, words, rows, listed, duplicates, leaks, outcomes)


def test_captions_that_a_layout_does_not_have_are_counted_by_split(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams
) -> None:
    listings = [
        replace(one, caption=None if one.split == "train" else one.caption)
        for one in corpus.listings
    ]
    corpus.listings = listings
    good, bad, results = validate(corpus, tmp_path, limits)
    num_train = int((good["split"] == "train").sum())
    assert num_train
    assert {split: facts["without_caption"] for split, facts in results.splits.items()} == {
        "train": num_train,
        "dev": 0,
        "test": 0,
    }
    page = validation_page("ln", results, bad.to_dict("records"), corpus.store)
    assert "<th>without caption</th>" in page
    assert f"<td>{num_train}</td><td>{num_train}</td>" in page


def test_corpus_counts_add_up_and_only_the_corrupted_are_dropped(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams
) -> None:
    # One picture is missing, and one id is used twice.
    corpus.listings.append(
        Listing("extra", "test", "coco_val/coco_val_1_41.ogg", "1", "9", "val2017/9.jpg", "x")
    )
    corpus.listings.append(corpus.listings[-2])
    good, bad, results = validate(corpus, tmp_path, limits)
    dropped = dict(zip(bad["utterance_id"], bad["reason"], strict=True))
    duplicate = corpus.listings[-1].utterance_id
    assert dropped == corpus.planted | {"extra": "missing_image", duplicate: "duplicate_id"}
    assert len(good) + len(bad) == len(corpus.listings) == results.num_listed
    assert good["duration_s"].min() > 0.4
    ids = list(zip(good["split"], good["utterance_id"], strict=True))
    assert ids == sorted(ids, key=lambda row: row_order(*row))
    assert ["quarantined" in one.rule for one in results.failed] == [True]
    complaint = results.complaint("ln")
    assert "quarantine_rate" in complaint
    most, count = next(iter(results.reasons.items()))
    assert f"Most are dropped as `{most}`: {count} of {len(bad)}" in complaint


def test_of_two_rows_with_one_id_the_good_one_stays(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams
) -> None:
    """Whatever is wrong with the other, and whichever comes first."""
    ok = [row for row in corpus.listings if row.utterance_id not in corpus.planted]
    damaged = next(row for row in corpus.listings if row.utterance_id in corpus.planted)
    bad = [
        replace(damaged, utterance_id=ok[0].utterance_id),
        replace(ok[1], image_path="val2017/none.jpg"),
        replace(ok[2], audio_path="none.ogg"),
        replace(ok[3], speaker_id="\udce9"),
    ]
    twice = replace(ok[4], caption="another")
    listings = [*bad, *ok[:5], twice]
    found = judged(corpus.store, listings, tmp_path / "facts", limits)
    assert Counter(row.listing.utterance_id for row in found if not row.reason) == {
        row.utterance_id: 1 for row in ok[:5]
    }
    dropped = {row.listing.utterance_id: row.reason for row in found if row.reason}
    assert list(map(dropped.get, (row.utterance_id for row in ok[:5]))) == [
        verdict.reason
        for verdict in judged(
            corpus.store, [replace(bad[0], utterance_id="x")], tmp_path / "alone", limits
        )
    ] + ["missing_image", "missing_audio", "bad_text", "duplicate_id"]


def test_a_corpus_that_is_there_to_measure_on_meets_its_expectations(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams
) -> None:
    test = [row for row in corpus.listings if row.split == "test"]
    train = [row for row in corpus.listings if row.split == "train"]
    corpus.listings = [row for row in test if row.utterance_id not in corpus.planted]
    _, _, results = validate(corpus, tmp_path, limits)
    assert not results.failed
    corpus.listings += [replace(row, audio_path="none.ogg") for row in train]
    _, _, results = validate(corpus, tmp_path, limits)
    complaint = results.complaint("ln")
    assert "train and test, which the corpus lists, are not empty (observed no train; " in complaint


@pytest.mark.parametrize(("rate", "is_good"), [(0.3, True), (0.2, False), (None, False)])
def test_a_corpus_may_have_a_quarantine_rate_of_its_own(
    rate: float | None, is_good: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of a published corpus lacks some of it, and the others keep their limit."""
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())
    values |= {name: {} for name in ("experiments", "tables", "sound_tables", "probes")}
    values |= {"corpora": ["mine"], "probed_corpora": []}
    source = {"reader": "folder", "licence": "", "files": {}, "index": "i.csv"}
    values["sources"] = {"mine": source}
    values["validate"] = tone_limits() | {"max_quarantine_rate": 0.1}
    if rate is not None:
        values["validate_of"] = {"mine": {"max_quarantine_rate": rate}}
    raw = tmp_path / "data/raw/mine"
    raw.mkdir(parents=True)
    for number in range(3):
        (raw / f"{number}.wav").write_bytes(encode_audio(tone(number, 1.0), "WAV", "PCM_16"))
    rows = "".join(f"{number}.wav,test\n" for number in range(4))
    (raw / "i.csv").write_text("audio,split\n" + rows)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.chdir(tmp_path)
    store = MediaStore(raw)
    listings = READERS["folder"](store, SourceParams(**source))
    write_facts(store, listings, tmp_path / "data/facts/mine")
    monkeypatch.setattr("sys.argv", ["validate", "mine"])
    monkeypatch.setattr(gc, "disable", lambda: None)
    with nullcontext() if is_good else pytest.raises(SystemExit):
        validate_stage.main()
    assert Path("data/manifest/mine.parquet").exists() == is_good


def test_a_broken_line_is_counted_and_explained(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams
) -> None:
    broken = Listing("i-7", "", "", "", fault="i.jsonl, line 7: not JSON")
    corpus.listings.append(broken)
    _, bad, results = validate(corpus, tmp_path, limits)
    assert results.num_listed == len(corpus.listings)
    (row,) = bad[bad["reason"] == "bad_record"].to_dict("records")
    assert (row["utterance_id"], row["detail"]) == ("i-7", "i.jsonl, line 7: not JSON")
    text = "\n".join(explain(corpus.store, [broken], "i-7", tmp_path / "facts", limits))
    assert "`bad_record`: i.jsonl, line 7" in text


# How the kinds of damage in sample/corrupt.py must show.
REASONS = {
    "empty_file": "empty_file",
    "error_page": "not_audio",
    "truncated": "truncated",
    "garbage_inside": "damaged",
    "cut_wav": "shorter_than_header",
    "not_a_number": "non_finite",
    "silence": "silent",
    "too_short": "too_short",
}


@pytest.mark.slow
def test_of_the_miniature_corpus_the_damaged_are_dropped_and_no_other(
    tmp_path: Path,
) -> None:
    limits = load_params(PROJECT / "params.yaml").validation
    store = MediaStore(PROJECT / "sample/corpora/mini-lncoco")
    source = load_params(PROJECT / "params.yaml").sources["mini-lncoco"]
    listings = READERS[source.reader](store, source)
    planted = json.loads((PROJECT / "sample/corpora/mini-lncoco.corrupted.json").read_text())
    assert set(planted.values()) == set(REASONS)
    found = {
        verdict.listing.utterance_id: verdict.reason
        for verdict in judged(store, listings, tmp_path, limits)
        if verdict.reason
    }
    assert found == {name: REASONS[kind] for name, kind in planted.items()}


def test_each_file_is_opened_once_in_the_order_of_its_archive(
    corpus: Corpus, tmp_path: Path
) -> None:
    # Another narrative of each picture, and of each recording.
    again = [replace(row, utterance_id=f"{row.utterance_id}-b") for row in corpus.listings]
    found = list_files(corpus.store, corpus.listings + again, tmp_path)
    stored = []
    for archive in sorted(corpus.store.root.glob("*.tar")):
        with tarfile.open(archive) as members:
            stored += members.getnames()
    for kind, suffix in (("recordings", ".ogg"), ("pictures", ".jpg")):
        names = [file.name for file in found[kind].read(0)]
        assert len(names) == len(set(names)) == 32 == found[kind].num_files
        assert names == [name for name in stored if name in set(names)]
        assert all(name.endswith(suffix) for name in names)


class LoggingInspection(Inspection):
    """Notes which files are opened, in a file beside the tables."""

    def prepare(self) -> Callable[[MediaTask], dict[str, Any]]:  # type: ignore[override]
        inspector = super().prepare()

        def inspect(task: MediaTask) -> dict[str, Any]:
            with self.folder.with_name("opened").open("a") as log:
                log.write(f"{task.name}\n")
            return inspector(task)

        return inspect


@pytest.mark.parametrize("engine", ["processes", pytest.param("ray", marks=pytest.mark.slow)])
def test_a_stopped_inspection_opens_no_file_again(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: EngineName
) -> None:
    monkeypatch.setattr(file_runs, "_FEWEST_FILES", 10)
    monkeypatch.setattr(inspection, "Inspection", LoggingInspection)
    write_facts(corpus.store, corpus.listings, tmp_path / "whole")
    whole = sha256_tree(tmp_path / "whole")
    files, rows = list_files(corpus.store, corpus.listings, tmp_path / "files"), tmp_path / "rows"

    def inspect(workers: int) -> list[str]:
        with open_engine(engine, workers, "local") as opened:
            inspect_files(opened, corpus.store.root, files, rows, DECODE_LIMIT_S, MAX_MEGAPIXELS)
        names = (tmp_path / "opened").read_text().split()
        (tmp_path / "opened").unlink()
        return names

    assert len(inspect(1)) == 64
    tables = sorted(rows.iterdir())
    assert len(tables) == 8
    times = {path: path.stat().st_mtime_ns for path in tables}
    lost = rows / "recordings-000002.parquet"
    lost.unlink()
    # Who was killed while he wrote a table leaves it under another name.
    shutil.copy(tables[0], rows / ".recordings-000002.parquet.partial")
    assert inspect(2) == [file.name for file in files["recordings"].read(2)]
    assert all(path.stat().st_mtime_ns == times[path] for path in tables if path != lost)
    join_runs(files, rows, tmp_path / "again")
    assert sha256_tree(tmp_path / "again") == whole


def test_how_the_work_was_cut_is_not_to_be_seen(
    corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it show where a row group ends."""
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 16)
    digests = []
    for fewest in (7, 32, 64):
        monkeypatch.setattr(file_runs, "_FEWEST_FILES", fewest)
        write_facts(corpus.store, corpus.listings, tmp_path / str(fewest))
        digests.append(sha256_tree(tmp_path / str(fewest)))
    facts = pyarrow.parquet.ParquetFile(tmp_path / "7/recordings.parquet")
    assert [facts.metadata.row_group(n).num_rows for n in range(facts.num_row_groups)] == [16, 16]
    assert len(set(digests)) == 1


def test_a_unit_travels_small_and_so_does_the_job(corpus: Corpus, tmp_path: Path) -> None:
    files = list_files(corpus.store, corpus.listings, tmp_path / "files")
    job = Inspection(corpus.store.root, files, tmp_path / "rows", 1.0, MAX_MEGAPIXELS, False)
    assert len(pickle.dumps((job, InspectionRun("recordings", 0)))) < 2000


def test_a_threshold_is_tried_without_opening_a_file(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_facts(corpus.store, corpus.listings, tmp_path)

    def refuse(*_: object) -> None:
        raise AssertionError("a file is opened")

    monkeypatch.setattr(MediaStore, "read", refuse)
    strict = limits.model_copy(update={"max_duration_s": 0.5})
    reasons = Counter(
        v.reason for v in Judge(corpus.store, tmp_path, strict).corpus(corpus.listings)
    )
    assert reasons["too_long"] > 20


def test_files_that_came_later_are_named(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams
) -> None:
    write_facts(corpus.store, corpus.listings[:-1], tmp_path)
    with pytest.raises(BrewlineError, match=r"does not know 'coco_.*; run `dvc repro`"):
        list(Judge(corpus.store, tmp_path, limits).corpus(corpus.listings))


def test_two_channels_that_cancel_each_other_are_silence_to_a_model(limits: ValidateParams) -> None:
    left = tone(1, 1.0)
    for subtype in ("PCM_16", "FLOAT"):
        assert reason(encode_audio(np.stack([left, -left], 1), "WAV", subtype), limits) == (
            "channels_cancel"
        )
        assert reason(encode_audio(np.stack([left, left], 1), "WAV", subtype), limits) is None
        # One channel is enough to be heard.
        assert reason(encode_audio(np.stack([left, 0 * left], 1), "WAV", subtype), limits) is None


def spoken(number: int) -> np.ndarray:
    """A tone with syllables and pauses: (num_samples,) float32."""
    time_s = np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    return (tone(number, 2.0) * np.clip(np.sin(2 * np.pi * 3 * time_s), 0, 1)).astype(np.float32)


def test_noise_and_a_click_are_no_speech(limits: ValidateParams) -> None:
    limits = limits.model_copy(update={"min_level_range_db": 3.0})
    rng = np.random.default_rng(0)
    noise = (0.05 * rng.normal(size=2 * SAMPLE_RATE_HZ)).astype(np.float32)
    click = 1e-4 * noise
    click[SAMPLE_RATE_HZ : SAMPLE_RATE_HZ + 40] = 0.9
    hum = 0.1 * np.sin(2 * np.pi * 50 * np.arange(2 * SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ)
    for format, subtype in (("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")):
        assert reason(encode_audio(noise, format, subtype), limits) == "noise"
        assert reason(encode_audio(hum.astype(np.float32), format, subtype), limits) == "noise"
        assert reason(encode_audio(click, format, subtype), limits) == "click"
        assert reason(encode_audio(spoken(1), format, subtype), limits) is None
        # A voice in the room of that noise.
        assert reason(encode_audio(spoken(1) + noise / 4, format, subtype), limits) is None


@pytest.mark.skipif(not find_spec("silero_vad"), reason="silero-vad is not installed")
def test_the_share_of_speech_is_found_where_it_is_asked_for(
    tmp_path: Path, limits: ValidateParams
) -> None:
    from brewline.quality.speech_share import SpeechShare

    heard = SpeechShare()
    recording = (PROJECT / "sample/recording.ogg").read_bytes()
    assert heard(to_mono_16k(decode(recording))) > 0.5
    assert heard(spoken(1)) < 0.1
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/a.wav").write_bytes(encode_audio(spoken(1), "WAV", "PCM_16"))
    (tmp_path / "raw/b.ogg").write_bytes(recording)
    store = MediaStore(tmp_path / "raw")
    listings = [Listing("a", "train", "a.wav", "1"), Listing("b", "train", "b.ogg", "1")]
    write_facts(store, listings, tmp_path / "facts", with_speech_share=True)
    found = [v.reason for v in Judge(store, tmp_path / "facts", limits).corpus(listings)]
    assert found == ["no_speech", None]


def test_levels_by_hand() -> None:
    # Ten frames of 20 ms at 8 kHz: one loud, four at a tenth of it, five silent.
    loud = np.repeat([0.5, 0.05, 0.05, 0.05, 0.05, 0, 0, 0, 0, 0], 160).astype(np.float32)
    loud[::2] *= -1
    facts = read_recording_facts(encode_audio(loud, "WAV", "FLOAT", rate=8000))
    energy = 0.25 + 4 * 0.0025
    assert facts.rms_dbfs == pytest.approx(10 * np.log10(energy / 10), abs=1e-3)
    assert facts.burst_share == pytest.approx((0.25 + 2 * 0.0025) / energy, abs=1e-5)
    # The ninth of ten in order, and the first.
    assert facts.level_dbfs == pytest.approx(20 * np.log10(0.05), abs=1e-3)
    assert facts.noise_dbfs == -200.0
    short = read_recording_facts(encode_audio(loud[:40], "WAV", "FLOAT", rate=8000))
    assert short.level_dbfs == pytest.approx(20 * np.log10(0.5), abs=1e-3)


def test_content_is_alike_in_another_lossless_container() -> None:
    # As integers: the encoders round in ways of their own.
    samples = (spoken(1) * 32767).astype(np.int16)
    wav = read_recording_facts(encode_audio(samples, "WAV", "PCM_16"))
    flac = read_recording_facts(encode_audio(samples, "FLAC", "PCM_16"))
    assert wav.content == flac.content
    assert wav.sha256 != flac.sha256
    changed = samples.copy()
    changed[500] += 300
    others = [changed, -samples, samples[::-1].copy(), samples[1:]]
    contents = {
        read_recording_facts(encode_audio(each, "WAV", "PCM_16")).content for each in others
    }
    assert len(contents | {wav.content}) == 5


def test_columns_are_judged_like_one_file_after_the_other(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams
) -> None:
    write_facts(corpus.store, corpus.listings, tmp_path)
    strict = limits.model_copy(update={"min_duration_s": 0.55, "min_image_side_px": 41})
    for known, checks in (
        (known_recordings(tmp_path), AUDIO_CHECKS),
        (known_pictures(tmp_path), IMAGE_CHECKS),
    ):
        path = tmp_path / f"{'recordings' if checks is AUDIO_CHECKS else 'pictures'}.parquet"
        names = [row["path"] for row in read_table(path)]
        for thresholds in (limits, strict):
            one_by_one = []
            for place in known.rows(names):
                facts = known[place]
                is_open = not isinstance(facts, Fault)
                one_by_one.append(not is_open or bool(first_fault(checks, facts, thresholds)))
            assert known.at_fault(checks, thresholds).tolist() == one_by_one


def test_pictures_that_look_alike_have_hashes_alike() -> None:
    rng = np.random.default_rng(0)

    def scene() -> Image.Image:
        rough = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
        return rough.resize((320, 240), Image.Resampling.BICUBIC)

    scenes = [scene() for _ in range(200)]
    buffer = io.BytesIO()
    scenes[7].resize((200, 150)).save(buffer, "JPEG", quality=60)
    hashes = [perceptual_hash(image) for image in [*scenes, Image.open(buffer)]]
    pairs = alike(np.array([int(str(one), 16) for one in hashes], np.uint64))
    assert pairs.tolist() == [[7, 200]]
    # A picture of one colour looks like no other one.
    assert perceptual_hash(Image.open(io.BytesIO(picture(1)))) is None


def test_alike_against_a_slow_oracle() -> None:
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 1 << 63, 300, dtype=np.uint64)
    for place in range(100):
        bits = rng.choice(64, rng.integers(0, 5), replace=False)
        hashes[place + 100] = hashes[place] ^ np.uint64(sum(1 << int(bit) for bit in bits))
    expected = [
        [one, other]
        for one in range(300)
        for other in range(one + 1, 300)
        if (int(hashes[one]) ^ int(hashes[other])).bit_count() <= 2
    ]
    assert alike(hashes).tolist() == expected
    assert len(expected) > 30
    assert alike(np.zeros(0, np.uint64)).shape == (0, 2)


def test_what_is_in_two_splits_under_two_names_fails(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams
) -> None:
    _, _, results = validate(corpus, tmp_path / "before", limits)
    assert not [one for one in results.failed if "leaked" in one.name]
    train = next(row for row in corpus.listings if row.split == "train" and good_one(corpus, row))
    corpus.listings.append(
        replace(train, utterance_id="copy", split="test", image_id="copy", caption="another")
    )
    _, _, results = validate(corpus, tmp_path / "after", limits)
    leaked = [one for one in results.failed if "leaked" in one.name]
    assert len(leaked) == 1
    assert "have the samples of one in an earlier split" in leaked[0].rule
    assert results.leaks["recordings"] == [("copy", train.utterance_id)]
    page = validation_page("ln", results, [], corpus.store)
    assert f"<td><code>copy</code></td><td><code>{train.utterance_id}</code></td>" in page


def good_one(corpus: Corpus, row: Listing) -> bool:
    return row.utterance_id not in corpus.planted


def test_a_damaged_member_of_an_archive_costs_its_own_utterance(
    tmp_path: Path, limits: ValidateParams
) -> None:
    folder = tmp_path / "r"
    make_ravdess(folder)
    (archive,) = folder.iterdir()
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as members:
        first = members.infolist()[0]
    # Inside the samples of the first recording; the zip has its checksum.
    content[first.header_offset + 2000] ^= 1
    archive.write_bytes(content)
    store = MediaStore(folder)
    listings = READERS["ravdess"](store, SourceParams(reader="ravdess", licence="", files={}))
    reasons = {
        row.listing.audio_path: row.reason
        for row in judged(store, listings, tmp_path / "facts", limits)
    }
    assert [name for name, reason in reasons.items() if reason] == [first.filename]
    assert reasons[first.filename] == "unreadable"


class DyingInspector(Inspector):
    """Dies of one recording and one picture, and hangs at another of each."""

    def __call__(self, task: MediaTask) -> dict[str, Any]:
        if task.name in ("coco_val/coco_val_2_40.ogg", f"val2017/{5:012d}.jpg"):
            os.kill(os.getpid(), signal.SIGKILL)
        if task.name in ("coco_val/coco_val_3_41.ogg", f"val2017/{6:012d}.jpg"):
            time.sleep(60)
        return super().__call__(task)


class DyingInspection(Inspection):
    """With such an inspector."""

    def prepare(self) -> DyingInspector:
        return DyingInspector(super().prepare().files, self.max_megapixels)


def test_a_decoder_that_crashes_or_hangs_costs_its_own_utterance(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "Inspection", DyingInspection)
    _, bad, results = validate(corpus, tmp_path, limits, decode_limit_s=1.0)
    dropped = dict(zip(bad["utterance_id"], bad["reason"], strict=True))
    assert dropped == corpus.planted | {
        "coco_val_2_40": "decoder_crash",
        "coco_val_3_41": "decoder_timeout",
        "coco_val_5_41": "decoder_crash",
        "coco_val_6_40": "decoder_timeout",
    }
    details = dict(zip(bad["utterance_id"], bad["detail"], strict=True))
    assert details["coco_val_2_40"] == "its process ended with SIGKILL"
    assert details["coco_val_6_40"] == "not done after 1 s"
    assert results.num_good == 32 - len(dropped)


def test_equal_recordings_are_named_or_dropped(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams
) -> None:
    first = next(row for row in corpus.listings if row.utterance_id == "coco_val_4_40")
    corpus.listings.append(replace(first, utterance_id="coco_val_4_99"))
    good, _, results = validate(corpus, tmp_path, limits)
    assert "coco_val_4_99" in set(good["utterance_id"])
    # The tones of the two parts are equal where their number and length are.
    assert ("coco_val_4_99", good.loc[good["audio_sha256"].eq(
        good.set_index("utterance_id").loc["coco_val_4_99", "audio_sha256"]
    ), "utterance_id"].min()) in results.duplicates  # fmt: skip
    strict = limits.model_copy(update={"duplicate_audio": "quarantine"})
    good, bad, results = validate(corpus, tmp_path, strict)
    row = bad[bad["utterance_id"] == "coco_val_4_99"].iloc[0]
    assert row["reason"] == "duplicate_audio"
    assert row["detail"].startswith("the same bytes as coco_")
    assert results.num_duplicates == 0
    assert good["audio_sha256"].is_unique


def ravdess(folder: Path, limits: ValidateParams) -> tuple[pandas.DataFrame, Account]:
    make_ravdess(folder)
    source = SourceParams(reader="ravdess", licence="", files={}, dev_fraction=0.34)
    store = MediaStore(folder)
    listings = READERS["ravdess"](store, source)
    verdicts = judged(store, listings, folder.with_name("facts"), limits)
    rows = [verdict.manifest_row("r") for verdict in verdicts]
    write_table(folder / "manifest", MANIFEST, rows)
    return read_frame(folder / "manifest"), account(listings, 0)


def failed(outcomes: list[Expectation]) -> list[str]:
    return [f"{one.table}: {one.rule}" for one in outcomes if not one.success]


def test_expectations_notice_a_leak_between_splits_and_a_lost_row(
    tmp_path: Path, limits: ValidateParams
) -> None:
    frame, listed = ravdess(tmp_path / "r", limits)
    for column in ("image_id", "image_path"):
        frame[column] = frame[column].astype("str")
    assert not failed(expect(frame, count_words(frame), listed, NO_LEAKS, limits))
    frame.loc[0, "split"] = "test"
    assert failed(expect(frame[:-1], count_words(frame), listed, NO_LEAKS, limits)) == [
        "speakers: no speaker is in two splits",
        "corpus: all 8 listed utterances are in the manifest or in the quarantine",
    ]


def test_fingerprints_are_made_of_what_is_looked_at_alone(
    tmp_path: Path, limits: ValidateParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Great Expectations makes one of each table, of a pickle if it has lists, as captions and
    # events of clips are. For 600,000 utterances that took a quarter of the stage, and the texts
    # of the whole manifest some seconds more.
    from great_expectations.execution_engine import pandas_execution_engine

    tables = []
    hashed = pandas_execution_engine.hash_pandas_dataframe

    def watch(table: pandas.DataFrame) -> str:
        tables.append(table)
        return str(hashed(table))

    def refuse(*_: Any) -> bytes:
        raise AssertionError("a table was pickled")

    monkeypatch.setattr(pandas_execution_engine, "hash_pandas_dataframe", watch)
    monkeypatch.setattr(pandas_execution_engine.pickle, "dumps", refuse)
    frame, listed = ravdess(tmp_path / "r", limits)
    assert expect(frame, count_words(frame), listed, NO_LEAKS, limits)
    schema = next(table for table in tables if "caption" in table)
    assert [*schema] == MANIFEST.names
    for name, column in schema.drop(columns=["captions", "events"]).items():
        assert column.dtype == frame[name].dtype
        assert column.isna().equals(frame[name].isna())
        if column.dtype == "str":
            assert set(column.dropna()) <= {""}


def test_lists_are_no_objects_and_captions_in_them_are_counted(tmp_path: Path) -> None:
    row = dict.fromkeys(MANIFEST.names) | {
        "corpus": "c", "split": "train", "audio_path": "a", "speaker_id": "1", "audio_sha256": "0",
        "duration_s": 1.0, "sample_rate_hz": 8000, "num_channels": 1, "is_clip": False, "events": []
    }  # fmt: skip
    said: list[dict[str, Any]] = [
        {"captions": ["one", "two words"]},
        {"captions": []},
        {"caption": "three of them", "captions": []},
    ]
    rows = [{**row, **one, "utterance_id": f"u{number}"} for number, one in enumerate(said)]
    write_table(tmp_path / "m", MANIFEST, rows)
    frame = read_frame(tmp_path / "m")
    assert sorted(count_words(frame)) == [1, 2, 3]
    assert count_words(frame).dtype == "int64"
    assert not [name for name, column in frame.items() if column.dtype == "object"]
    listed = Account({"train": 3}, {}, 0)
    found = gather(frame, count_words(frame), [], listed, [], NO_LEAKS, [])
    assert found.splits["train"]["without_caption"] == 1


def test_what_is_listed_is_gone_when_the_manifest_is_sorted(
    tmp_path: Path, limits: ValidateParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sorting takes as much memory as it, and the two together were the most of the stage."""
    corpus = Corpus(tmp_path / "ln")
    write_facts(corpus.store, corpus.listings, tmp_path / "facts", DECODE_LIMIT_S)
    verdicts = Judge(corpus.store, tmp_path / "facts", limits).corpus(corpus.listings)
    num_listed = len(corpus.listings)
    del corpus.listings

    def count() -> int:
        gc.collect()
        return sum(type(one) is Listing for one in gc.get_objects())

    before, left = count(), []
    monkeypatch.setattr("brewline.quality.results.sort_manifest", lambda _: left.append(count()))
    write_tables(verdicts, "ln", tmp_path / "m", tmp_path / "q")
    # The last one of the loop may be there.
    assert left[0] <= before - num_listed + 1


def test_expectations_know_published_counts_types_and_plausible_medians(
    tmp_path: Path, limits: ValidateParams
) -> None:
    frame, listed = ravdess(tmp_path / "r", limits)
    for column in ("image_id", "image_path"):
        frame[column] = frame[column].astype("str")
    right = ExpectedParams(utterances={"train+dev": 6, "test": 2}, tolerance=0.0)
    assert not failed(expect(frame, count_words(frame), listed, NO_LEAKS, limits, right))
    near = ExpectedParams(utterances={"train+dev+test": 9}, tolerance=0.12)
    assert not failed(expect(frame, count_words(frame), listed, NO_LEAKS, limits, near))
    wrong = ExpectedParams(utterances={"train+dev": 7}, images={"test": 1}, tolerance=0.1)
    assert failed(expect(frame, count_words(frame), listed, NO_LEAKS, limits, wrong)) == [
        "corpus: the corpus lists as many utterances of train+dev as published: 7",
        "corpus: the corpus lists as many images of test as published: 1",
    ]
    strict = limits.model_copy(
        update={"median_duration_s": [1.0, 2.0], "median_caption_words": [7.0, 9.0]}
    )
    assert failed(
        expect(
            frame.astype({"num_channels": "float64"}), count_words(frame), listed, NO_LEAKS, strict
        )
    ) == [
        "schema: num_channels is of type int64",
        "utterances: the median duration is plausible",
        "captions: the median number of words in a caption is plausible",
    ]


def test_a_corpus_of_which_nothing_is_good_fails_in_words(
    tmp_path: Path, limits: ValidateParams
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/a.wav").touch()
    corpus = Corpus.__new__(Corpus)
    corpus.store = MediaStore(tmp_path / "empty")
    corpus.listings = [Listing("a", "train", "a.wav", "1")]
    good, _, results = validate(corpus, tmp_path, limits)
    assert good.empty
    assert results.reasons == {"empty_file": 1}
    assert any("there are good utterances" in one.rule for one in results.failed)
    assert validation_page("x", results, [], corpus.store)


def test_data_docs_are_built_on_request(tmp_path: Path, limits: ValidateParams) -> None:
    frame, listed = ravdess(tmp_path / "r", limits)
    expect(frame, count_words(frame), listed, NO_LEAKS, limits, data_docs=tmp_path / "docs")
    assert (tmp_path / "docs/index.html").exists()


def test_distributions_by_hand() -> None:
    found = distribution([1, 2, 2, 3, 3, 3])
    assert (found.minimum, found.quartiles, found.maximum) == (1, (2.0, 2.5, 3.0), 3)
    assert found.edges == [1, 2, 3, 4]
    assert found.counts == [1, 2, 3]
    one = distribution([2.5])
    assert sum(one.counts) == 1
    assert len(one.edges) == len(one.counts) + 1
    many = distribution(np.arange(1000))
    assert sum(many.counts) == 1000
    assert len(many.counts) <= 31


def test_the_page_shows_everything_and_loads_nothing(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams
) -> None:
    _, bad, results = validate(corpus, tmp_path, limits)
    rows = bad.to_dict("records")
    rows[0]["detail"] = "<script>alert(1)</script>"
    page = validation_page("ln", results, rows, corpus.store)
    assert page == validation_page("ln", results, rows[::-1], corpus.store)
    for name, reason in corpus.planted.items():
        assert name in page
        assert reason in page
    assert "<script>alert" not in page
    assert "default-src 'none'" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "https://" not in page
    # Of eight corrupted recordings one is empty and one is a web page.
    assert page.count('src="data:audio') == 6
    assert str(tmp_path) not in page
    assert page.count('class="column"') > 5
    json.dumps(results.as_json())


def test_explain_shows_the_check_that_failed_with_its_numbers(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams
) -> None:
    write_facts(corpus.store, corpus.listings, tmp_path)
    short = next(name for name, why in corpus.planted.items() if why == "too_short")
    lines = list(explain(corpus.store, corpus.listings, short, tmp_path, limits))
    split = next(row.split for row in corpus.listings if row.utterance_id == short)
    assert lines[0] == f"{short} ({split}): `too_short`: 0.050 s, under 0.3 s"
    line, *_ = [line for line in lines if line.startswith("  FAIL")]
    assert "0.05 (min_duration_s: 0.3)" in line
    assert any("min_image_side_px: 32" in line for line in lines)
    good = list(explain(corpus.store, corpus.listings, "coco_val_4_40", tmp_path, limits))
    assert good[0] == "coco_val_4_40 (test): good"
    assert not any("FAIL" in line for line in good)
    empty = next(name for name, why in corpus.planted.items() if why == "empty_file")
    assert "the file has 0 bytes" in "\n".join(
        explain(corpus.store, corpus.listings, empty, tmp_path, limits)
    )
    with pytest.raises(BrewlineError, match="lists no utterance 'nobody'"):
        list(explain(corpus.store, corpus.listings, "nobody", tmp_path, limits))
