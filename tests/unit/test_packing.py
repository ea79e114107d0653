"""Packing: the shards of a plain loop, a picture shrunk once, what a failure or a kill costs."""

import gzip
import io
import json
import multiprocessing
import os
import pickle
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from world import write_tar

from brewline.config.shard import ShardParams
from brewline.core.compute import EngineName
from brewline.core.engine import Engine, Processes
from brewline.core.engines import open_engine
from brewline.core.errors import BrewlineError
from brewline.media import file_runs
from brewline.media.archives import MediaStore
from brewline.media.containers import PlacedFile
from brewline.media.pictures import shrink_jpeg
from brewline.samples import packing
from brewline.samples.packing import PackShards, ShardRows, pack_corpus
from brewline.samples.shards import plan_shards, shard_name, write_index, write_shard
from brewline.samples.shrinking import Refused, ShrinkPictures
from brewline.tables.manifest import MANIFEST
from brewline.tables.parquet import read_column, read_rows, read_table, write_table
from brewline.tables.transcripts import TRANSCRIPTS

SETTINGS = ShardParams(
    utterances_per_shard=10, image_short_side_px=24, jpeg_quality=90, frames_per_clip=4
)
NUM_PICTURES, TAKES = 12, 5


def drawn(number: int) -> bytes:
    """A picture with a pattern, in one of two formats; some are small enough already."""
    size = (20, 20) if number % 4 == 0 else (60, 48)
    pixels = np.random.default_rng(number).integers(0, 255, (*size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG" if number % 2 == 0 else "PNG")
    return buffer.getvalue()


class Corpus:
    """Twelve pictures in two archives, five captions each; rows in an order of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.raw = folder, folder / "raw"
        self.raw.mkdir(parents=True)
        # Neither archive is in the order of the names.
        numbers = np.random.default_rng(1).permutation(NUM_PICTURES).tolist()
        names = {number: f"p{number:02}.img" for number in numbers}
        names[3] = "Bäume.img"
        write_tar(self.raw / "a.tar", {names[n]: drawn(n) for n in numbers[:7]})
        write_tar(folder / "plain.tar", {names[n]: drawn(n) for n in numbers[7:]})
        (self.raw / "b.tar.gz").write_bytes(gzip.compress((folder / "plain.tar").read_bytes()))
        self.in_order = [names[number] for number in numbers]
        # A table of the corpus may spell it with the accent apart.
        names[3] = "Ba\u0308ume.img"
        rows, heard = [], []
        for number in range(NUM_PICTURES * TAKES):
            image = number * 7 % NUM_PICTURES
            split = ("train", "train", "train", "dev", "test")[number // NUM_PICTURES]
            key = f"u{number:03}"
            rows.append(manifest_row(key, split, names[image] if number % 11 else None))
            heard.append(transcript_row(key, split, "dropped" if number % 13 == 5 else "ok"))
        self.manifest, self.transcripts = folder / "manifest.parquet", folder / "heard.parquet"
        write_table(self.manifest, MANIFEST, rows)
        write_table(self.transcripts, TRANSCRIPTS, heard)

    def pack(self, engine: Engine, work: str = "work") -> Path:
        return pack_corpus(
            engine, self.manifest, self.transcripts, self.raw, SETTINGS, 20.0, self.folder / work
        )

    def opened(self) -> list[str]:
        """The pictures that `LoggingShrink` has opened."""
        return (self.raw.with_name("opened")).read_text().split()


def manifest_row(key: str, split: str, image: str | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(MANIFEST.names)
    row |= {"utterance_id": key, "corpus": "c", "split": split, "audio_path": f"{key}.wav"}
    row |= {"image_id": image, "image_path": image, "speaker_id": "1", "caption": f"Words {key}"}
    return row | {
        "duration_s": 1.5, "sample_rate_hz": 16000, "num_channels": 1, "audio_sha256": key
    }  # fmt: skip


def transcript_row(key: str, split: str, status: str) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(TRANSCRIPTS.names)
    row |= {"utterance_id": key, "split": split, "text": f"words {key}", "status": status}
    return row | {"num_windows": 1, "num_frames": 75, "avg_logprob": -0.5, "asr_model": "m"}


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    # The index of the tar.gz lies under `work/`.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(file_runs, "_FEWEST_FILES", 3)
    return Corpus(tmp_path)


def plain_loop(corpus: Corpus, folder: Path) -> dict[str, bytes]:
    """All in memory, row by row, each picture opened for each of its captions."""
    folder.mkdir()
    store = MediaStore(corpus.raw)
    manifest = read_table(corpus.manifest)
    heard = {row["utterance_id"]: row for row in read_table(corpus.transcripts)}
    counts = {}
    for split, number, part in plan_shards((row["split"] for row in manifest), 10):
        samples = []
        for row in manifest[part]:
            transcript = heard[row["utterance_id"]]
            if transcript["status"] == "dropped":
                continue
            names = ("image_id", "speaker_id", "caption", "duration_s", "emotion", "intensity")
            facts = {name: row[name] for name in names}
            names = ("avg_logprob", "no_speech_prob", "num_frames", "status")
            facts |= {name: transcript[name] for name in names}
            facts["transcript"] = transcript["text"]
            sample = {"__key__": row["utterance_id"]}
            sample["json"] = json.dumps(facts, sort_keys=True).encode()
            if row["image_path"]:
                sample["jpg"] = shrink_jpeg(store.read(row["image_path"]), SETTINGS)
            samples.append(sample)
        counts[shard_name(split, number)] = write_shard(folder / shard_name(split, number), samples)
    write_index(folder, counts)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


class LoggingShrink(ShrinkPictures):
    """Notes which pictures are opened, in a file beside the archives."""

    def prepare(self) -> Any:
        shrink = super().prepare()

        def log(file: PlacedFile) -> bytes | Refused:
            with self.root.with_name("opened").open("a") as opened:
                opened.write(f"{file.name}\n")
            return shrink(file)

        return log


@pytest.mark.parametrize(
    ("engine", "workers"),
    [("processes", 1), ("processes", 2), pytest.param("ray", 2, marks=pytest.mark.slow)],
)
def test_shards_are_those_of_a_plain_loop_and_a_picture_is_shrunk_once(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, engine: EngineName, workers: int
) -> None:
    monkeypatch.setattr(packing, "ShrinkPictures", LoggingShrink)
    with open_engine(engine, workers, "local") as opened:
        shards = corpus.pack(opened)
        expected = plain_loop(corpus, corpus.folder / "plain")
        assert contents(shards) == expected
        assert len(expected) == 8 + 1
        # In the order of the archives, where nobody works beside.
        names = corpus.opened()
        assert sorted(names) == sorted(corpus.in_order)
        assert workers > 1 or names == corpus.in_order
        # Nothing is left to do.
        assert contents(corpus.pack(opened)) == expected
        assert corpus.opened() == names


class SlowShrink(LoggingShrink):
    """Takes a while for each picture."""

    chunk_size = 1

    def prepare(self) -> Any:
        shrink = super().prepare()

        def slow(file: PlacedFile) -> bytes | Refused:
            time.sleep(0.1)
            return shrink(file)

        return slow


class SlowPack(PackShards):
    """Takes a while for each shard."""

    def _samples(self, *args: Any) -> Iterator[dict[str, Any]]:
        time.sleep(0.3)
        return super()._samples(*args)


def pack_slowly(corpus: Corpus) -> None:
    """In a process that will be killed."""
    os.chdir(corpus.folder)
    file_runs._FEWEST_FILES = 3
    packing.ShrinkPictures, packing.PackShards = SlowShrink, SlowPack  # type: ignore[misc]
    corpus.pack(Processes(1))


@pytest.mark.parametrize("begun", ["pictures", "shards"])
def test_a_packing_that_was_killed_goes_on(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch, begun: str
) -> None:
    process = multiprocessing.get_context("spawn").Process(target=pack_slowly, args=(corpus,))
    process.start()
    folder = corpus.folder / "work" / begun

    def finished() -> dict[str, int]:
        found = folder.iterdir() if folder.exists() else ()
        return {path.name: path.stat().st_mtime_ns for path in found if path.name[0] != "."}

    while len(finished()) < 2:
        assert process.is_alive()
        time.sleep(0.02)
    process.kill()
    process.join()
    before, opened = finished(), Counter(corpus.opened())
    assert 2 <= len(before) < (4 if begun == "pictures" else 8)
    monkeypatch.setattr(packing, "ShrinkPictures", LoggingShrink)
    shards = corpus.pack(Processes(2))
    assert contents(shards) == plain_loop(corpus, corpus.folder / "plain")
    assert before.items() <= finished().items()
    again = Counter(corpus.opened()) - opened
    # A run of three pictures may have been begun.
    done = 3 * len(before) if begun == "pictures" else NUM_PICTURES
    assert sorted(again) == sorted(corpus.in_order[done:])


class DyingShrink(ShrinkPictures):
    """Its decoder kills its process at one picture."""

    def prepare(self) -> Any:
        shrink = super().prepare()

        def die(file: PlacedFile) -> bytes | Refused:
            if file.name == "p05.img":
                os.kill(os.getpid(), signal.SIGSEGV)
            return shrink(file)

        return die


def test_a_picture_that_kills_its_decoder_is_named_and_the_others_are_shrunk(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "ShrinkPictures", DyingShrink)
    message = r"1 of 4 parts .*picture 'p05\.img' cannot be packed: its process ended with SIGSEGV"
    with pytest.raises(BrewlineError, match=message):
        corpus.pack(Processes(2))
    left = sorted(path.name for path in (corpus.folder / "work/pictures").iterdir())
    number = corpus.in_order.index("p05.img") // 3
    assert left == [f"{run:06}.arrow" for run in range(4) if run != number]
    assert not (corpus.folder / "work/shards").exists()


def test_what_is_no_picture_is_named_and_the_others_are_shrunk(corpus: Corpus) -> None:
    write_tar(corpus.raw / "a.tar", dict.fromkeys(corpus.in_order[:1], b"words") | {
        name: drawn(0) for name in corpus.in_order[1:7]
    })  # fmt: skip
    message = f"1 of 4 parts .*picture '{corpus.in_order[0]}' cannot be packed: no known image"
    with pytest.raises(BrewlineError, match=message):
        corpus.pack(Processes(2))
    assert len(list((corpus.folder / "work/pictures").iterdir())) == 3


def test_a_picture_that_is_not_there_is_named(corpus: Corpus) -> None:
    (corpus.raw / "b.tar.gz").unlink()
    with pytest.raises(BrewlineError, match=r"picture .* is not in the archives; run `dvc repro`"):
        corpus.pack(Processes(1))


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_small_pictures_that_a_disk_has_damaged_are_named(corpus: Corpus, kept: float) -> None:
    corpus.pack(Processes(1))
    for path in (corpus.folder / "work/shards").iterdir():
        path.unlink()
    damaged = corpus.folder / "work/pictures/000002.arrow"
    content = damaged.read_bytes()
    damaged.write_bytes(content[: int(len(content) * kept)])
    message = r"parts are not done.*work/pictures/000002\.arrow is damaged .* remove it"
    with pytest.raises(BrewlineError, match=message):
        corpus.pack(Processes(1))
    damaged.unlink()
    shards = corpus.pack(Processes(1))
    assert contents(shards) == plain_loop(corpus, corpus.folder / "plain")


class FullDisk(PackShards):
    """The disk is full in the middle of a shard."""

    def _samples(self, *args: Any) -> Iterator[dict[str, Any]]:
        yield next(super()._samples(*args))
        raise OSError(28, "No space left on device", "/a/disk")


def test_a_full_disk_is_one_sentence_and_leaves_no_part_of_a_shard(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "PackShards", FullDisk)
    with pytest.raises(BrewlineError, match=r"^the disk of /a/disk is full") as raised:
        corpus.pack(Processes(2))
    assert raised.value.kind == "disk"
    assert list((corpus.folder / "work/shards").iterdir()) == []


def test_rows_and_transcripts_are_joined_by_id(corpus: Corpus) -> None:
    heard = read_table(corpus.transcripts)
    write_table(corpus.transcripts, TRANSCRIPTS, [*heard[:4], *heard[5:]])
    with pytest.raises(BrewlineError, match="utterance 'u004' has no transcript"):
        corpus.pack(Processes(1))
    write_table(corpus.transcripts, TRANSCRIPTS, [heard[1], heard[0], *heard[2:]])
    with pytest.raises(BrewlineError, match=r"the rows of .*heard\.parquet are not those of"):
        corpus.pack(Processes(1))
    assert not (corpus.folder / "work/shards").exists()


def test_a_corpus_without_pictures_is_packed(corpus: Corpus) -> None:
    rows = [row | {"image_id": None, "image_path": None} for row in read_table(corpus.manifest)]
    write_table(corpus.manifest, MANIFEST, rows)
    shards = corpus.pack(Processes(1))
    assert contents(shards) == plain_loop(corpus, corpus.folder / "plain")
    assert not (corpus.folder / "work/pictures").exists()


def test_a_unit_travels_small_and_so_does_the_job(corpus: Corpus) -> None:
    runs = file_runs.FileRuns(Path("list.parquet"), 123_000, 1024, 0.0)
    shrink = ShrinkPictures(corpus.raw, runs, Path("pictures"), SETTINGS, 60.0)
    pack = PackShards(
        corpus.manifest, corpus.transcripts, Path("n"), runs, Path("p"), Path("shards")
    )
    assert len(pickle.dumps((shrink, 7))) < 2000
    assert len(pickle.dumps((pack, ShardRows("train-000000.tar", 0, 500)))) < 2000


def test_rows_are_read_across_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = pyarrow.table({"a": range(23), "b": [str(number) for number in range(23)]})
    pyarrow.parquet.write_table(table, path, row_group_size=5)
    rows = table.to_pylist()
    for start in range(23):
        for stop in range(start, 24):
            assert read_rows(path, slice(start, stop), ["b", "a"]) == rows[start:stop]
    assert read_rows(path, slice(3, 8), ["a"]) == [{"a": number} for number in range(3, 8)]
    assert read_column(path, "a").to_pylist() == list(range(23))
    with pytest.raises(BrewlineError, match="is missing; run `dvc repro`"):
        read_rows(tmp_path / "none.parquet", slice(0, 1), ["a"])
