"""The order of the rows of a manifest, and what it does for batches."""

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brewline.samples.shards import plan_shards, read_split, shard_name, write_index, write_shard
from brewline.samples.training_reader import TrainingReader
from brewline.samples.utterance import Utterance
from brewline.tables.manifest import MANIFEST, row_order, sort_manifest
from brewline.tables.parquet import read_table, write_table

BATCH = 64

Row = dict[str, Any]


def make_manifest(folder: Path, ids: Sequence[tuple[str, str, str]]) -> list[Row]:
    """Writes rows of (split, utterance, image) as they come, and brings them into their order."""
    path = folder / "manifest.parquet"
    facts = {"corpus": "c", "audio_path": "a.wav", "speaker_id": "s", "audio_sha256": ""}
    facts |= {"duration_s": 1.0, "sample_rate_hz": 16000, "num_channels": 1}  # type: ignore[dict-item]
    rows = (
        {"utterance_id": utterance, "split": split, "image_id": image} | facts
        for split, utterance, image in ids
    )
    write_table(path, MANIFEST, rows)
    sort_manifest(path)
    return read_table(path)


def write_shards(folder: Path, rows: Sequence[Row], per_shard: int) -> None:
    counts = {}
    for split, number, part in plan_shards((row["split"] for row in rows), per_shard):
        name = shard_name(split, number)
        counts[name] = write_shard(
            folder / name,
            (
                {
                    "__key__": row["utterance_id"],
                    "json": json.dumps(
                        {
                            "image_id": row["image_id"],
                            "transcript": "",
                            "caption": None,
                            "num_frames": 0,
                            "avg_logprob": None,
                        }
                    ).encode(),
                }
                for row in rows[part]
            ),
        )
    write_index(folder, counts)


def training_batches(folder: Path, rows: Sequence[Row]) -> Iterator[list[Utterance]]:
    write_shards(folder, rows, per_shard=500)
    reader = TrainingReader(folder, None)
    for number in itertools.count():
        yield reader.read(0, BATCH * number, BATCH * (number + 1))


def test_rows_are_sorted_by_split_and_a_hash_of_the_id(tmp_path: Path) -> None:
    ids = [("test", "c", "k"), ("train", "a-19", "i"), ("dev", "b", "j")]
    ids += [("train", f"a-{n}", "i") for n in (12, 15, 17)]
    rows = make_manifest(tmp_path, ids)
    # Their SHA-256 begin with 0478, 04f0, 065b, 071d.
    in_order = ["a-12", "a-15", "a-17", "a-19", "b", "c"]
    assert [row["utterance_id"] for row in rows] == in_order
    assert make_manifest(tmp_path, ids[::-1]) == rows
    assert row_order("dev", "a") > row_order("train", "z")


def test_a_batch_mixes_speakers(tmp_path: Path) -> None:
    """80 speakers with 100 utterances each: sorted by id, a shard would hold five of them."""
    ids = [("train", f"spk{s:02d}-{n:04d}", f"{s}-{n}") for s in range(80) for n in range(100)]
    made = training_batches(tmp_path, make_manifest(tmp_path, ids))
    speakers = [
        len({utterance.utterance_id.split("-")[0] for utterance in batch})
        for batch in itertools.islice(made, 100)
    ]
    # A global shuffle has 80 (1 - (1 - 1/80)^64) = 44.2 of them on average.
    assert speakers[0] >= 40
    assert min(speakers) >= 35
    assert abs(np.mean(speakers) - 44.2) < 1


def test_a_batch_holds_nearly_as_many_images_as_of_a_global_shuffle(tmp_path: Path) -> None:
    """Five captions of each of 1,600 pictures: sorted by id, a shard would hold 100 pictures."""
    ids = [("train", f"img{i:04d}-{n}", f"img{i:04d}") for i in range(1600) for n in range(5)]
    made = itertools.islice(training_batches(tmp_path, make_manifest(tmp_path, ids)), 100)
    found = np.mean([len({utterance.image_id for utterance in batch}) for batch in made])
    rng, images = np.random.default_rng(0), np.repeat(np.arange(1600), 5)
    shuffled = np.mean([len(np.unique(rng.permutation(images)[:BATCH])) for _ in range(100)])
    assert abs(found - shuffled) < 0.5


def test_shards_keep_the_order(tmp_path: Path) -> None:
    rows = make_manifest(tmp_path, [("dev", f"u{n}", f"i{n}") for n in range(30)])
    write_shards(tmp_path, rows, per_shard=7)
    read = [utterance.utterance_id for utterance in read_split(tmp_path, "dev")]
    assert read == [row["utterance_id"] for row in rows]
