"""Every planted corruption is caught with its reason; good recordings pass; the counts add up."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from world import (
    SAMPLE_RATE_HZ,
    corrupted_recordings,
    encode_audio,
    make_lncoco,
    make_ravdess,
    picture,
    tone,
)

from brewline.archives import MediaStore
from brewline.corpora import READERS
from brewline.corpora.listing import Listing
from brewline.params import SourceParams, ValidateParams
from brewline.quality import check_audio, check_corpus, check_image, check_utterance, expect

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def limits() -> ValidateParams:
    values = yaml.safe_load((PROJECT / "params.yaml").read_text())["validate"]
    return ValidateParams(**values)


@pytest.mark.parametrize("reason", corrupted_recordings())
def test_each_corruption_has_its_reason(reason: str, limits: ValidateParams) -> None:
    audio, found, detail = check_audio(corrupted_recordings()[reason], limits)
    assert audio is None
    assert found == reason
    assert detail


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (np.sign(tone(3, 1.0)), "clipped"),
        (0.3 + 0.1 * tone(3, 1.0), "dc_offset"),
        (1e-4 * tone(3, 1.0), "silent"),
    ],
)
def test_unusable_signals(samples: np.ndarray, reason: str, limits: ValidateParams) -> None:
    content = encode_audio(samples, "WAV", "FLOAT")
    assert check_audio(content, limits)[1] == reason


def test_too_long_and_low_rate(limits: ValidateParams) -> None:
    strict = limits.model_copy(update={"max_duration_s": 1.0})
    assert check_audio(encode_audio(tone(1, 2.0)), strict)[1] == "too_long"
    content = encode_audio(tone(1, 2.0), "WAV", "PCM_16", rate=4000)
    assert check_audio(content, limits)[1] == "low_sample_rate"


def test_a_good_recording_passes_in_every_codec(limits: ValidateParams) -> None:
    for format, subtype in (("OGG", "OPUS"), ("OGG", "VORBIS"), ("WAV", "PCM_16"), ("FLAC", None)):
        audio, reason, _ = check_audio(encode_audio(tone(1, 1.0), format, subtype), limits)
        assert audio is not None, reason
        assert audio.sample_rate_hz == SAMPLE_RATE_HZ


def test_images(limits: ValidateParams) -> None:
    good = picture(1)
    assert check_image(good, limits) is None
    assert check_image(good[: len(good) // 2], limits)[0] == "bad_image"
    assert check_image(b"<html>", limits)[0] == "bad_image"
    assert check_image(picture(1, (200, 20)), limits)[0] == "small_image"


def test_the_listing_itself(tmp_path: Path, limits: ValidateParams) -> None:
    store = MediaStore(tmp_path)
    ok = {"split": "train", "audio_path": "a.wav", "speaker_id": "1"}

    def reason(**facts: str) -> str | None:
        return check_utterance(store, Listing(**(ok | facts)), limits).reason

    assert reason(utterance_id="a.b") == "bad_key"
    assert reason(utterance_id="a", caption="  ") == "empty_caption"
    assert reason(utterance_id="a", caption="words") == "missing_audio"


def test_corpus_counts_add_up_and_only_the_corrupted_are_dropped(
    tmp_path: Path, limits: ValidateParams
) -> None:
    planted = make_lncoco(tmp_path / "ln")
    source = SourceParams(reader="localized_narratives", licence="", files={}, dev_fraction=0.25)
    listings = READERS[source.reader](MediaStore(tmp_path / "ln"), source)
    # One picture is missing, and one id is used twice.
    listings.append(
        Listing("extra", "test", "coco_val/coco_val_1_41.ogg", "1", "9", "val2017/9.jpg", "x")
    )
    listings.append(listings[-2])
    verdicts = check_corpus(tmp_path / "ln", listings, limits, workers=2)
    dropped = {v.listing.utterance_id: v.reason for v in verdicts if v.reason}
    duplicate = listings[-1].utterance_id
    assert dropped == planted | {"extra": "missing_image", duplicate: "duplicate_id"}
    manifest = [v.manifest_row("ln") for v in verdicts if v.reason is None]
    quarantine = [v.quarantine_row() for v in verdicts if v.reason]
    assert len(manifest) + len(quarantine) == len(listings)
    assert manifest[0]["duration_s"] > 0.4
    ids = [(row["split"], row["utterance_id"]) for row in manifest]
    assert ids == sorted(ids, key=lambda row: (["train", "dev", "test"].index(row[0]), row[1]))

    outcomes = expect(manifest, quarantine, len(listings), limits)
    failed = [outcome.name for outcome in outcomes if not outcome.success]
    assert len(failed) == 1
    assert "quarantine_rate" in failed[0]


def test_expectations_notice_a_leak_between_splits_and_a_lost_row(
    tmp_path: Path, limits: ValidateParams
) -> None:
    make_ravdess(tmp_path / "r")
    source = SourceParams(reader="ravdess", licence="", files={}, dev_fraction=0.34)
    listings = READERS["ravdess"](MediaStore(tmp_path / "r"), source)
    verdicts = check_corpus(tmp_path / "r", listings, limits, workers=1)
    manifest = [v.manifest_row("r") for v in verdicts]
    assert all(outcome.success for outcome in expect(manifest, [], len(listings), limits))
    manifest[0]["split"] = "test"
    failed = [o.name for o in expect(manifest[:-1], [], len(listings), limits) if not o.success]
    assert [name.split(":")[0] for name in failed] == ["corpus", "speakers"]
