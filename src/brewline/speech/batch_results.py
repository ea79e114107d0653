"""What batches of recordings gave, in files of a work folder: what was heard, or why it was not."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brewline.core.files import (
    atomic_path,
    is_whole_zip,
    read_json,
    read_partial_json,
    set_aside,
    write_json,
)
from brewline.samples.shards import encode_states
from brewline.speech.batch_plan import RecordingBatch, Row, ShardPlan
from brewline.speech.batch_recogniser import Failure
from brewline.speech.recognition import Recognition

# A process that was killed from outside is no fault of its batch, so a batch that crashes has
# another try as it is before it is split.
_TRIES = {"crash": 2}
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
    """The results of batches; one that failed is split, till the recordings at fault are alone."""

    def __init__(self, work: Path, width: int, drops_failed: bool) -> None:
        """Args are where they lie, and what is made of recordings that cannot be recognised.

        Args:
            work: The folder.
            width: Of an encoder state.
            drops_failed: Whether a recording without text is of no use, or its states are wanted.
        """
        self._work = work
        self._width = width
        self._drops_failed = drops_failed
        self._set_damaged_aside()

    def _set_damaged_aside(self) -> None:
        """What a disk has damaged since is recognised again: else every rerun would fail on it."""
        consequence = "its recordings are recognised again"
        for path in self._work.glob("*.npz"):
            if not is_whole_zip(path):
                set_aside(path, consequence)
        for path in self._work.glob("*.failure.json"):
            read_partial_json(path, consequence)

    def weigh(self, batch: RecordingBatch, failure: Failure) -> dict[str, Any]:
        """A failure with what follows from it: how many tries there were, and what is lost."""
        before = self.failure(batch)
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

    def files(self, shard: ShardPlan, suffix: str) -> Iterator[Path]:
        """What is kept of a shard's batches."""
        return self._work.glob(f"{Path(shard.name).stem}.*.{suffix}")

    def _failure_path(self, batch: RecordingBatch) -> Path:
        return self._work / f"{batch.name}.failure.json"

    def failure(self, batch: RecordingBatch) -> dict[str, Any] | None:
        """Why a batch failed, if it did."""
        path = self._failure_path(batch)
        return read_json(path) if path.exists() else None

    def save(self, batch: RecordingBatch, recognitions: Sequence[Recognition]) -> None:
        """Keeps what was recognised."""
        facts, arrays = [], {}
        for number, recognition in enumerate(recognitions):
            facts.append({k: v for k, v in vars(recognition).items() if k != "states"})
            arrays[str(number)] = recognition.states
        with atomic_path(self._path(batch)) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_FACTS: np.array(json.dumps(facts))}, **arrays)

    def _path(self, batch: RecordingBatch) -> Path:
        return self._work / f"{batch.name}.npz"

    def _is_done(self, batch: RecordingBatch) -> bool:
        return self._path(batch).exists()

    def missing_parts(self, batch: RecordingBatch) -> Iterator[RecordingBatch]:
        """What has to be recognised of a batch: all of it, or of what it was split into."""
        if self._is_done(batch):
            return
        failure = self.failure(batch)
        if failure is None or not failure["is_final"]:
            yield batch
            return
        for part in self._split(batch, failure):
            yield from self.missing_parts(part)

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

    def outcomes(
        self, batch: RecordingBatch, failure: dict[str, Any] | None = None
    ) -> Iterator[Outcome]:
        """What became of the recordings of a batch that misses nothing any more."""
        if self._is_done(batch):
            path = self._path(batch)
            with np.load(path, allow_pickle=False) as stored:
                facts = json.loads(stored[_FACTS].item())
            for number, (row, one) in enumerate(zip(batch.utterances, facts, strict=True)):
                yield Outcome(row, one, (path, str(number)), failure)
            return
        noted = self.failure(batch)
        assert noted is not None, "what is not done has failed"
        parts = self._split(batch, noted)
        if len(batch.utterances) == 1 and batch.decode:
            failure = noted
        for part in parts:
            yield from self.outcomes(part, failure)
        if not parts:
            row = batch.utterances[0]
            known = {"text": row["transcript"] or "", "language": row["language"]}
            yield Outcome(row, _NOTHING | known, None, failure)

    def states_of(self, outcome: Outcome) -> bytes:
        """The encoder states of a recording, as a shard holds them; none where they are lost."""
        if outcome.stored is None:
            return encode_states(np.empty((0, self._width), np.float16))
        path, member = outcome.stored
        with np.load(path, allow_pickle=False) as stored:
            return encode_states(stored[member])
