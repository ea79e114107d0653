"""Every planted corruption is caught with its reason; good recordings pass; the counts add up."""

import io
import json
import os
import signal
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
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
)

from brewline.config import load_params
from brewline.config.sources import ExpectedParams, SourceParams
from brewline.config.validate import ValidateParams
from brewline.core.errors import BrewlineError
from brewline.corpora.readers import READERS
from brewline.media.archives import MediaStore
from brewline.quality import verdicts
from brewline.quality.checks import AUDIO_CHECKS, Finding, check_audio, check_image, check_listing
from brewline.quality.corpus_suites import Account, account, expect
from brewline.quality.expectations import Expectation
from brewline.quality.explain import explain
from brewline.quality.page import validation_page
from brewline.quality.results import distribution, gather, write_tables
from brewline.quality.signals import Signal, read_signal
from brewline.quality.verdicts import MediaTask, Verdict, check_corpus
from brewline.tables.listing import Listing
from brewline.tables.manifest import MANIFEST, row_order

PROJECT = Path(__file__).parents[2]
DECODE_LIMIT_S = 60.0


@pytest.fixture
def limits() -> ValidateParams:
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())["validate"]
    return ValidateParams(**values)


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
GOOD = Signal(
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
)


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
        ("clipped", {"num_clipped": 1600}, {"num_clipped": 1601}),
        ("dc_offset", {"mean": -0.1}, {"mean": -0.11}),
    ],
)
def test_each_check_on_both_sides_of_its_threshold(
    name: str, good: dict[str, Any], bad: dict[str, Any], limits: ValidateParams
) -> None:
    from dataclasses import replace

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
    assert isinstance(finding.facts, Signal)
    assert finding.facts.sample_rate_hz == SAMPLE_RATE_HZ
    assert finding.facts.duration_s == pytest.approx(1.0, abs=0.05)
    assert len(finding.sha256) == 64


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_what_is_measured_of_hand_made_samples(subtype: str) -> None:
    samples = np.array([[0.5, -0.25], [1.0, 0.0], [-1.0, 0.25], [0.0, 0.0]], np.float32)
    signal = read_signal(encode_audio(samples, "WAV", subtype, rate=8))
    # The highest 16-bit sample is a step below full scale.
    step = 1 / 32768 if subtype == "PCM_16" else 0.0
    assert signal.duration_s == signal.promised_duration_s == 0.5
    assert (signal.num_channels, signal.num_samples) == (2, 8)
    assert (signal.low, signal.high) == (-1.0, 1.0 - step)
    assert signal.num_clipped == 2
    assert signal.mean == pytest.approx(0.5 / 8, abs=2 * step)


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    samples = np.array([0.5, np.nan, -np.inf, -0.25], np.float32)
    signal = read_signal(encode_audio(samples, "WAV", "FLOAT", rate=4))
    assert (signal.num_samples, signal.num_non_finite, signal.num_clipped) == (4, 2, 0)
    assert (signal.low, signal.high) == (-0.25, 0.5)
    nothing = read_signal(encode_audio(np.full(4, np.nan, np.float32), "WAV", "FLOAT", rate=4))
    assert (nothing.num_non_finite, nothing.low, nothing.high, nothing.mean) == (4, 0, 0, 0)


@pytest.mark.parametrize(
    ("format", "subtype"), [("OGG", "OPUS"), ("OGG", "VORBIS"), ("FLAC", "PCM_16")]
)
def test_blocks_make_no_difference(
    format: str, subtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encode_audio(tone(1, 2.0), format, subtype)
    whole = read_signal(content)
    monkeypatch.setattr("brewline.media.decoders._BLOCK_SAMPLES", 1000)
    parts = read_signal(content)
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
    (verdict,) = check_corpus(MediaStore(tmp_path), [Listing(**ok)], limits, 1, DECODE_LIMIT_S)
    assert verdict.reason == "missing_audio"


def test_what_is_no_text_can_still_be_quarantined(tmp_path: Path) -> None:
    listing = Listing("B\udce4ume", "train", "B\udce4ume.wav", "1", caption="B\udce4ume")
    row = Verdict(listing, "bad_key", "x").quarantine_row()
    assert row["utterance_id"] == "B\\udce4ume"
    assert row["image_path"] is None


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
    found = check_corpus(corpus.store, corpus.listings, limits, 2, decode_limit_s)
    manifest, quarantine = folder / "m.parquet", folder / "q.parquet"
    duplicates = write_tables(found, "ln", manifest, quarantine)
    good, bad = pandas.read_parquet(manifest), pandas.read_parquet(quarantine)
    listed = account(corpus.listings, len(bad))
    outcomes = expect(good, listed, limits, published)
    return good, bad, gather(good, bad.to_dict("records"), listed, duplicates, outcomes)


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
    limits: ValidateParams,
) -> None:
    store = MediaStore(PROJECT / "sample/corpora/mini-lncoco")
    source = load_params(PROJECT / "params.yaml").sources["mini-lncoco"]
    listings = READERS[source.reader](store, source)
    planted = json.loads((PROJECT / "sample/corpora/mini-lncoco.corrupted.json").read_text())
    assert set(planted.values()) == set(REASONS)
    found = {
        verdict.listing.utterance_id: verdict.reason
        for verdict in check_corpus(store, listings, limits, 2, DECODE_LIMIT_S)
        if verdict.reason
    }
    assert found == {name: REASONS[kind] for name, kind in planted.items()}


def test_each_picture_is_opened_once(
    corpus: Corpus, limits: ValidateParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[MediaTask] = []

    class Pool:
        """Answers at once, and notes the questions."""

        def __enter__(self) -> "Pool":
            return self

        def __exit__(self, *args: object) -> None:
            pass

        def map(self, tasks: Any) -> Any:
            for task in tasks:
                asked.append(task)
                yield Finding(None, GOOD, f"{len(asked):064x}")

    monkeypatch.setattr(verdicts, "open_pool", lambda *args: Pool())
    # Another narrative of each picture.
    again = [replace(row, utterance_id=f"{row.utterance_id}-b") for row in corpus.listings]
    found = list(check_corpus(corpus.store, corpus.listings + again, limits, 1, DECODE_LIMIT_S))
    assert len(found) == 64
    images = [task.name for task in asked if task.kind == "image"]
    assert len(images) == len(set(images)) == 32


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
        for row in check_corpus(store, listings, limits, 1, DECODE_LIMIT_S)
    }
    assert [name for name, reason in reasons.items() if reason] == [first.filename]
    assert reasons[first.filename] == "unreadable"


class DyingChecker(verdicts.MediaChecker):
    """Dies of one recording and one picture, and hangs at another of each."""

    def __call__(self, task: MediaTask) -> Finding:
        if task.name in ("coco_val/coco_val_2_40.ogg", f"val2017/{5:012d}.jpg"):
            os.kill(os.getpid(), signal.SIGKILL)
        if task.name in ("coco_val/coco_val_3_41.ogg", f"val2017/{6:012d}.jpg"):
            time.sleep(60)
        return super().__call__(task)


def test_a_decoder_that_crashes_or_hangs_costs_its_own_utterance(
    corpus: Corpus, tmp_path: Path, limits: ValidateParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "MediaChecker", DyingChecker)
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
    rows = [v.manifest_row("r") for v in check_corpus(store, listings, limits, 1, DECODE_LIMIT_S)]
    return pandas.DataFrame(rows, columns=MANIFEST.names), account(listings, 0)


def failed(outcomes: list[Expectation]) -> list[str]:
    return [f"{one.table}: {one.rule}" for one in outcomes if not one.success]


def test_expectations_notice_a_leak_between_splits_and_a_lost_row(
    tmp_path: Path, limits: ValidateParams
) -> None:
    frame, listed = ravdess(tmp_path / "r", limits)
    for column in ("image_id", "image_path"):
        frame[column] = frame[column].astype("str")
    assert not failed(expect(frame, listed, limits))
    frame.loc[0, "split"] = "test"
    assert failed(expect(frame[:-1], listed, limits)) == [
        "speakers: no speaker is in two splits",
        "corpus: all 8 listed utterances are in the manifest or in the quarantine",
    ]


def test_expectations_know_published_counts_types_and_plausible_medians(
    tmp_path: Path, limits: ValidateParams
) -> None:
    frame, listed = ravdess(tmp_path / "r", limits)
    for column in ("image_id", "image_path"):
        frame[column] = frame[column].astype("str")
    right = ExpectedParams(utterances={"train+dev": 6, "test": 2}, tolerance=0.0)
    assert not failed(expect(frame, listed, limits, right))
    near = ExpectedParams(utterances={"train+dev+test": 9}, tolerance=0.12)
    assert not failed(expect(frame, listed, limits, near))
    wrong = ExpectedParams(utterances={"train+dev": 7}, images={"test": 1}, tolerance=0.1)
    assert failed(expect(frame, listed, limits, wrong)) == [
        "corpus: the corpus lists as many utterances of train+dev as published: 7",
        "corpus: the corpus lists as many images of test as published: 1",
    ]
    strict = limits.model_copy(
        update={"median_duration_s": [1.0, 2.0], "median_caption_words": [7.0, 9.0]}
    )
    assert failed(expect(frame.astype({"num_channels": "float64"}), listed, strict)) == [
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
    expect(frame, listed, limits, data_docs=tmp_path / "docs")
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
    corpus: Corpus, limits: ValidateParams
) -> None:
    short = next(name for name, why in corpus.planted.items() if why == "too_short")
    lines = list(explain(corpus.store, corpus.listings, short, limits, DECODE_LIMIT_S))
    split = next(row.split for row in corpus.listings if row.utterance_id == short)
    assert lines[0] == f"{short} ({split}): `too_short`: 0.050 s, under 0.3 s"
    (line,) = [line for line in lines if line.startswith("  FAIL")]
    assert "0.05 (min_duration_s: 0.3)" in line
    assert any("min_image_side_px: 32" in line for line in lines)
    good = list(explain(corpus.store, corpus.listings, "coco_val_4_40", limits, DECODE_LIMIT_S))
    assert good[0] == "coco_val_4_40 (test): good"
    assert not any("FAIL" in line for line in good)
    empty = next(name for name, why in corpus.planted.items() if why == "empty_file")
    assert "the file has 0 bytes" in "\n".join(
        explain(corpus.store, corpus.listings, empty, limits, DECODE_LIMIT_S)
    )
    with pytest.raises(BrewlineError, match="lists no utterance 'nobody'"):
        list(explain(corpus.store, corpus.listings, "nobody", limits, DECODE_LIMIT_S))
