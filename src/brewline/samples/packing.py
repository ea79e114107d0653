"""Manifest, transcripts, pictures and clips to WebDataset shards, in two steps of units.

First each run of pictures is made small, or of clips cut, in the order of the archives; then each
shard is written, whose rows are a random sample of the corpus. A shard reads its own rows, so
nobody has the tables of a corpus in memory.
"""

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.compute

from brewline.config.shard import ShardParams
from brewline.core.engine import Engine, Job, run_under_bar
from brewline.core.errors import BrewlineError, disk_faults_explained
from brewline.core.files import atomic_path
from brewline.core.workers import Lost, Worker
from brewline.media.file_runs import FileRuns
from brewline.samples.clips import CutClips, CutFiles, clip_fields, list_clips
from brewline.samples.shards import plan_shards, shard_name, write_index, write_shard
from brewline.samples.shrinking import NO_PICTURE, ShrinkPictures, ShrunkPictures, list_pictures
from brewline.tables.manifest import holds_clips
from brewline.tables.parquet import read_column, read_rows
from brewline.tables.transcripts import DROPPED

_MANIFEST_FACTS = ("image_id", "speaker_id", "caption", "duration_s", "emotion", "intensity")
_CLIP_FACTS = ("speaker_id", "duration_s", "captions", "events")
_TRANSCRIPT_FACTS = ("avg_logprob", "no_speech_prob", "num_frames", "status")
# A shard is written in seconds, to a slow disk in minutes.
_SHARD_LIMIT_S = 3600.0

Samples = Iterator[dict[str, Any]]


class ShardRows(NamedTuple):
    """A shard, and the rows of the manifest from `start` to before `stop` that it is made of."""

    name: str
    start: int
    stop: int


@dataclass(frozen=True)
class PackShards(Job[ShardRows, ShardRows, None, int]):
    """Writes a shard; the pictures are small, or the clips cut, already.

    The transcripts are in the order of the manifest. `numbers` says which picture, or which clip, a
    row has; `made` is what was made of the `files` of that list.
    """

    manifest: Path
    transcripts: Path
    numbers: Path
    files: FileRuns
    made: Path
    folder: Path
    has_clips: bool = False
    limit_s: float = _SHARD_LIMIT_S

    def prepare(self) -> Any:
        """See `Job`."""
        if self.has_clips:
            return functools.partial(self._write, self._clips, CutFiles(self.files, self.made))
        return functools.partial(self._write, self._samples, ShrunkPictures(self.files, self.made))

    def is_done(self, unit: ShardRows) -> bool:
        """See `Job`."""
        return (self.folder / unit.name).exists()

    def do(self, unit: ShardRows, worker: Worker[ShardRows, None]) -> Iterator[int]:
        """See `Job`; tells the number of utterances."""
        # In the worker, not here: these are threads of one process, which would take turns.
        for answer in worker.map([unit]):
            if isinstance(answer, Lost):
                raise BrewlineError(f"{unit.name} cannot be written: {answer.detail}", "crash")
        yield unit.stop - unit.start

    def _write(
        self, samples: Callable[[Any, ShardRows], Samples], made: Any, unit: ShardRows
    ) -> None:
        with disk_faults_explained(), atomic_path(self.folder / unit.name) as partial:
            write_shard(partial, samples(made, unit))

    def _clips(self, clips: CutFiles, unit: ShardRows) -> Samples:
        part = slice(unit.start, unit.stop)
        rows = read_rows(self.manifest, part, ["utterance_id", *_CLIP_FACTS])
        numbers = np.load(self.numbers, mmap_mode="r")[part].tolist()
        for row, number in zip(rows, numbers, strict=True):
            clip = clips.read(number)
            facts = {name: row[name] for name in _CLIP_FACTS} | {"times_s": clip.times_s}
            yield _sample(row, facts) | clip_fields(clip)

    def _samples(self, pictures: ShrunkPictures, unit: ShardRows) -> Samples:
        part = slice(unit.start, unit.stop)
        rows = read_rows(self.manifest, part, ["utterance_id", *_MANIFEST_FACTS])
        transcripts = read_rows(self.transcripts, part, ["text", *_TRANSCRIPT_FACTS])
        numbers = np.load(self.numbers, mmap_mode="r")[part].tolist()
        for row, transcript, number in zip(rows, transcripts, numbers, strict=True):
            if transcript["status"] == DROPPED:
                continue
            facts = {name: row[name] for name in _MANIFEST_FACTS}
            facts |= {name: transcript[name] for name in _TRANSCRIPT_FACTS}
            facts |= {"transcript": transcript["text"]}
            sample = _sample(row, facts)
            if number != NO_PICTURE:
                sample["jpg"] = pictures.read(number)
            yield sample


def _sample(row: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "__key__": row["utterance_id"],
        "json": json.dumps(facts, sort_keys=True).encode(),
    }


def pack_corpus(
    engine: Engine,
    manifest: Path,
    transcripts: Path,
    root: Path,
    settings: ShardParams,
    decode_limit_s: float,
    work: Path,
) -> Path:
    """Writes the shards of a corpus and their index.

    Args:
        engine: What makes pictures small, and writes shards.
        manifest: The table.
        transcripts: The table, with the same utterances in the same order.
        root: The corpus' folder, for the pictures.
        settings: Size of a shard and of the pictures.
        decode_limit_s: Seconds that a picture may take.
        work: The folder of partial work; what is finished there is not done again.

    Returns:
        The folder in it, with `<split>-000000.tar` and `index.json`.

    Raises:
        BrewlineError: an utterance of the manifest has no transcript, or a picture cannot be
            packed; and see `run_units`.
    """
    require_joined(manifest, transcripts)
    numbers, folder = work / "numbers.npy", work / "shards"
    has_clips = holds_clips(manifest)
    made = work / ("clips" if has_clips else "pictures")
    listing = made.with_suffix(".parquet")
    parts = made.with_suffix(".npy")
    if has_clips:
        files = list_clips(root, manifest, listing, parts, numbers)
    else:
        files = list_pictures(root, manifest, listing, numbers)
    # What an object store takes is not taken for the decoder's.
    limit_s, runs = decode_limit_s + files.patience_s, dict(enumerate(files.sizes()))
    if has_clips:
        cut = CutClips(root, files, parts, made, settings, limit_s)
        run_under_bar(engine, cut, runs, "cutting", "clips")
    else:
        shrink = ShrinkPictures(root, files, made, settings, limit_s)
        run_under_bar(engine, shrink, runs, "shrinking", "pictures")
    splits = read_column(manifest, "split").to_pylist()
    shards = [
        ShardRows(shard_name(split, number), part.start, part.stop)
        for split, number, part in plan_shards(splits, settings.utterances_per_shard)
    ]
    pack = PackShards(manifest, transcripts, numbers, files, made, folder, has_clips)
    sizes = {shard: shard.stop - shard.start for shard in shards}
    run_under_bar(engine, pack, sizes, "packing", "utterances")
    status = read_column(transcripts, "status")
    is_kept = pyarrow.compute.not_equal(status, DROPPED).to_numpy()
    write_index(folder, {one.name: int(is_kept[one.start : one.stop].sum()) for one in shards})
    return folder


def require_joined(manifest: Path, transcripts: Path) -> None:
    """Makes sure that rows which belong together stand in the same place.

    Raises:
        BrewlineError: the two tables are of different utterances.
    """
    ids, heard = (read_column(path, "utterance_id") for path in (manifest, transcripts))
    if ids.equals(heard):
        return
    has_none = pyarrow.compute.invert(pyarrow.compute.is_in(ids, value_set=heard.unique()))
    for key in ids.filter(has_none).to_pylist():
        raise BrewlineError(f"utterance {key!r} has no transcript; run `dvc repro transcribe`")
    raise BrewlineError(
        f"the rows of {transcripts} are not those of {manifest}; run `dvc repro transcribe`"
    )
