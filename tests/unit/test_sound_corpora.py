"""Readers of sounds against miniature copies of what is published, with its traps."""

import io
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import soundfile
from test_videos import LIMITS, judge, packed, video
from world import write_tar

from brewline.config.sources import SourceParams
from brewline.core.errors import BrewlineError
from brewline.corpora.clips import clip_id, file_names
from brewline.corpora.readers import READERS
from brewline.corpora.survey import survey
from brewline.media.archives import MediaStore
from brewline.quality.explain import explain
from brewline.samples.shards import read_split
from brewline.stages.arguments import corpus_and_utterance
from brewline.tables.listing import ListedEvent, Listing


def source(reader: str, **options: Any) -> SourceParams:
    return SourceParams(reader=reader, licence="", files={}, **options)


def read(reader: str, folder: Path, **options: Any) -> list[Listing]:
    return READERS[reader](MediaStore(folder), source(reader, **options))


def write(folder: Path, files: dict[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def ids(rows: list[Listing]) -> dict[str, str]:
    return {row.utterance_id: row.split for row in rows if not row.fault}


def faults(rows: list[Listing]) -> list[str]:
    return [row.fault for row in rows if row.fault]


def missing(folder: Path, rows: list[Listing]) -> int:
    return survey(MediaStore(folder), rows).missing_audio


def flac(duration_s: float, pitch_hz: float = 440) -> bytes:
    time_s = np.arange(round(16_000 * duration_s)) / 16_000
    wave = 0.3 * np.sin(2 * np.pi * pitch_hz * time_s) * (1 + np.sin(6 * time_s)) / 2
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, 16_000, format="FLAC")
    return buffer.getvalue()


# AudioSet

# As published: three remarks, of which the third has the columns, and two as many cells as a row.
REMARKS = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    "# num_ytids=4, num_segs=4, num_unique_labels=527, num_positive_labels=9\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
)
BALANCED = REMARKS + (
    '--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"\n'
    '-0SdAVK79lg, 0.000, 1.000, "/m/0155w,/m/01lyv,/m/0342h"\n'
    '_aBcDeFgH1-, 37.000, 47.000, "/m/0xx"\n'
    '_abcdefgh1-, 37.500, 44.250, "/m/0xx"\n'
)
EVAL = REMARKS + '--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_"\n'
UNBALANCED = REMARKS + (
    '---1_cCGK4M, 0.000, 10.000, "/m/01g50p"\n'
    '---2_BBVHAA, 30.000, 40.000, "/m/09x0r"\n'
    '-07hHdtcXn4, 60.000, 70.000, "/m/09x0r"\n'
)


def test_audiosets_tables_are_read_as_they_are_published(tmp_path: Path) -> None:
    write(tmp_path, {"balanced_train_segments.csv": BALANCED, "csv/eval_segments.csv": EVAL})
    rows = read("audioset", tmp_path, dev_fraction=0.25)
    assert not faults(rows)
    found = ids(rows)
    assert set(found) == {
        "--PJHxphWEs_000030", "-0SdAVK79lg_000000", "_aBcDeFgH1-_000037",
        "_abcdefgh1-_000037", "--4gqARaEJE_000000",
    }  # fmt: skip
    assert Counter(found.values()) == {"train": 3, "dev": 1, "test": 1}
    assert all(row.is_clip and row.video_path is None and not row.captions for row in rows)
    assert missing(tmp_path, rows) == 5


def test_ids_differ_in_their_capitals_and_one_file_is_not_the_others(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {"x/_aBcDeFgH1-.flac": b"1", "x/_abcdefgh1-.flac": b"2"}
    write(tmp_path, files | {"balanced_train_segments.csv": BALANCED})
    paths = {row.speaker_id: row.audio_path for row in read("audioset", tmp_path, dev_fraction=0.0)}
    assert paths["_aBcDeFgH1-"] == "x/_aBcDeFgH1-.flac"
    assert paths["_abcdefgh1-"] == "x/_abcdefgh1-.flac"


@pytest.mark.parametrize(
    "name",
    [
        "-0SdAVK79lg", "Y-0SdAVK79lg", "-0SdAVK79lg_12", "-0SdAVK79lg_000012", "-0SdAVK79lg_12_22",
        "-0SdAVK79lg_12500_22500", "-0SdAVK79lg_12.500_22.500",
    ],
)  # fmt: skip
def test_copies_call_their_files_differently(tmp_path: Path, name: str) -> None:
    """In tars, with sounds of other ids beside them, as audio or (heard alone) as a video."""
    table = REMARKS + '-0SdAVK79lg, 12.500, 22.500, "/m/0155w,/m/01lyv"\n'
    write(tmp_path, {"eval_segments.csv": table})
    for suffix in (".flac", ".mp4"):
        files = {f"audio/eval/{name}{suffix}": b"", f"audio/eval/x{name}{suffix}": b""}
        write_tar(tmp_path / "eval-00.tar", {**files, f"audio/eval/{name}.txt": b""})
        (row,) = read("audioset", tmp_path)
        assert row.audio_path == f"audio/eval/{name}{suffix}" and row.video_path is None


def test_of_several_files_of_a_clip_one_is_taken(tmp_path: Path) -> None:
    table = REMARKS + '-0SdAVK79lg, 12.000, 22.000, "/m/0155w"\n'
    names = ["a/b/-0SdAVK79lg.wav", "a/-0SdAVK79lg.wav", "-0SdAVK79lg.mp4"]
    write(tmp_path, {"eval_segments.csv": table, **dict.fromkeys(names, b"")})
    assert [row.audio_path for row in read("audioset", tmp_path)] == ["a/-0SdAVK79lg.wav"]
    # The whole key says more than the id.
    write(tmp_path, {"c/d/-0SdAVK79lg_000012.flac": b""})
    assert [row.audio_path for row in read("audioset", tmp_path)] == ["c/d/-0SdAVK79lg_000012.flac"]


def media_table(
    path: Path, column: str, names: list[str], contents: list[bytes], **more: Any
) -> None:
    media = [{"bytes": content, "path": None} for content in contents]
    table = pyarrow.table({column: names, "audio": media, **more})
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path, row_group_size=2)


def test_audiosets_copy_in_parquet_tables(tmp_path: Path) -> None:
    """`agkphysics/AudioSet`: the columns, and fewer clips than are listed."""
    write(tmp_path, {"balanced_train_segments.csv": BALANCED})
    media_table(
        tmp_path / "data/bal_train/00.parquet", "video_id", ["--PJHxphWEs", "-0SdAVK79lg"],
        [b"one", b"two"], labels=[["/m/09x0r"], []], human_labels=[["Speech"], []],
    )  # fmt: skip
    rows = read("audioset", tmp_path, dev_fraction=0.0)
    store = MediaStore(tmp_path)
    found = {
        row.utterance_id: store.read(row.audio_path) for row in rows if row.audio_path in store
    }
    assert found == {"--PJHxphWEs_000030": b"one", "-0SdAVK79lg_000000": b"two"}
    assert missing(tmp_path, rows) == 2


AUDIOCAPS_TEST = (
    "audiocap_id,youtube_id,start_time,caption\r\n"
    "103549,7fmOlUlwoNg,0,Constant rattling noise and sharp vibrations\r\n"
    "97151,6BJ455B1aAs,0,A rocket flies by followed by a loud explosion\r\n"
    '103548,7fmOlUlwoNg,0,"A dog, barking, and a caf\u00e9"\r\n'
)
AUDIOCAPS_VAL = (
    "audiocap_id,youtube_id,start_time,caption\r\n"
    "1,---2_BBVHAA,30,A man talks\r\n"
    "2,-07hHdtcXn4,27,Rain\r\n"
)
AUDIOCAPS_TRAIN = (
    "audiocap_id,youtube_id,start_time,caption\r\n91139,r1nicOVtvkQ,130,A woman talks\r\n"
)
RELEASE_1: dict[str, str | bytes] = {
    "dataset/train.csv": AUDIOCAPS_TRAIN,
    "dataset/val.csv": AUDIOCAPS_VAL,
    "dataset/test.csv": AUDIOCAPS_TEST,
}
RELEASE_2: dict[str, str | bytes] = {
    "dataset2.0/val.csv": AUDIOCAPS_VAL.replace("\r\n", "\n").replace("Rain", "heavy rain"),
    "dataset2.0/test.csv": "audiocap_id,youtube_id,start_time,caption\n"
    "9,6BJ455B1aAs,0,a rocket flies by\n8,7fmOlUlwoNg,0,constant rattling\n",
}


def test_who_trains_on_audioset_has_not_heard_what_audiocaps_measures_on(tmp_path: Path) -> None:
    sounds = {f"x/{name}.flac": flac(2, 300 + 50 * n) for n, name in enumerate(
        ["---1_cCGK4M", "---2_BBVHAA", "-07hHdtcXn4", "--4gqARaEJE"])}  # fmt: skip
    raw = tmp_path / "raw"
    write(raw, {**sounds, "unbalanced_train_segments.csv": UNBALANCED, "eval_segments.csv": EVAL})
    with pytest.raises(BrewlineError, match=r"name AudioCaps' val\.csv and test\.csv under"):
        read("audioset", raw, dev_fraction=0.0)
    write(raw, {"audiocaps/val.csv": AUDIOCAPS_VAL, "audiocaps/test.csv": AUDIOCAPS_TEST})
    tables = ["audiocaps/val.csv", "audiocaps/test.csv"]
    listed = source("audioset", exclude=tables, dev_fraction=0.0)
    good, bad = judge(tmp_path, listed)
    assert {row["utterance_id"] for row in good} == {"---1_cCGK4M_000000", "--4gqARaEJE_000000"}
    # One at the same second as AudioCaps' clip, one at another second of the same video.
    assert bad == {"": "excluded"}
    rows = READERS["audioset"](MediaStore(raw), listed)
    assert [(row.utterance_id, row.fault) for row in rows if row.fault] == [
        (f"{name}_0000{start}", "AudioCaps' audiocaps/val.csv has a clip of this video")
        for name, start in (("---2_BBVHAA", 30), ("-07hHdtcXn4", 60))
    ]
    told = explain(MediaStore(raw), rows, "---2_BBVHAA_000030", tmp_path / "facts", LIMITS)
    assert "`excluded`: AudioCaps'" in next(told)
    # Nothing is measured twice: the clip has one key in both corpora.
    assert clip_id("---2_BBVHAA", float("30.000")) == clip_id("---2_BBVHAA", int("30"))
    write(raw, {"audiocaps/val.csv": "id,start\nx,1\n"})
    with pytest.raises(BrewlineError, match=r"line 2: expected a column youtube_id"):
        READERS["audioset"](MediaStore(raw), listed)


# AudioCaps


def test_audiocaps_first_release(tmp_path: Path) -> None:
    write(tmp_path, RELEASE_1 | {"x/7fmOlUlwoNg.wav": b"", "x/Y6BJ455B1aAs.wav": b""})
    rows = {row.utterance_id: row for row in read("audiocaps", tmp_path, release="v1")}
    assert ids(list(rows.values())) == {
        "r1nicOVtvkQ_000130": "train", "---2_BBVHAA_000030": "dev", "-07hHdtcXn4_000027": "dev",
        "7fmOlUlwoNg_000000": "test", "6BJ455B1aAs_000000": "test",
    }  # fmt: skip
    # Those of a clip do not follow each other, and nothing of the ends of the lines is in them.
    assert rows["7fmOlUlwoNg_000000"].captions == (
        "Constant rattling noise and sharp vibrations", "A dog, barking, and a caf\u00e9"
    )  # fmt: skip
    assert rows["7fmOlUlwoNg_000000"].audio_path == "x/7fmOlUlwoNg.wav"
    assert missing(tmp_path, list(rows.values())) == 3


def test_the_releases_of_audiocaps_are_never_mixed(tmp_path: Path) -> None:
    write(tmp_path, RELEASE_1 | RELEASE_2)
    first = {row.utterance_id: row.captions for row in read("audiocaps", tmp_path, release="v1")}
    second = {row.utterance_id: row.captions for row in read("audiocaps", tmp_path, release="v2")}
    # The same clips, and other captions of them in another order; the last has no training part.
    assert set(first) - set(second) == {"r1nicOVtvkQ_000130"} and set(second) < set(first)
    assert second["7fmOlUlwoNg_000000"] == ("constant rattling",)
    assert first["-07hHdtcXn4_000027"] == ("Rain",) != second["-07hHdtcXn4_000027"]
    with pytest.raises(BrewlineError, match="set release for this source: v1 or v2"):
        read("audiocaps", tmp_path)


@pytest.mark.parametrize(
    "files", [RELEASE_2, {"a/val.csv": AUDIOCAPS_VAL, "b/test.csv": AUDIOCAPS_TEST}]
)
def test_tables_of_another_release_are_refused(tmp_path: Path, files: dict[str, Any]) -> None:
    write(tmp_path, files)
    with pytest.raises(BrewlineError, match="release v1 is wanted, and the tables are"):
        read("audiocaps", tmp_path, release="v1")


def test_audiocaps_copy_has_a_row_for_each_caption(tmp_path: Path) -> None:
    """A sound is there as often as it has captions, and is one file; fewer than are listed."""
    write(tmp_path, RELEASE_1)
    table = tmp_path / "data/test-00000-of-00041.parquet"
    names = ["7fmOlUlwoNg"] * 5 + ["6BJ455B1aAs"]
    more = {"start_time": [0] * 6, "audiocap_id": list(range(6)), "caption": ["x"] * 6}
    media_table(table, "youtube_id", names, [b"one"] * 5 + [b"two"], **more)
    rows = read("audiocaps", tmp_path, release="v1")
    store = MediaStore(tmp_path)
    found = {row.speaker_id: store.read(row.audio_path) for row in rows if row.split == "test"}
    assert found == {"7fmOlUlwoNg": b"one", "6BJ455B1aAs": b"two"}
    assert missing(tmp_path, rows) == 3
    media_table(table, "youtube_id", names, [b"one"] * 4 + [b"other", b"two"], **more)
    with pytest.raises(BrewlineError, match="with other content"):
        MediaStore(tmp_path).read("audio/7fmOlUlwoNg")


def test_a_bad_row_of_audiocaps_costs_no_other(tmp_path: Path) -> None:
    bad = "1,a,x,Rain\n2,b\n3,c,-1,Rain\n4,d,nan,Rain\n"
    good = "5,7fmOlUlwoNg,0,\n6,7fmOlUlwoNg,0,A dog\n"
    write(tmp_path, {"test.csv": "audiocap_id,youtube_id,start_time,caption\n" + bad + good})
    rows = read("audiocaps", tmp_path, release="v1")
    assert [row.captions for row in rows if not row.fault] == [("A dog",)]
    assert [told.split(": ")[0] for told in faults(rows)] == [
        f"test.csv, line {number}" for number in (2, 3, 4, 5)
    ]
    write(tmp_path, {"test.csv": "id,youtube_id\n1,a\n"})
    with pytest.raises(BrewlineError, match="the table has no column 'audiocap_id'"):
        read("audiocaps", tmp_path, release="v1")
    (tmp_path / "test.csv").unlink()
    with pytest.raises(BrewlineError, match=r"has no train\.csv, val\.csv or test\.csv"):
        read("audiocaps", tmp_path, release="v1")


# Clotho

CLOTHO_COLUMNS = "file_name," + ",".join(f"caption_{k}" for k in range(1, 6)) + "\n"
METADATA_COLUMNS = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"


def clotho() -> dict[str, str | bytes]:
    captions = (
        '"Distorted AM Radio noise.wav","A muddled noise, of a channel.",b,c,d,e\n'
        "At 5:30 caf\u00e9.wav,Caf\u00e9 noise,b,c,,\n"
        "other.wav,Rain,b,c,d,e\n"
    )
    metadata = (
        "Distorted AM Radio noise.wav,noise;radio,346106,https://x/346106,[909 8],G\u00fcnther,cc\n"
        "At 5:30 caf\u00e9.wav,caf\u00e9;people,346106,https://x/346106,[9 8],G\u00fcnther,cc\n"
        "other.wav,rain,Not found,Not found,[9 8],x,cc\n"
    )
    return {
        "clotho_captions_development.csv": CLOTHO_COLUMNS + captions,
        "clotho_captions_validation.csv": CLOTHO_COLUMNS + "rain.wav,Rain,b,c,d,e\n",
        "clotho_captions_evaluation.csv": CLOTHO_COLUMNS + "rain.wav,Rain,b,c,d,e\n",
        # The older of the two encodings: its bytes are no UTF-8.
        "clotho_metadata_development.csv": (METADATA_COLUMNS + metadata).encode("latin-1"),
        "clotho_metadata_test.csv": "file_name;keywords\nx.wav;a\n",
        "sounds/development/Distorted AM Radio noise.wav": b"",
        "sounds/development/At 5_30 caf\u00e9.wav": b"",
        "sounds/validation/rain.wav": b"",
        "sounds/evaluation/rain.wav": b"",
    }


def test_clotho(tmp_path: Path) -> None:
    write(tmp_path, clotho())
    rows = read("clotho", tmp_path)
    assert Counter(row.split for row in rows) == {"train": 3, "dev": 1, "test": 1}
    by_path = {row.audio_path: row for row in rows}
    # A name with spaces, another with a colon that is none on disk; one name in two parts.
    assert set(by_path) == {
        "sounds/development/Distorted AM Radio noise.wav",
        "sounds/development/At 5_30 caf\u00e9.wav",
        "sounds/development/other.wav", "sounds/validation/rain.wav", "sounds/evaluation/rain.wav",
    }  # fmt: skip
    assert missing(tmp_path, rows) == 1
    radio, cafe, other, *_ = by_path.values()
    assert radio.captions == ("A muddled noise, of a channel.", "b", "c", "d", "e")
    assert cafe.captions == ("Caf\u00e9 noise", "b", "c")
    # Two parts of one sound, whose name is in the older encoding; one whose number is not known.
    assert radio.speaker_id == cafe.speaker_id == "346106"
    assert other.speaker_id == "sounds/development/other.wav"
    assert len({row.utterance_id for row in rows}) == 5
    assert all(name.isascii() and " " not in name for name in ids(rows))


def test_clothos_archives_have_to_be_unpacked(tmp_path: Path) -> None:
    write(tmp_path, {k: v for k, v in clotho().items() if "sounds/development" not in k})
    write(tmp_path, {"clotho_audio_development.7z": b"7z"})
    with pytest.raises(BrewlineError, match=r"development\.7z in .* is 7z, which is not read"):
        read("clotho", tmp_path)
    write(tmp_path, {"clotho_audio_development/other.wav": b""})
    assert missing(tmp_path, read("clotho", tmp_path)) == 2


def test_a_name_of_clotho_stays_in_its_folder(tmp_path: Path) -> None:
    row = "../../../x.wav,Rain,b,c,d,e\n"
    write(tmp_path, clotho() | {"clotho_captions_validation.csv": CLOTHO_COLUMNS + row})
    (told,) = faults(read("clotho", tmp_path))
    assert told.startswith("clotho_captions_validation.csv, line 2: '../../../x.wav' leaves the")


# VGGSound

VGGSOUND = (
    "---g-f_I2yQ,1,people marching,test\n"
    "--0PQM4-hqg,30,waterfall burbling,train\n"
    "--0PQM4-hqg,310,waterfall burbling,train\n"
    '-0qa5grOpeg,30,"playing violin, fiddle",train\n'
    "__xyzxyzxyz,5,dog barking,train\n"
)


def test_vggsound(tmp_path: Path) -> None:
    """No header, six folders in the tar, a video twice, and its test.csv beside it."""
    write(tmp_path, {"vggsound.csv": VGGSOUND, "test.csv": "---g-f_I2yQ_000001.mp4,people\n"})
    deep = "scratch/shared/beegfs/hchen/train_data/VGGSound_final/video"
    names = ["---g-f_I2yQ_000001", "--0PQM4-hqg_000030", "--0PQM4-hqg_000310"]
    write_tar(tmp_path / "vggsound_00.tar", {f"{deep}/{name}.mp4": b"" for name in names})
    write(tmp_path, {"wavs/-0qa5grOpeg_000030.wav": b"", "wavs/__xyzxyzxyz.wav": b""})
    rows = {row.utterance_id: row for row in read("vggsound", tmp_path, dev_fraction=0.34)}
    # The first row is none too, and a label with a comma is no cell too many.
    assert set(rows) == {*names, "-0qa5grOpeg_000030", "__xyzxyzxyz_000005"}
    first = rows["---g-f_I2yQ_000001"]
    assert (first.split, first.video_path) == ("test", f"{deep}/---g-f_I2yQ_000001.mp4")
    # Both clips of a video are in one split, each with its own file.
    twice = rows["--0PQM4-hqg_000030"], rows["--0PQM4-hqg_000310"]
    assert twice[0].split == twice[1].split and twice[0].audio_path != twice[1].audio_path
    assert Counter(row.split for row in rows.values())["dev"] in (1, 2)
    heard = rows["-0qa5grOpeg_000030"]
    assert (heard.audio_path, heard.video_path) == ("wavs/-0qa5grOpeg_000030.wav", None)
    # The id alone does not say which of its clips a file is.
    assert rows["__xyzxyzxyz_000005"].audio_path == "__xyzxyzxyz_000005.mp4"
    with pytest.raises(BrewlineError, match="set dev_fraction"):
        read("vggsound", tmp_path)


def test_a_bad_row_of_vggsound_is_one_sentence(tmp_path: Path) -> None:
    write(tmp_path, {"vggsound.csv": VGGSOUND + "a,1,dog, barking,train\nb,1,x,val\nc,z,x,test\n"})
    wide, split, start = faults(read("vggsound", tmp_path, dev_fraction=0.0))
    assert wide == "vggsound.csv, line 6: expected id,start,label,split, not 5 cells"
    assert split.endswith("line 7: the split must be train or test, not 'val'")
    assert start.endswith("line 8: the start must be seconds, not 'z'")


def test_vggsound_without_what_audiocaps_has(tmp_path: Path) -> None:
    caps = "audiocap_id,youtube_id,start_time,caption\n1,--0PQM4-hqg,0,x\n2,---g-f_I2yQ,0,x\n"
    write(tmp_path, {"vggsound.csv": VGGSOUND, "caps/test.csv": caps})
    rows = read("vggsound", tmp_path, dev_fraction=0.0, exclude=["caps/test.csv"])
    # Of the training part alone.
    assert [row.utterance_id for row in rows if row.fault_reason == "excluded"] == [
        "--0PQM4-hqg_000030", "--0PQM4-hqg_000310"
    ]  # fmt: skip


# AVE

AVE_HEADER = "Category&VideoID&Quality&StartTime&EndTime\n"
ANNOTATIONS = (
    "Church bell&RUhOCu3LNXM&good&0&10\n"
    "Female speech, woman speaking&-pyreSm_sQs&good&1&3\n"
    "Bark&-pyreSm_sQs&good&0&2\n"
    "Truck&zero0000000&good&5&5\n"
    "Truck&nowhere0000&good&0&5\n"
    "Horse&both0000000&good&2&7\n"
)
AVE: dict[str, str | bytes] = {
    "Annotations.txt": AVE_HEADER + ANNOTATIONS,
    "trainSet.txt": "Church bell&RUhOCu3LNXM&good&0&10\nHorse&both0000000&good&2&7\n",
    "valSet.txt": "Truck&zero0000000&good&5&5\nHorse&both0000000&good&2&7\n",
    "testSet.txt": "Bark&-pyreSm_sQs&good&0&2\nCat&unknown0000&good&0&2\n",
}


@pytest.mark.parametrize("header", ["", AVE_HEADER])
def test_ave(tmp_path: Path, header: str) -> None:
    write(tmp_path, AVE | {"Annotations.txt": header + ANNOTATIONS, "AVE/-pyreSm_sQs.mp4": b""})
    rows = read("ave", tmp_path)
    # A video of two splits is measured on.
    assert ids(rows) == {"RUhOCu3LNXM": "train", "-pyreSm_sQs": "test", "both0000000": "dev"}
    twice = next(row for row in rows if row.utterance_id == "-pyreSm_sQs")
    assert twice.video_path == "AVE/-pyreSm_sQs.mp4"
    assert twice.events == (
        ListedEvent(0, 2, "Bark"), ListedEvent(1, 3, "Female speech, woman speaking")
    )  # fmt: skip
    line = 4 + bool(header)
    assert faults(rows) == [
        f"Annotations.txt, line {line}: start and end must be seconds, the end behind the start, "
        "not '5' and '5'",
        f"Annotations.txt, line {line + 1}: 'nowhere0000' is in none of testSet.txt, valSet.txt, "
        "trainSet.txt",
        "testSet.txt, line 2: Annotations.txt has no video 'unknown0000'",
    ]


# From files to samples


def test_sounds_without_pictures_or_captions_become_samples(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    sounds = {f"audio/{name}.flac": flac(length_s, pitch) for name, length_s, pitch in (
        ("--PJHxphWEs", 2, 300), ("-0SdAVK79lg", 1, 400), ("--4gqARaEJE", 2, 500))}  # fmt: skip
    write(raw, {**sounds, "balanced_train_segments.csv": BALANCED, "eval_segments.csv": EVAL})
    good, bad = judge(tmp_path, source("audioset", dev_fraction=0.0))
    assert {row["utterance_id"]: row["duration_s"] for row in good} == {
        "--PJHxphWEs_000030": 2.0, "-0SdAVK79lg_000000": 1.0, "--4gqARaEJE_000000": 2.0
    }  # fmt: skip
    assert set(bad.values()) == {"missing_audio"}
    folder = packed(tmp_path)
    train = {sample.utterance_id: sample for sample in read_split(folder, "train")}
    assert set(train) == {"--PJHxphWEs_000030", "-0SdAVK79lg_000000"}
    short = train["-0SdAVK79lg_000000"]
    assert not short.frames and not short.captions and not short.events
    samples, rate_hz = soundfile.read(io.BytesIO(short.sound or b""))
    assert (len(samples), rate_hz) == (16_000, 16_000)


def test_videos_of_ave_become_samples_with_their_events(tmp_path: Path) -> None:
    tables = {name: text for name, text in AVE.items() if name != "Annotations.txt"}
    annotations = ANNOTATIONS.replace("&0&10\n", "&0&2\n")
    write(tmp_path / "raw", {**tables, "Annotations.txt": annotations})
    write(tmp_path / "raw", {f"AVE/{name}.mp4": video() for name in ("-pyreSm_sQs", "RUhOCu3LNXM")})
    good, bad = judge(tmp_path, source("ave"))
    assert sorted(bad.values()) == ["bad_record", "missing_audio"]
    assert {row["utterance_id"] for row in good} == {"RUhOCu3LNXM", "-pyreSm_sQs"}
    (sample,) = read_split(packed(tmp_path), "test")
    assert sample.utterance_id == "-pyreSm_sQs" and not sample.captions
    assert [frame.time_s for frame in sample.frames] == pytest.approx(
        [0.375, 1.125, 1.875, 2.625], abs=0.02
    )
    assert [(event.start_s, event.label) for event in sample.events] == [
        (0, "Bark"), (1, "Female speech, woman speaking")
    ]  # fmt: skip


def test_an_id_that_begins_with_a_dash_is_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    name = "--PJHxphWEs_000030"
    monkeypatch.setattr(sys, "argv", ["validate", "mini-ravdess", f"--explain={name}"])
    _, corpus, utterance_id = corpus_and_utterance("")
    assert (corpus, utterance_id) == ("mini-ravdess", name)


def test_names_of_files_do_not_repeat() -> None:
    for times in ((0.0, 10.0), (30.0, 40.0), (12.5, 22.5)):
        names = list(file_names("-0SdAVK79lg", *times))
        assert len(names) == len(set(names)) == 7
