"""What the batches of a shard gave, in files of a work folder: what was heard, or why it was not.

Several may write them at the same time, and one may remove them while another one looks.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brewline.core.files import (
    atomic_path,
    is_whole_zip,
    read_json,
    read_partial_json,
    remove,
    set_aside,
    write_json,
)
from brewline.samples.shards import encode_states
from brewline.speech.batch_plan import RecordingBatch, Row, Shard
from brewline.speech.batch_recogniser import Failure
from brewline.speech.progress import ShardProgress
from brewline.speech.recognition import Recognition

# A process that was killed from outside is no fault of its batch, so a batch that crashes has
# another try as it is before it is split.
_TRIES = {"crash": 2}
# Files of recognitions that are open at a time while their states are read.
_MAX_OPEN = 64
# What a file of recognitions calls everything but their states.
_FACTS = "facts"
# Of a recognition, what is in the table as it is.
COLUMNS = (
    "text",
    "language",
    "avg_logprob",
    "no_speech_prob",
    "compression_ratio",
    "temperature",
    "num_windows",
    "num_frames",
    "words",
)
_NOTHING = dict.fromkeys(COLUMNS) | {"text": "", "num_windows": 0, "num_frames": 0}


class Outcome(NamedTuple):
    """An utterance: what was found in it, where its states are, and why its text is lost."""

    row: Row
    facts: Mapping[str, Any]
    # A file of numpy's, and the member of it.
    stored: tuple[Path, str] | None
    failure: dict[str, Any] | None


class BatchResults:
    """The results of a shard's batches.

    A batch that failed is split, till the recordings at fault are alone.
    """

    def __init__(
        self,
        work: Path,
        shard: Shard,
        batches: Sequence[RecordingBatch],
        width: int,
        drops_failed: bool,
    ) -> None:
        """Args are where they lie, and what is made of recordings that cannot be recognised.

        Args:
            work: The folder.
            shard: Whose they are.
            batches: Of the shard.
            width: Of an encoder state.
            drops_failed: Whether a recording without text is of no use, or its states are wanted.
        """
        self._work = work
        self._shard = shard
        self._batches = batches
        self._width = width
        self._drops_failed = drops_failed

    def set_damaged_aside(self) -> None:
        """What a disk has damaged since is recognised again: else every rerun would fail on it."""
        consequence = "its recordings are recognised again"
        for path in self._files("npz"):
            if not is_whole_zip(path):
                set_aside(path, consequence)
        for path in self._files("failure.json"):
            read_partial_json(path, consequence)

    def _files(self, suffix: str) -> list[Path]:
        return list(self._work.glob(f"{self._shard.stem}.*.{suffix}"))

    def missing(self) -> list[RecordingBatch]:
        """What has to be recognised still."""
        return [part for batch in self._batches for part in self._missing_parts(batch)]

    def done_s(self, batch: RecordingBatch) -> float:
        """Seconds of speech of a batch that misses nothing any more; else 0."""
        return 0.0 if any(self._missing_parts(batch)) else batch.seconds

    def progress(self) -> ShardProgress:
        """How far the shard is."""
        total_s = sum(batch.seconds for batch in self._batches)
        missing_s = sum(batch.seconds for batch in self.missing())
        num_lost = sum(read_json(path)["is_lost"] for path in self._files("failure.json"))
        return ShardProgress(self._shard.name, total_s - missing_s, num_lost)

    def forget_lost(self) -> None:
        """Has the recordings that failed alone tried again, by whoever asks what is missing."""
        for path in self._files("failure.json"):
            if read_json(path)["num_recordings"] == 1:
                remove(path)

    def clear(self) -> None:
        """Removes what is kept of the batches."""
        for path in (*self._files("npz"), *self._files("failure.json")):
            remove(path)

    def weigh(self, batch: RecordingBatch, failure: Failure) -> dict[str, Any]:
        """A failure with what follows from it: how many tries there were, and what is lost."""
        before = self._failure(batch)
        num_tries = before["num_tries"] + 1 if before else 1
        is_final = num_tries >= _TRIES.get(failure.reason, 1)
        return asdict(failure) | {
            "num_recordings": len(batch.utterances),
            "num_tries": num_tries,
            "is_final": is_final,
            "is_lost": is_final and batch.decode and len(batch.utterances) == 1,
        }

    def save_failure(self, batch: RecordingBatch, weighed: dict[str, Any]) -> None:
        """Keeps why a batch failed, so that a run that goes on does not try it in vain."""
        write_json(self._failure_path(batch), weighed)

    def _failure_path(self, batch: RecordingBatch) -> Path:
        return self._work / f"{batch.name}.failure.json"

    def _failure(self, batch: RecordingBatch) -> dict[str, Any] | None:
        path = self._failure_path(batch)
        return read_json(path) if path.exists() else None

    def has_failed(self, batch: RecordingBatch) -> bool:
        """Whether a batch was tried before, in vain."""
        return self._failure_path(batch).exists()

    def save(self, batch: RecordingBatch, recognitions: Sequence[Recognition]) -> None:
        """Keeps what was recognised."""
        facts, arrays = [], {}
        for number, recognition in enumerate(recognitions):
            facts.append({k: v for k, v in vars(recognition).items() if k != "states"})
            arrays[str(number)] = recognition.states
        with atomic_path(self._path(batch)) as path, path.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_FACTS: np.array(json.dumps(facts))}, **arrays)

    def _path(self, batch: RecordingBatch) -> Path:
        return self._work / f"{batch.name}.npz"

    def _is_done(self, batch: RecordingBatch) -> bool:
        return self._path(batch).exists()

    def _missing_parts(self, batch: RecordingBatch) -> Iterator[RecordingBatch]:
        if self._is_done(batch):
            return
        failure = self._failure(batch)
        if failure is None or not failure["is_final"]:
            yield batch
            return
        for part in self._split(batch, failure):
            yield from self._missing_parts(part)

    def _split(self, batch: RecordingBatch, failure: Mapping[str, Any]) -> list[RecordingBatch]:
        """What a batch that failed is split into.

        Halves; or, as each try in vain takes the whole limit, single recordings if it took too
        long. Of a recording alone, its states: the encoder may do where the decoder does not.
        """
        count = len(batch.utterances)
        if count > 1:
            size = 1 if failure["reason"] == "timeout" else (count + 1) // 2
            return [
                replace(
                    batch,
                    name=f"{batch.name}.{start}",
                    utterances=batch.utterances[start : start + size],
                )
                for start in range(0, count, size)
            ]
        if not batch.decode or self._drops_failed:
            return []
        return [replace(batch, name=f"{batch.name}.states", decode=False)]

    def outcomes(self, ids: Sequence[str]) -> list[Outcome]:
        """What became of the recordings of a shard that misses nothing any more, in that order.

        Raises:
            FileNotFoundError: somebody has removed it meanwhile.
        """
        found = {
            outcome.row["utterance_id"]: outcome
            for batch in self._batches
            for outcome in self._outcomes(batch)
        }
        return [found[utterance_id] for utterance_id in ids]

    def _outcomes(
        self, batch: RecordingBatch, failure: dict[str, Any] | None = None
    ) -> Iterator[Outcome]:
        if self._is_done(batch):
            path = self._path(batch)
            with np.load(path, allow_pickle=False) as stored:
                facts = json.loads(stored[_FACTS].item())
            for number, (row, one) in enumerate(zip(batch.utterances, facts, strict=True)):
                yield Outcome(row, one, (path, str(number)), failure)
            return
        # What is not done has failed.
        noted = read_json(self._failure_path(batch))
        parts = self._split(batch, noted)
        if len(batch.utterances) == 1 and batch.decode:
            failure = noted
        for part in parts:
            yield from self._outcomes(part, failure)
        if not parts:
            row = batch.utterances[0]
            known = {"text": row["transcript"] or "", "language": row["language"]}
            yield Outcome(row, _NOTHING | known, None, failure)

    def states(self, outcomes: Sequence[Outcome]) -> Iterator[bytes]:
        """The encoder states of recordings, as a shard holds them; none where they are lost."""
        # A recording is in any of the batches. What falls out of the cache is closed.
        opened: Callable[[Path], Any] = lru_cache(_MAX_OPEN)(partial(np.load, allow_pickle=False))
        for outcome in outcomes:
            if outcome.stored is None:
                yield encode_states(np.empty((0, self._width), np.float16))
                continue
            path, member = outcome.stored
            yield encode_states(opened(path)[member])
