"""A manifest cut into shards, and each of them into batches of recordings of like length."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from brewline.samples.shards import plan_shards, shard_name
from brewline.speech.windows import fewest_windows
from brewline.tables.parquet import read_column

Row = Mapping[str, Any]


class Shard(NamedTuple):
    """The rows of a manifest from `start` to before `stop`, whose states go into one tar."""

    name: str
    start: int
    stop: int

    @property
    def stem(self) -> str:
        """What the names of its batches begin with."""
        return Path(self.name).stem


@dataclass(frozen=True)
class RecordingBatch:
    """Recordings that are recognised together; `name` tells it from all others of the corpus.

    Without `decode` they are only encoded.
    """

    name: str
    utterances: Sequence[Row]
    decode: bool = True

    @property
    def seconds(self) -> float:
        """Of speech."""
        return float(sum(row["duration_s"] for row in self.utterances))


def cut_into_shards(manifest: Path, utterances_per_shard: int) -> list[Shard]:
    """Cuts a manifest into shards of that size."""
    splits = read_column(manifest, "split").to_pylist()
    return [
        Shard(shard_name(split, number), rows.start, rows.stop)
        for split, number, rows in plan_shards(splits, utterances_per_shard)
    ]


def with_languages(manifest: Iterable[Row], spoken: str | None) -> list[Row]:
    """Gives rows whose corpus does not say what is spoken that language, if any."""
    return [{**row, "language": row["language"] or spoken} for row in manifest]


def languages_to_hear(manifest: Path, spoken: str | None) -> set[str]:
    """The languages of recordings that are to be recognised, as far as they are known.

    Args:
        manifest: The table.
        spoken: The language of recordings of which the corpus does not say, if any.
    """
    languages, texts = (read_column(manifest, name) for name in ("language", "transcript"))
    found: list[str | None] = languages.filter(texts.is_null()).unique().to_pylist()
    return {heard for language in found if (heard := language or spoken)}


def plan_batches(stem: str, utterances: Iterable[Row], batch_size: int) -> list[RecordingBatch]:
    """Cuts a shard into batches of recordings of like length.

    A batch holds about `batch_size` windows. The plan depends on nothing but its arguments.

    Args:
        stem: Of the shard's name.
        utterances: Its rows of the manifest.
        batch_size: Windows in a batch.
    """
    # The longest first: the last batch to end should not be one that takes long.
    by_length = sorted(utterances, key=lambda row: (-row["duration_s"], row["utterance_id"]))
    return [
        RecordingBatch(f"{stem}.{number:04d}", rows)
        for number, rows in enumerate(_cut(by_length, batch_size))
    ]


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
