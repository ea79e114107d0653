"""A manifest to a transcript table and encoder-state shards, one shard at a time.

A shard is the unit of work: finished ones lie whole in the work folder, so a run that was killed
goes on with the first unfinished one and ends in the same bytes.
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from brewline.archives import MediaStore
from brewline.asr import FRAMES_PER_SECOND, Recogniser
from brewline.audio import decode, to_mono_16k
from brewline.files import atomic_path
from brewline.manifest import TRANSCRIPTS, read_table, write_table
from brewline.params import AsrParams
from brewline.processes import die_with_parent
from brewline.shards import encode_states, plan_shards, shard_name, write_shard

STATES = "states"
# Stands for the recogniser of a transcript that was imported.
IMPORTED = "imported"
_BYTES_PER_VALUE = 2  # float16


def estimated_states_mb(manifest: list[dict[str, Any]], width: int) -> float:
    """The disk that the encoder states of a corpus will take, in MB."""
    total_s: float = sum(row["duration_s"] for row in manifest)
    return total_s * FRAMES_PER_SECOND * width * _BYTES_PER_VALUE / 1e6


@dataclass(frozen=True)
class AsrJob:
    """What recognises: the corpus' files, a Whisper checkpoint, its name for the table, how."""

    root: Path
    checkpoint: Path
    asr_model: str
    settings: AsrParams


@dataclass(frozen=True)
class _Shard:
    """A unit of work; `path` is where its states go."""

    manifest: list[dict[str, Any]]
    path: Path

    @property
    def table(self) -> Path:
        """Its transcripts; where they are, the states are whole, because they come last."""
        return self.path.parent.parent / f"{self.path.name}.parquet"

    @property
    def hours(self) -> float:
        """Of speech."""
        return float(sum(row["duration_s"] for row in self.manifest)) / 3600


def transcribe_corpus(
    manifest: list[dict[str, Any]],
    job: AsrJob,
    utterances_per_shard: int,
    work: Path,
    workers: int,
) -> list[dict[str, Any]]:
    """Recognises every utterance of a manifest.

    On a processor each worker has one thread: a second one gains nothing at the batch sizes that
    fit there, and the result depends neither on the number of workers nor on that of the cores.

    Args:
        manifest: Its rows, sorted by split and utterance id.
        job: What recognises.
        utterances_per_shard: Size of a shard.
        work: Holds the finished shards: `states/<split>-000000.tar` and, beside it, a table of
            its transcripts.
        workers: Processes that share the shards; with one, the work is done in this process.

    Returns:
        The rows of the transcript table, in the manifest's order.
    """
    (work / STATES).mkdir(parents=True, exist_ok=True)
    shards = [
        _Shard(manifest[part], work / STATES / shard_name(split, number))
        for split, number, part in plan_shards(
            (row["split"] for row in manifest), utterances_per_shard
        )
    ]
    pending = [shard for shard in shards if not (shard.table.exists() and shard.path.exists())]
    total = sum(shard.hours for shard in shards)
    done = total - sum(shard.hours for shard in pending)
    with tqdm(
        desc="audio recognised",
        total=round(total, 3),
        initial=round(done, 3),
        unit="h",
        disable=None,
    ) as progress:
        for hours in _transcribe_all(pending, job, workers):
            progress.update(hours)
    return [row for shard in shards for row in read_table(shard.table)]


def _transcribe_all(shards: list[_Shard], job: AsrJob, workers: int) -> Iterator[float]:
    """Does all shards; yields the hours of each that is done."""
    if workers == 1 or len(shards) <= 1:
        with _one_thread():
            worker = _Worker(job)
            yield from map(worker.transcribe, shards)
        return
    # The longest first: the last one to end should not be one that began late.
    order = sorted(shards, key=lambda shard: -shard.hours)
    with ProcessPoolExecutor(
        min(workers, len(shards)),
        # A fork would inherit the locks of whatever threads this process runs.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(job,),
    ) as pool:
        yield from pool.map(_transcribe_in_worker, order)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Worker:
    """A model and a corpus, ready for shards."""

    def __init__(self, job: AsrJob) -> None:
        self._recogniser = Recogniser(job.checkpoint, job.settings)
        self._store = MediaStore(job.root)
        self._asr_model = job.asr_model

    def transcribe(self, shard: _Shard) -> float:
        _transcribe_shard(shard, self._store, self._recogniser, self._asr_model)
        return shard.hours


# That of a worker process, made once by `_start_worker`.
_worker: _Worker | None = None


def _start_worker(job: AsrJob) -> None:
    global _worker
    die_with_parent()
    torch.set_num_threads(1)
    _worker = _Worker(job)


def _transcribe_in_worker(shard: _Shard) -> float:
    assert _worker is not None
    return _worker.transcribe(shard)


def _transcribe_shard(
    shard: _Shard, store: MediaStore, recogniser: Recogniser, asr_model: str
) -> None:
    waveforms = [to_mono_16k(decode(store.read(_path(store, row)))) for row in shard.manifest]
    imported = [row["transcript"] for row in shard.manifest]
    recognitions = recogniser.recognise(waveforms, imported)
    table = []

    def samples() -> Iterator[dict[str, Any]]:
        for row, recognition in zip(shard.manifest, recognitions, strict=True):
            table.append(
                {
                    "utterance_id": row["utterance_id"],
                    "split": row["split"],
                    "text": recognition.text,
                    "avg_logprob": recognition.avg_logprob,
                    "no_speech_prob": recognition.no_speech_prob,
                    "compression_ratio": recognition.compression_ratio,
                    "temperature": recognition.temperature,
                    "num_windows": recognition.num_windows,
                    "num_frames": len(recognition.states),
                    "status": "ok",
                    "reason": None,
                    "asr_model": asr_model if row["transcript"] is None else IMPORTED,
                }
            )
            yield {"__key__": row["utterance_id"], "npy": encode_states(recognition.states)}

    with atomic_path(shard.path) as partial:
        write_shard(partial, samples())
    write_table(shard.table, TRANSCRIPTS, table)


def _path(store: MediaStore, row: dict[str, Any]) -> str:
    path = store.find(row["audio_path"])
    assert path is not None, "a row of the manifest has its recording"
    return path
