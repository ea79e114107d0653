"""Readers against miniature copies of the published layouts."""

import json
from pathlib import Path

import pytest
from world import make_flickr8k, make_lncoco, make_ravdess, narrative

from brewline.archives import MediaStore
from brewline.corpora import READERS
from brewline.corpora.listing import Listing, held_out
from brewline.errors import BrewlineError
from brewline.params import SourceParams


def read(reader: str, folder: Path, dev_fraction: float | None = None) -> list[Listing]:
    source = SourceParams(reader=reader, licence="Apache-2.0", files={}, dev_fraction=dev_fraction)
    return READERS[reader](MediaStore(folder), source)


def test_flickr8k(tmp_path: Path) -> None:
    make_flickr8k(tmp_path)
    rows = read("flickr8k", tmp_path)
    assert len(rows) == 24
    assert [sum(row.split == split for row in rows) for split in ("train", "dev", "test")] == [
        12,
        6,
        6,
    ]
    assert rows[3] == Listing(
        utterance_id="1001_ab1_1",
        split="train",
        audio_path="flickr_audio/wavs/1001_ab1_1.wav",
        speaker_id="1",
        image_id="1001_ab1",
        image_path="Images/1001_ab1.jpg",
        # The caption holds a `#` of its own.
        caption="Picture # 1 , caption 1 .",
    )


def test_flickr8k_finds_images_in_the_misspelt_folder(tmp_path: Path) -> None:
    make_flickr8k(tmp_path)
    (tmp_path / "Images.tar").unlink()
    (tmp_path / "Flicker8k_Dataset").mkdir()
    (tmp_path / "Flicker8k_Dataset/1000_ab0.jpg").write_bytes(b"")
    assert read("flickr8k", tmp_path)[0].image_path == "Flicker8k_Dataset/1000_ab0.jpg"


def test_flickr8k_names_a_malformed_line(tmp_path: Path) -> None:
    make_flickr8k(tmp_path)
    path = tmp_path / "flickr_audio/wav2capt.txt"
    path.write_text(path.read_text() + "one_word\n")
    with pytest.raises(BrewlineError, match=r"wav2capt\.txt, line 25.*'one_word'"):
        read("flickr8k", tmp_path)


def test_flickr8k_refuses_an_image_in_two_splits(tmp_path: Path) -> None:
    make_flickr8k(tmp_path)
    path = tmp_path / "Flickr_8k.testImages.txt"
    path.write_text(path.read_text() + "1000_ab0.jpg\n")
    with pytest.raises(BrewlineError, match=r"'1000_ab0.jpg' is in train and test"):
        read("flickr8k", tmp_path)


def test_localized_narratives(tmp_path: Path) -> None:
    make_lncoco(tmp_path / "ln")
    rows = read("localized_narratives", tmp_path / "ln", dev_fraction=0.25)
    splits = [row.split for row in rows]
    assert {split: splits.count(split) for split in set(splits)} == {
        "train": 18,
        "dev": 6,
        "test": 8,
    }
    test = next(row for row in rows if row.split == "test")
    assert test == Listing(
        utterance_id="coco_val_1_41",
        split="test",
        audio_path="coco_val/coco_val_1_41.ogg",
        speaker_id="41",
        image_id="1",
        image_path="val2017/000000000001.jpg",
        caption="In this image we can see 1.",
    )


def test_narratives_of_one_image_stay_in_one_split(tmp_path: Path) -> None:
    rows = [narrative("train", image, who, "x") for image in range(20) for who in (1, 2)]
    (tmp_path / "coco_train_localized_narratives-00000-of-00001.jsonl").write_text(
        "\n".join(json.dumps(row) for row in rows)
    )
    split_of: dict[str | None, str] = {}
    for row in read("localized_narratives", tmp_path, dev_fraction=0.5):
        assert split_of.setdefault(row.image_id, row.split) == row.split


def test_localized_narratives_needs_a_dev_fraction(tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match="dev_fraction"):
        read("localized_narratives", tmp_path)


def test_localized_narratives_names_a_line_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "coco_val_localized_narratives.jsonl").write_text('{"image_id": "1"}\n')
    with pytest.raises(BrewlineError, match=r"coco_val_localized_narratives\.jsonl, line 1"):
        read("localized_narratives", tmp_path, dev_fraction=0.1)


def test_ravdess(tmp_path: Path) -> None:
    make_ravdess(tmp_path / "r")
    rows = read("ravdess", tmp_path / "r", dev_fraction=0.34)
    assert len(rows) == 8
    assert {row.speaker_id: row.split for row in rows}["04"] == "test"
    assert {row.split for row in rows} == {"train", "dev", "test"}
    angry = next(row for row in rows if row.utterance_id == "03-01-05-01-02-01-02")
    assert (angry.emotion, angry.intensity) == ("angry", "normal")
    assert angry.caption == "Dogs are sitting by the door"
    assert angry.image_id is None


def test_held_out_ignores_the_order_of_the_files() -> None:
    names = [str(number) for number in range(100)]
    chosen = held_out(names, 0.2)
    assert len(chosen) == 20
    assert held_out(reversed(names), 0.2) == chosen
    assert held_out(names * 2, 0.2) == chosen
