"""Readers against miniature copies of the published layouts."""

import gzip
import json
import re
import shutil
import zipfile
from collections import Counter
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from world import make_flickr8k, make_lncoco, make_ravdess, narrative, write_tar

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.dev_split import held_out
from brewline.corpora.readers import READERS
from brewline.corpora.reading import find_folder, safe_id
from brewline.corpora.survey import survey
from brewline.media.archives import MediaStore
from brewline.tables.listing import Listing


def read(reader: str, folder: Path, **options: Any) -> list[Listing]:
    source = SourceParams(reader=reader, licence="Apache-2.0", files={}, **options)
    return READERS[reader](MediaStore(folder), source)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def splits(rows: list[Listing]) -> dict[str, int]:
    return dict(Counter(row.split for row in rows))


def found(folder: Path, rows: list[Listing]) -> tuple[int, ...]:
    """Rows, missing recordings, missing pictures, duplicates."""
    return astuple(survey(MediaStore(folder), rows))[:4]


def test_flickr8k(tmp_path: Path) -> None:
    make_flickr8k(tmp_path)
    rows = read("flickr8k", tmp_path)
    assert len(rows) == 24
    assert splits(rows) == {"train": 12, "dev": 6, "test": 6}
    assert found(tmp_path, rows) == (24, 0, 0, 0)
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


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)


FLICKR_SPLITS = {
    "Flickr_8k.trainImages.txt": "10_a.jpg\n11_b.jpg\n",
    "Flickr_8k.devImages.txt": "12_c.jpg\n",
    "Flickr_8k.testImages.txt": "13_d.jpg\n",
}
FLICKR_IMAGES = ["10_a", "11_b", "12_c", "13_d", "14_unused"]
FLICKR_STEMS = [f"{image}_{k}" for image in FLICKR_IMAGES[:4] for k in range(2)]
FLICKR_WAV2CAPT = "".join(f"{s}.wav {s[:-2]}.jpg #{s[-1]}\n" for s in FLICKR_STEMS)


def test_flickr8k_as_it_is_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recordings are a tar.gz; the pictures' zip is misspelt and unpacked a level too deep."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "raw"
    write_tar(
        folder / "plain",
        {
            **{f"flickr_audio/wavs/{stem}.wav": b"wav" for stem in FLICKR_STEMS[:-1]},
            "flickr_audio/wavs/10_a_txt.wav": b"stray",
            "flickr_audio/wav2capt.txt": FLICKR_WAV2CAPT.encode(),
            "flickr_audio/wav2spk.txt": b"10_a_0.wav 7\n10_a_1.wav 8\n",
        },
    )
    content = (folder / "plain").read_bytes()
    (folder / "plain").unlink()
    (folder / "flickr_audio.tar.gz").write_bytes(gzip.compress(content))
    write_zip(
        folder / "Flickr8k_Dataset.zip",
        {
            "Images/preview.jpg": b"stray",
            **{f"Images/Flicker8k_Dataset/{image}.jpg": b"jpg" for image in FLICKR_IMAGES},
            "__MACOSX/Images/Flicker8k_Dataset/._10_a.jpg": b"shadow",
        },
    )
    tokens = [
        f"{image}.jpg#{k}\tA # {image} , number #{k} ." for image in FLICKR_IMAGES for k in range(2)
    ]
    broken = "2258277193_586949ec62.jpg.1#0\tPeople waiting .\n"
    write_zip(
        folder / "Flickr8k_text.zip",
        {
            "Flickr8k.token.txt": ("\n".join(tokens) + "\n" + broken).encode(),
            "Flickr8k.lemma.token.txt": b"10_a.jpg#0\tlemmas\n",
            **{name: text.encode() for name, text in FLICKR_SPLITS.items()},
        },
    )
    rows = read("flickr8k", folder)
    assert splits(rows) == {"train": 4, "dev": 2, "test": 2}
    assert rows[1] == Listing(
        utterance_id="10_a_1",
        split="train",
        audio_path="flickr_audio/wavs/10_a_1.wav",
        speaker_id="8",
        image_id="10_a",
        image_path="Images/Flicker8k_Dataset/10_a.jpg",
        caption="A # 10_a , number #1 .",
    )
    # The last recording is not in the archive.
    assert found(folder, rows) == (8, 1, 0, 0)


def write_kaggle(folder: Path) -> None:
    write_zip(
        folder / "audio.zip",
        {
            **{f"flickr_audio/flickr_audio/wavs/{stem}.wav": b"wav" for stem in FLICKR_STEMS},
            "flickr_audio/flickr_audio/wav2capt.txt": FLICKR_WAV2CAPT.encode(),
        },
    )
    captions = 'image,caption\n10_a.jpg,"One, ""two"" ."\n11_b.jpg,b\n10_a.jpg,Three\n'
    write_zip(
        folder / "flickr8k.zip",
        {
            **{f"Images/{image}.jpg": b"jpg" for image in FLICKR_IMAGES},
            "captions.txt": captions.encode(),
        },
    )


def test_flickr8k_in_kaggles_layout(tmp_path: Path) -> None:
    write_kaggle(tmp_path)
    write(tmp_path, FLICKR_SPLITS)
    rows = read("flickr8k", tmp_path)
    assert splits(rows) == {"train": 4, "dev": 2, "test": 2}
    assert [row.caption for row in rows[:4]] == ['One, "two" .', "Three", "b", None]
    assert rows[0].audio_path == "flickr_audio/flickr_audio/wavs/10_a_0.wav"
    assert rows[0].speaker_id == ""
    assert found(tmp_path, rows) == (8, 0, 0, 0)


def test_flickr8k_takes_karpathys_splits_where_there_are_no_others(tmp_path: Path) -> None:
    write_kaggle(tmp_path)
    with pytest.raises(
        BrewlineError, match=r"has no Flickr_8k\.trainImages\.txt.*, nor dataset_fl"
    ):
        read("flickr8k", tmp_path)
    images = [
        {"filename": f"{image}.jpg", "split": split, "sentences": []}
        for image, split in zip(FLICKR_IMAGES, ("train", "val", "test", "test"), strict=False)
    ]
    write(tmp_path, {"dataset_flickr8k.json": json.dumps({"images": images})})
    assert splits(read("flickr8k", tmp_path)) == {"train": 2, "dev": 2, "test": 4}
    write(tmp_path, {"dataset_flickr8k.json": '{"images": [{"filename": "x.jpg"}]}'})
    with pytest.raises(BrewlineError, match=r"dataset_flickr8k\.json: expected images with"):
        read("flickr8k", tmp_path)


def write_table(path: Path, **columns: list[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path, row_group_size=3)


def write_hub(folder: Path) -> None:
    """The three configurations, the recordings in two files."""
    for number, ids in enumerate((FLICKR_STEMS[:5], FLICKR_STEMS[5:])):
        write_table(
            folder / f"audio/train-0000{number}-of-00002.parquet",
            id=ids,
            audio=[{"bytes": name.encode(), "path": None} for name in ids],
        )
    write_table(
        folder / "images/train-00000-of-00001.parquet",
        id=FLICKR_IMAGES,
        image=[{"bytes": name.encode(), "path": f"{name}.jpg"} for name in FLICKR_IMAGES],
        text=[f"First of {name}." for name in FLICKR_IMAGES],
    )
    write_table(
        folder / "qrels/train-00000-of-00001.parquet",
        image_id=[name[:-2] for name in FLICKR_STEMS],
        audio_id=FLICKR_STEMS,
    )


def test_flickr8k_in_the_hubs_layout(tmp_path: Path) -> None:
    write_hub(tmp_path)
    with pytest.raises(BrewlineError, match=r"has no Flickr_8k\.trainImages\.txt"):
        read("flickr8k", tmp_path)
    write(tmp_path, FLICKR_SPLITS)
    rows = read("flickr8k", tmp_path)
    assert splits(rows) == {"train": 4, "dev": 2, "test": 2}
    assert rows[6] == Listing(
        utterance_id="13_d_0",
        split="test",
        audio_path="audio/13_d_0",
        speaker_id="",
        image_id="13_d",
        image_path="image/13_d",
        caption="First of 13_d.",
    )
    assert rows[7].caption is None
    assert MediaStore(tmp_path).read(rows[6].audio_path) == b"13_d_0"
    assert found(tmp_path, rows) == (8, 0, 0, 0)
    write(tmp_path, {"Flickr8k.token.txt": "13_d.jpg#1\tThe second .\n"})
    assert read("flickr8k", tmp_path)[7].caption == "The second ."


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("Flickr8k.token.txt", "10_a.jpg#0 no tab\n", r"token\.txt, line 1: expected .* a tab"),
        ("captions.txt", "jpg,text\n", r"captions\.txt, line 1: expected the header"),
        ("captions.txt", "image,caption\n10_a.jpg\n", r"captions\.txt, line 2: expected an image"),
    ],
)
def test_flickr8k_names_a_malformed_caption(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    write(tmp_path, {**FLICKR_SPLITS, "wav2capt.txt": FLICKR_WAV2CAPT, name: text})
    with pytest.raises(BrewlineError, match=message):
        read("flickr8k", tmp_path)


def test_a_file_that_is_there_twice_is_no_choice_of_ours(tmp_path: Path) -> None:
    write(tmp_path, {**FLICKR_SPLITS, "a/wav2capt.txt": "", "b/wav2capt.txt": "\n"})
    with pytest.raises(BrewlineError, match=r"two files wav2capt\.txt: a/wav2capt\.txt and b/wav"):
        read("flickr8k", tmp_path)
    write_kaggle(tmp_path / "kaggle")
    shutil.copytree(tmp_path / "kaggle", tmp_path / "equal/x")
    write(tmp_path / "equal", FLICKR_SPLITS)
    texts = {"copy/wav2capt.txt": FLICKR_WAV2CAPT, "b/wav2capt.txt": FLICKR_WAV2CAPT}
    write(tmp_path / "equal", texts)
    assert len(read("flickr8k", tmp_path / "equal")) == 8


def test_flickr8k_names_a_malformed_line(tmp_path: Path) -> None:
    make_flickr8k(tmp_path)
    path = tmp_path / "flickr_audio/wav2capt.txt"
    path.write_text(path.read_text() + "one_word\n1000_ab0_1.wav 1000_ab0.jpg #\u00b2\n")
    *rows, word, number = read("flickr8k", tmp_path)
    assert len(rows) == 24
    assert word.fault == (
        "flickr_audio/wav2capt.txt, line 25: expected `<wav> <jpg> #<k>`, not 'one_word'"
    )
    assert (number.fault or "").startswith("flickr_audio/wav2capt.txt, line 26: ")


def test_flickr8k_names_a_row_of_the_hub_that_names_none(tmp_path: Path) -> None:
    write_hub(tmp_path)
    write(tmp_path, FLICKR_SPLITS)
    write_table(
        tmp_path / "qrels/more.parquet",
        image_id=[None, "10_a", "10_a"],
        audio_id=["10_a_0", None, "10_a_x"],
    )
    faults = [row.fault for row in read("flickr8k", tmp_path) if row.fault]
    assert [
        f"qrels/more.parquet, row {number}: " in one for number, one in enumerate(faults, 1)
    ] == ([True] * 3)


def test_flickr8k_refuses_an_image_in_two_splits(tmp_path: Path) -> None:
    make_flickr8k(tmp_path)
    path = tmp_path / "Flickr_8k.testImages.txt"
    path.write_text(path.read_text() + "1000_ab0.jpg\n")
    with pytest.raises(BrewlineError, match=r"'1000_ab0.jpg' is in train and test"):
        read("flickr8k", tmp_path)


def test_localized_narratives(tmp_path: Path) -> None:
    make_lncoco(tmp_path / "ln")
    rows = read("localized_narratives", tmp_path / "ln", dev_fraction=0.25)
    assert splits(rows) == {"train": 18, "dev": 6, "test": 8}
    assert found(tmp_path / "ln", rows) == (32, 0, 0, 0)
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


def test_the_names_of_a_large_corpus_are_gone_through_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For its tables, its pictures and its folders; not for each table, or each kind of folder."""
    make_lncoco(tmp_path / "ln")
    asked, names = [], MediaStore.names

    def counted(store: MediaStore) -> list[str]:
        asked.append(store)
        return names(store)

    monkeypatch.setattr(MediaStore, "names", counted)
    read("localized_narratives", tmp_path / "ln", dev_fraction=0.25)
    assert len(asked) == 2


def test_the_folder_with_the_most_files_of_a_kind_is_found(tmp_path: Path) -> None:
    write(tmp_path, {f"a/pictures/{name}": "" for name in ("1.jpg", "2.jpg", "x.b/3.jpg")})
    write(
        tmp_path, {f"b/pictures/{name}": "" for name in ("1.wav", "2.ogg", "3.ogg", "4", "5.jpg")}
    )
    write(tmp_path, {"c/PICTURES/1.jpg": "", "pictures.jpg": ""})
    store = MediaStore(tmp_path)
    assert find_folder(store, "pictures") == "a/pictures"
    assert find_folder(store, "pictures", suffixes=(".wav", ".ogg")) == "b/pictures"
    assert find_folder(store, "photos", "x.b") == "a/pictures/x.b"
    assert find_folder(store, "photos", suffixes=(".png",)) == "photos"


def test_narratives_of_one_image_stay_in_one_split(tmp_path: Path) -> None:
    rows = [narrative("train", image, who, "x") for image in range(20) for who in (1, 2)]
    (tmp_path / "coco_train_localized_narratives-00000-of-00001.jsonl").write_text(
        "\n".join(json.dumps(row) for row in rows)
    )
    split_of: dict[str | None, str] = {}
    for row in read("localized_narratives", tmp_path, dev_fraction=0.5):
        assert split_of.setdefault(row.image_id, row.split) == row.split


def test_localized_narratives_needs_a_dev_fraction(tmp_path: Path) -> None:
    make_lncoco(tmp_path / "ln")
    with pytest.raises(BrewlineError, match="dev_fraction"):
        read("localized_narratives", tmp_path / "ln")


def test_localized_narratives_names_a_line_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "coco_val_localized_narratives.jsonl").write_text('{"image_id": "1"}\n')
    with pytest.raises(BrewlineError, match=r"coco_val_localized_narratives\.jsonl, line 1"):
        read("localized_narratives", tmp_path, dev_fraction=0.1)


def other_narrative(dataset: str, image: str, recording: str) -> str:
    row = {**narrative("train", 1, 5, "x"), "dataset_id": dataset, "image_id": image}
    return json.dumps({**row, "voice_recording": recording}) + "\n"


def test_open_images_narratives(tmp_path: Path) -> None:
    files = {
        "open_images_train_v6_localized_narratives-00003-of-00010.jsonl": "train",
        "annotations/open_images_validation_localized_narratives.jsonl": "validation",
        "open_images_test_localized_narratives.jsonl": "test",
    }
    for name, part in files.items():
        recording = f"open_images_{part}/open_images_{part}_0a1{part[0]}_5.ogg"
        write(tmp_path, {name: other_narrative("open_images", f"0a1{part[0]}", recording)})
    write(tmp_path, {"open_images_train_v6_captions.jsonl": '{"caption": "only"}\n'})
    write(tmp_path, {"images/validation/0a1v.jpg": "", "validation/notes.txt": ""})
    rows = read("localized_narratives", tmp_path, subset="open_images")
    assert splits(rows) == {"train": 1, "dev": 1, "test": 1}
    assert rows[1].audio_path == "open_images_validation/open_images_validation_0a1v_5.ogg"
    assert rows[1].image_path == "images/validation/0a1v.jpg"
    assert found(tmp_path, rows) == (3, 3, 2, 0)
    # As the training images are packed, by the first digit of their ids.
    write(tmp_path, {"train_0/0a1t.jpg": ""})
    rows = read("localized_narratives", tmp_path, subset="open_images")
    assert rows[0].image_path == "train_0/0a1t.jpg"


def test_flickr30k_narratives_are_published_under_another_name(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        # The number of the annotator in this field is another one than annotator_id.
        recording = f"flickr30k_{part}/flickr30k_{part}_1007129816_9.ogg"
        line = other_narrative(f"Flickr30k_{part}", "1007129816", recording)
        write(tmp_path, {f"flickr30k_{part}_localized_narratives.jsonl": line})
    mended = "flickr30k_val/flickr30k_val_0000001007129816_5.ogg"
    write(tmp_path, {f"voice/{mended}": "", "flickr30k-images/1007129816.jpg": ""})
    rows = read("localized_narratives", tmp_path, subset="flickr30k")
    assert splits(rows) == {"train": 1, "dev": 1, "test": 1}
    assert rows[1].audio_path == f"voice/{mended}"
    assert rows[1].utterance_id == "flickr30k_val_0000001007129816_5"
    assert found(tmp_path, rows) == (3, 2, 0, 0)
    with pytest.raises(BrewlineError, match="published dev split; remove dev_fraction"):
        read("localized_narratives", tmp_path, subset="flickr30k", dev_fraction=0.1)


def test_ade20k_narratives(tmp_path: Path) -> None:
    for part, image in (("train", "ADE_train_00000007"), ("validation", "ADE_val_00000001")):
        lines = other_narrative(
            f"ADE20k_{part}", image, f"ade20k_{part}/ade20k_{part}_{image}_9.ogg"
        )
        write(tmp_path, {f"ade20k_{part}_localized_narratives.jsonl": lines})
    image = "ADEChallengeData2016/images/validation/ADE_val_00000001.jpg"
    write(tmp_path, {image: "", "ADEChallengeData2016/annotations/validation/x.png": ""})
    rows = read("localized_narratives", tmp_path, subset="ade20k", dev_fraction=0.0)
    assert splits(rows) == {"train": 1, "test": 1}
    assert rows[1].audio_path == "ade20k_validation/ade20k_validation_0000000000000001_5.ogg"
    assert rows[1].image_path == image
    # The whole corpus keeps pictures of a scene together.
    scene = "images/ADE/training/urban/street/ADE_train_00000007.jpg"
    write(tmp_path, {scene: ""})
    rows = read("localized_narratives", tmp_path, subset="ade20k", dev_fraction=0.0)
    assert rows[0].image_path == scene


def test_a_subset_that_is_not_there_is_named(tmp_path: Path) -> None:
    line = json.dumps(narrative("val", 1, 2, "x"))
    write(tmp_path, {"coco_val_localized_narratives.jsonl": line})
    with pytest.raises(BrewlineError, match=r"has no ade20k_\*_localized_narratives\*\.jsonl"):
        read("localized_narratives", tmp_path, subset="ade20k")


COCO_IMAGES = {1: "train", 2: "train", 3: "val", 4: "val"}


def spoken(image: int, part: str, captions: int) -> dict[str, Any]:
    ids = [f"m07-3XY{k}_{image}_{k}" for k in range(captions)]
    return {
        "image": f"{part}2014/COCO_{part}2014_{image:012d}.jpg",
        "captions": [
            {
                "text": f"A URINAL NUMBER {image}",
                "speaker": "m07",
                "uttid": uttid,
                "wav": f"wavs/{part}/0/{uttid}.wav",
            }
            for uttid in ids
        ],
    }


def write_spokencoco(folder: Path) -> None:
    """Two images each in train and val, with 2 to 5 recordings; COCO's zips beside it."""
    files = {}
    for part in ("train", "val"):
        data = [spoken(i, part, i + 1) for i, where in COCO_IMAGES.items() if where == part]
        files[f"SpokenCOCO/SpokenCOCO_{part}.json"] = json.dumps({"data": data}).encode()
        for image in data:
            for each in image["captions"]:
                files[f"SpokenCOCO/{each['wav']}"] = b"wav"
        jpgs = {image["image"]: b"jpg" for image in data}
        write_zip(folder / f"{part}2014.zip", jpgs)
    write_tar(folder / "SpokenCOCO.tar", files)


def test_spokencoco_in_its_own_split(tmp_path: Path) -> None:
    write_spokencoco(tmp_path)
    rows = read("spokencoco", tmp_path, split="own", dev_fraction=0.5)
    assert sum(splits(rows).values()) == 14
    assert splits(rows)["test"] == 9
    assert {row.split for row in rows if row.image_id in "12"} == {"train", "dev"}
    assert found(tmp_path, rows) == (14, 0, 0, 0)
    assert rows[5] == Listing(
        utterance_id="m07-3XY0_3_0",
        split="test",
        audio_path="SpokenCOCO/wavs/val/0/m07-3XY0_3_0.wav",
        speaker_id="m07",
        image_id="3",
        image_path="val2014/COCO_val2014_000000000003.jpg",
        caption="A URINAL NUMBER 3",
    )


def test_spokencoco_joined_with_karpathys_split(tmp_path: Path) -> None:
    write_spokencoco(tmp_path)
    images = [
        {
            "filename": f"COCO_{COCO_IMAGES[image]}2014_{image:012d}.jpg",
            "split": split,
            "sentences": [{"tokens": ["a"], "raw": "A."}],
        }
        for image, split in ((1, "train"), (2, "test"), (3, "restval"), (4, "val"))
    ]
    write_zip(
        tmp_path / "caption_datasets.zip",
        {"dataset_coco.json": json.dumps({"images": images, "dataset": "coco"}).encode()},
    )
    rows = read("spokencoco", tmp_path, split="karpathy")
    assert {row.image_id: row.split for row in rows} == {
        "1": "train",
        "2": "test",
        "3": "train",
        "4": "dev",
    }
    assert found(tmp_path, rows) == (14, 0, 0, 0)
    with pytest.raises(BrewlineError, match="published dev split; remove dev_fraction"):
        read("spokencoco", tmp_path, split="karpathy", dev_fraction=0.1)
    write_zip(
        tmp_path / "caption_datasets.zip",
        {"dataset_coco.json": json.dumps({"images": [*images[:2], images[3]]}).encode()},
    )
    told = "dataset_coco.json lists no image 3, which val has"
    with_faults = read("spokencoco", tmp_path, split="karpathy")
    assert {row.image_id: (row.split, row.fault) for row in with_faults} == {
        "1": ("train", None),
        "2": ("test", None),
        "3": ("", told),
        "4": ("dev", None),
    }
    assert len(with_faults) == len(rows)
    write_zip(tmp_path / "caption_datasets.zip", {"dataset_coco.json": b'{"images": []}'})
    with pytest.raises(BrewlineError, match="lists no image 1, which train has"):
        read("spokencoco", tmp_path, split="karpathy")


def test_spokencoco_in_the_split_that_the_papers_share(tmp_path: Path) -> None:
    write_spokencoco(tmp_path)
    with pytest.raises(
        BrewlineError, match=r"neither SpokenCOCO_ksplit_train\.json.*, nor dataset_coco"
    ):
        read("spokencoco", tmp_path, split="karpathy")
    for part, image in (("train", 3), ("val", 1), ("test", 4)):
        entry = {**spoken(image, COCO_IMAGES[image], image + 1), "reassign_id": 17}
        text = json.dumps({"data": [entry]})
        write(tmp_path, {f"SpokenCOCO/SpokenCOCO_ksplit_{part}.json": text})
    rows = read("spokencoco", tmp_path, split="karpathy")
    assert splits(rows) == {"train": 4, "dev": 2, "test": 5}
    assert found(tmp_path, rows) == (11, 0, 0, 0)


def test_spokencoco_counts_what_is_missing_and_double(tmp_path: Path) -> None:
    data = json.dumps({"data": [spoken(1, "train", 2), spoken(1, "train", 1)]})
    write(tmp_path, {"SpokenCOCO_train.json": data, "SpokenCOCO_val.json": '{"data": []}'})
    write(tmp_path, {"wavs/train/0/m07-3XY0_1_0.wav": ""})
    rows = read("spokencoco", tmp_path, split="own", dev_fraction=0.0)
    assert found(tmp_path, rows) == (3, 1, 1, 1)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ("{", r"SpokenCOCO_train\.json: not JSON: Expecting property name"),
        ('{"data": null}', r"SpokenCOCO_train\.json: expected JSON with a list `data`"),
        ("[]", r"SpokenCOCO_train\.json: expected JSON with a list `data`"),
        ('{"data": [{"image": "x.jpg"}]}', r"SpokenCOCO_train\.json, image 1: expected image and"),
        ('{"data": ["x"]}', r"SpokenCOCO_train\.json, image 1: expected image and"),
    ],
)
def test_spokencoco_names_what_is_malformed(tmp_path: Path, train: str, message: str) -> None:
    write(tmp_path, {"SpokenCOCO_train.json": train, "SpokenCOCO_val.json": '{"data": []}'})
    with pytest.raises(BrewlineError, match=message):
        read("spokencoco", tmp_path, split="own", dev_fraction=0.1)


def test_spokencoco_needs_a_split(tmp_path: Path) -> None:
    with pytest.raises(BrewlineError, match="set split for this source: own or karpathy"):
        read("spokencoco", tmp_path)


def test_ids_are_mapped_without_collisions() -> None:
    names = ["a-b_1", "a.b_1", "a b_1", "a/b_1", "ä"]
    ids = [safe_id(name) for name in names]
    assert ids[0] == "a-b_1"
    assert len(set(ids)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", each) for each in ids)


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


def test_ravdess_lists_copies_once_and_equal_recordings_twice(tmp_path: Path) -> None:
    """A copy on Kaggle holds every actor's folder twice; two published files are equal."""
    names = [f"Actor_{a:02d}/03-01-01-01-01-0{r}-{a:02d}.wav" for a in range(1, 5) for r in (1, 2)]
    files = dict.fromkeys(names, b"equal")
    files |= {f"audio_speech_actors_01-24/{name}": b"equal" for name in names}
    strays = ["Actor_01/notes.txt", "Actor_01/03-02-01-01-01-01-01.wav", "Actor_01/03-01-x.wav"]
    files |= dict.fromkeys([*strays, "__MACOSX/Actor_01/._03-01-01-01-01-01-01.wav"], b"")
    write_zip(tmp_path / "archive.zip", files)
    rows = read("ravdess", tmp_path)
    assert [row.audio_path for row in rows] == names
    assert splits(rows) == {"train": 6, "test": 2}
    assert found(tmp_path, rows) == (8, 0, 0, 0)


FOLDER_CSV = """audio,split,image,caption,speaker,id
clips/one.wav,train,photos/a.jpg,"A dog, barking",ann,
clips/two.wav,train,photos/b.jpg,,ann,
clips/three.mp3,test,photos/c.jpg,Rain,ben,my-id
../extra/four.wav,test,,,ben,
"""


def test_a_folder_listed_in_a_csv(tmp_path: Path) -> None:
    write(tmp_path, {"mine/index.csv": FOLDER_CSV, "mine/clips/one.flac": "", "extra/four.wav": ""})
    write(tmp_path, {"mine/photos/a.jpg": "", "mine/photos/b.jpg": ""})
    rows = read("folder", tmp_path, index="index.csv", dev_fraction=0.5)
    assert splits(rows) == {"train": 1, "dev": 1, "test": 2}
    assert [(row.audio_path, row.caption) for row in rows] == [
        ("mine/clips/one.wav", "A dog, barking"),
        ("mine/clips/two.wav", None),
        ("mine/clips/three.mp3", "Rain"),
        ("extra/four.wav", None),
    ]
    assert rows[2].utterance_id == "my-id"
    assert (rows[3].image_path, rows[3].image_id, rows[3].speaker_id) == (None, None, "ben")
    assert found(tmp_path, rows) == (4, 2, 1, 0)


def test_a_folder_says_which_language_is_spoken(tmp_path: Path) -> None:
    write(tmp_path, {"i.csv": "audio,split,language\na.wav,train,de\nb.wav,dev,\n"})
    assert [row.language for row in read("folder", tmp_path, index="i.csv")] == ["de", None]
    for wrong in ("German", "DE", "de-AT", "d"):
        write(tmp_path, {"i.csv": f"audio,split,language\na.wav,train,{wrong}\n"})
        with pytest.raises(BrewlineError, match=f"line 2: language must be a code .* '{wrong}'"):
            read("folder", tmp_path, index="i.csv")


def test_a_folder_listed_in_json_lines(tmp_path: Path) -> None:
    table = [
        {"audio": "1.ogg", "split": "train", "caption": "one\u2028line"},
        {"audio": "2.ogg", "split": "dev", "image": None},
        {"audio": "3.ogg", "split": "test"},
    ]
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in table)
    write(tmp_path, {"list.jsonl": text})
    rows = read("folder", tmp_path, index="list.jsonl")
    assert splits(rows) == {"train": 1, "dev": 1, "test": 1}
    assert [row.utterance_id for row in rows] == ["1", "2", "3"]
    assert rows[0].caption == "one\u2028line"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.wav,training", r"i\.csv, line 2: split must be train, dev or test, not 'training'"),
        (",train", r"i\.csv, line 2: audio is missing"),
        ("a.wav,train,more", r"i\.csv, line 2: expected 2 cells as in the header, not 3"),
        ("../a.wav,train", r"i\.csv, line 2: '\.\./a\.wav' leaves the folder of the corpus"),
        ('"a.wav,train', r"i\.csv, line 2: unexpected end of data"),
        ("/etc/passwd,train", r"i\.csv, line 2: '/etc/passwd' leaves the folder"),
    ],
)
def test_a_bad_row_of_a_folder_is_named(tmp_path: Path, line: str, message: str) -> None:
    write(tmp_path, {"i.csv": f"audio,split\n{line}\n"})
    with pytest.raises(BrewlineError, match=message):
        read("folder", tmp_path, index="i.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"audio": "a.wav"', r"i\.jsonl, line 1: not JSON"),
        ("[1]", r"i\.jsonl, line 1: expected a JSON object"),
        ('{"audio": 3, "split": "test"}', r"i\.jsonl, line 1: audio must be text, not 3"),
        ('{"audoi": "a.wav"}', r"i\.jsonl, line 1: unknown column 'audoi'; known: audio, split"),
        ("", r"i\.jsonl lists nothing"),
    ],
)
def test_a_bad_line_of_a_folder_is_named(tmp_path: Path, text: str, message: str) -> None:
    write(tmp_path, {"i.jsonl": text})
    with pytest.raises(BrewlineError, match=message):
        read("folder", tmp_path, index="i.jsonl")


def test_lines_that_are_no_records_cost_no_other(tmp_path: Path) -> None:
    rows = ["audio,split", "a.wav,test", "b.wav", "c.wav,training", "d.wav,train", "e.wav,test"]
    write(tmp_path, {"i.csv": "\n".join(rows)})
    listed = read("folder", tmp_path, index="i.csv", dev_fraction=0.0)
    assert [row.audio_path for row in listed] == ["a.wav", "", "", "d.wav", "e.wav"]
    assert [row.fault for row in listed if row.fault] == [
        "i.csv, line 3: expected 2 cells as in the header, not 1",
        "i.csv, line 4: split must be train, dev or test, not 'training'",
    ]
    assert len({row.utterance_id for row in listed}) == 5


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize("suffix", ["csv", "tsv", "TXT"])
def test_tables_of_other_programs_are_read(
    tmp_path: Path, encoding: str, separator: str, suffix: str
) -> None:
    rows = [("audio", "split", "caption"), ("jos\u00e9.wav", "test", "\u00c4hm, well; yes")]
    cells = ['"' + f'"{separator}"'.join(row) + '"' for row in rows]
    (tmp_path / f"i.{suffix}").write_bytes("\r\n".join(cells).encode(encoding))
    (row,) = read("folder", tmp_path, index=f"i.{suffix}")
    assert (row.audio_path, row.caption) == ("jos\u00e9.wav", "\u00c4hm, well; yes")


def test_a_table_whose_name_is_spelt_otherwise_is_told_of(tmp_path: Path) -> None:
    write(tmp_path, {"mine/Tabl\u00e9.csv": "audio,split\na.wav,test\n"})
    with pytest.raises(BrewlineError, match=r"no table\.csv; 'mine/Tabl\\xe9\.csv' differs in"):
        read("folder", tmp_path, index="table.csv")
    assert len(read("folder", tmp_path, index="Table\u0301.csv")) == 1


def test_a_table_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "i.xlsx").write_bytes(b"PK")
    with pytest.raises(BrewlineError, match=r"i\.xlsx is no table that is read; known: \.csv, "):
        read("folder", tmp_path, index="i.xlsx")


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, {"i.csv": "audio,split,audio\na.wav,test,b.wav\n"})
    with pytest.raises(BrewlineError, match=r"i\.csv: two columns are called 'audio'"):
        read("folder", tmp_path, index="i.csv")


def test_pictures_that_differ_in_the_suffix_are_two(tmp_path: Path) -> None:
    rows = [
        ("1.wav", "dog.jpg"),
        ("2.wav", "dog.png"),
        ("2.mp3", "dog.png"),
        ("3.wav", "cat.jpg"),
        ("4.wav", "./cat.jpg"),
    ]
    text = "".join(f"{audio},{image},test\n" for audio, image in rows)
    write(tmp_path, {"i.csv": "audio,image,split\n" + text})
    listed = read("folder", tmp_path, index="i.csv")
    images = [row.image_id for row in listed]
    assert images[1] == images[2] != images[0]
    # Where a name is one picture's alone, its suffix is no part of the id.
    assert images[3:] == ["cat", "cat"]
    assert len({row.utterance_id for row in listed}) == 5
    assert listed[0].utterance_id == "1"


def test_one_name_is_one_however_it_is_written(tmp_path: Path) -> None:
    composed, apart = "jos\u00e9", "jose\u0301"
    write(tmp_path, {f"photos/{apart}.jpg": "", f"clips/{apart}.wav": ""})
    rows = [
        rf"clips\{composed}.wav,photos\{composed}.jpg,{composed},test",
        rf"other.wav,photos/{apart}.jpg,{apart},test",
    ]
    write(tmp_path, {"i.csv": "audio,image,speaker,split\n" + "\n".join(rows)})
    first, second = read("folder", tmp_path, index="i.csv")
    assert first.audio_path == f"clips/{composed}.wav"
    assert first.image_path == second.image_path == f"photos/{composed}.jpg"
    assert (first.image_id, first.speaker_id) == (second.image_id, second.speaker_id)
    assert found(tmp_path, [first, second]) == (2, 1, 0, 0)
    assert safe_id(composed) == safe_id(apart)


def test_a_corpus_may_be_there_to_measure_on(tmp_path: Path) -> None:
    write(tmp_path, {"i.csv": "audio,split\na.wav,test\nb.wav,test\n"})
    assert splits(read("folder", tmp_path, index="i.csv")) == {"test": 2}
    assert splits(read("folder", tmp_path, index="i.csv", dev_fraction=0.5)) == {"test": 2}


def test_recordings_of_nobody_are_held_out_one_by_one(tmp_path: Path) -> None:
    rows = "".join(f"{number}.wav,train\n" for number in range(10))
    write(tmp_path, {"i.csv": "audio,split\n" + rows})
    assert splits(read("folder", tmp_path, index="i.csv", dev_fraction=0.3))["dev"] == 3


def test_another_seed_holds_out_others() -> None:
    names = [str(number) for number in range(100)]
    assert held_out(names, 0.2, seed=1) != held_out(names, 0.2)
    assert len(held_out(names, 0.2, seed=1)) == 20


def test_held_out_ignores_the_order_of_the_files() -> None:
    names = [str(number) for number in range(100)]
    chosen = held_out(names, 0.2)
    assert len(chosen) == 20
    assert held_out(reversed(names), 0.2) == chosen
    assert held_out(names * 2, 0.2) == chosen


def test_a_survey_counts_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "a.wav").touch()
    listed = [
        Listing("a", "train", "a.wav", "1", "p", "p.jpg"),
        Listing("b", "train", "b.wav", "1", caption="words"),
        Listing("b", "train", "a.wav", "1", "p", "p.jpg"),
    ]
    assert str(survey(MediaStore(tmp_path), listed)) == (
        "3 rows, 1 without their recording, 1 missing images, 1 duplicate ids, 2 without a caption"
    )
