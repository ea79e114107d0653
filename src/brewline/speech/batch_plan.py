"""A manifest cut into shards, and each of them into batches of recordings of like length."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brewline.samples.shards import plan_shards, shard_name
from brewline.speech.windows import fewest_windows

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RecordingBatch:
    """Recordings that are recognised together; `name` tells it from all others of the corpus.

    Without `decode` they are only encoded.
    """

    name: str
    shard: str
    utterances: Sequence[Row]
    decode: bool = True

    @property
    def seconds(self) -> float:
        """Of speech."""
        return float(sum(row["duration_s"] for row in self.utterances))


@dataclass(frozen=True)
class ShardPlan:
    """A part of the manifest: where its states go, and the batches that make them."""

    utterances: Sequence[Row]
    name: str
    batches: Sequence[RecordingBatch]


def with_languages(manifest: Iterable[Row], spoken: str | None) -> list[Row]:
    """Gives rows whose corpus does not say what is spoken that language, if any."""
    return [{**row, "language": row["language"] or spoken} for row in manifest]


def languages_to_hear(manifest: Iterable[Row]) -> set[str]:
    """The languages of recordings that are to be recognised, as far as they are known."""
    spoken = {row["language"] for row in manifest if row["transcript"] is None}
    return spoken - {None}


def plan_batches(
    manifest: Sequence[Row], utterances_per_shard: int, batch_size: int
) -> list[ShardPlan]:
    """Cuts a manifest into shards, and each of them into batches of recordings of like length.

    A batch holds about `batch_size` windows. The plan depends on nothing but its arguments.

    Args:
        manifest: Its rows, in its order.
        utterances_per_shard: Size of a shard.
        batch_size: Windows in a batch.
    """
    shards = []
    for split, number, part in plan_shards(
        (row["split"] for row in manifest), utterances_per_shard
    ):
        utterances, name = manifest[part], shard_name(split, number)
        # The longest first: the last batch to end should not be one that takes long.
        by_length = sorted(utterances, key=lambda row: (-row["duration_s"], row["utterance_id"]))
        cut = list(_cut(by_length, batch_size))
        stem = Path(name).stem
        batches = [
            RecordingBatch(f"{stem}.{count:04d}", name, rows) for count, rows in enumerate(cut)
        ]
        shards.append(ShardPlan(utterances, name, batches))
    return shards


def _cut(rows: Iterable[Row], num_windows: int) -> Iterator[list[Row]]:
    batch: list[Row] = []
    room = num_windows
    for row in rows:
        needed = fewest_windows(row["duration_s"])
        if batch and needed > room:
            yield batch
            batch, room = [], num_windows
        batch.append(row)
        room -= needed
    if batch:
        yield batch
