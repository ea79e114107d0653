"""A manifest to a transcript table and encoder-state shards, a batch of recordings at a time.

A batch is the unit of work: what one gives is a function of its recordings, is computed in a worker
process, and lies whole in the work folder before the next one is begun. So a run that was killed
goes on with the batches that are missing, and ends in the same bytes; and what makes the model
crash, hang or run out of memory costs a recording, not a run.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from brewline.config.asr import OnFailure
from brewline.core.errors import BrewlineError, disk_faults_explained
from brewline.core.files import atomic_path, link, read_json, remove, set_aside
from brewline.core.workers import Lost, WorkerPool
from brewline.samples.shards import holds_samples, write_index, write_shard
from brewline.speech.batch_plan import RecordingBatch, Row, ShardPlan
from brewline.speech.batch_recogniser import Failure, Recognise
from brewline.speech.batch_results import COLUMNS, BatchResults, Outcome
from brewline.speech.progress import TranscriptionProgress
from brewline.speech.recognition import Recognition
from brewline.tables.parquet import read_table, write_table
from brewline.tables.transcripts import DROPPED, FAILED, OK, TRANSCRIPTS

# Stands for the recogniser of a transcript that was imported.
IMPORTED = "imported"


class Transcriber:
    """Recognises a corpus in a work folder, and goes on where an earlier one left off.

    The folder holds, for each batch that is done, its recognitions; for each that failed, why;
    and for each shard whose batches are through, its states and the table of its transcripts,
    instead of them. A shard with recordings that are lost waits for `write_outputs`: till then they
    may be tried again, and they alone.
    """

    def __init__(
        self,
        shards: Sequence[ShardPlan],
        on_failure: OnFailure,
        asr_model: str,
        width: int,
        work: Path,
    ) -> None:
        """Looks what is done already.

        Args:
            shards: What came of `plan_batches`.
            on_failure: What becomes of a recording that cannot be recognised.
            asr_model: Name of the recogniser, for the table.
            width: Of an encoder state.
            work: The folder.
        """
        self._on_failure = on_failure
        self._asr_model = asr_model
        self._shards = {shard.name: shard for shard in shards}
        self._results = BatchResults(work, width, drops_failed=on_failure == "drop")
        self._work = work
        self.states = work / "states"
        self.states.mkdir(parents=True, exist_ok=True)
        for shard in shards:
            self._set_damaged_aside(shard)
        # Recordings whose text is lost, so far.
        self._num_failed = sum(map(self._num_lost, shards))

    def run(
        self, prepare: Callable[[], Recognise], workers: int, limit_s: float
    ) -> Iterator[TranscriptionProgress]:
        """Recognises what is missing; says how far it is at the start and after every batch.

        Args:
            prepare: Called once in each worker process, gives what answers a batch.
            workers: Processes.
            limit_s: Seconds that a batch may take.

        Raises:
            BrewlineError: the disk is full, the checkpoint is damaged, or a recording fails and
                `asr.on_failure` is `stop`.
        """
        # A run that was killed may have come as far as to the last batch of a shard.
        for shard in self._shards.values():
            self._finish_if_through(shard)
        total_s = sum(batch.seconds for shard in self._shards.values() for batch in shard.batches)
        missing = self._missing(self._shards.values())
        before_s = done_s = total_s - sum(batch.seconds for batch in missing)
        yield TranscriptionProgress(done_s, total_s, self._num_failed, 0.0)
        if not missing:
            return
        start_s = time.monotonic()
        workers = min(workers, len(missing))
        with WorkerPool(prepare, workers, limit_s, chunk_size=1) as pool:
            while missing:
                for number, answer in pool.map_unordered(missing):
                    batch, shard = missing[number], self._shards[missing[number].shard]
                    self._take(batch, answer)
                    if not any(self._results.missing_parts(batch)):
                        done_s += batch.seconds
                    self._finish_if_through(shard)
                    factor = (done_s - before_s) / (time.monotonic() - start_s)
                    yield TranscriptionProgress(done_s, total_s, self._num_failed, factor)
                missing = self._missing(self._shards.values())

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the transcript table, in the manifest's order, once all are recognised."""
        for shard in self._shards.values():
            if self._is_finished(shard):
                yield from read_table(self._table(shard))
            else:
                yield from map(self._table_row, self._in_order(shard))

    def check_failures(self, rows: Sequence[Row], max_rate: float) -> None:
        """Stops where more recordings failed than may; the next run tries them again.

        Args:
            rows: Of the table.
            max_rate: The share that may fail.

        Raises:
            BrewlineError: says how many did, and why most of them did.
        """
        reasons = Counter(row["reason"] for row in rows if row["status"] != OK)
        if reasons.total() <= max_rate * len(rows):
            return
        lost = {row["utterance_id"] for row in rows if row["status"] != OK}
        for shard in self._shards.values():
            if lost & {row["utterance_id"] for row in shard.utterances}:
                remove(self._table(shard))
                for path in self._results.files(shard, "failure.json"):
                    if read_json(path)["num_recordings"] == 1:
                        remove(path)
        reason, count = reasons.most_common(1)[0]
        raise BrewlineError(
            f"{reasons.total():,} of {len(rows):,} recordings could not be recognised, most of "
            f"them ({count:,}) for `{reason}`; runtime.max_transcription_failure_rate allows "
            f"{100 * max_rate:g} %"
        )

    def write_outputs(self, rows: Sequence[Row], table: Path, states: Path) -> None:
        """Writes the table, and the folder of states with its index, from the work folder.

        States are linked, not moved: a run that is killed here finds all of it again.
        """
        with disk_faults_explained():
            write_table(table, TRANSCRIPTS, rows)
            with atomic_path(states) as partial:
                counts = {}
                for shard in self._shards.values():
                    self._finish(shard)
                    link(self.states / shard.name, partial / shard.name)
                    found = read_table(self._table(shard))
                    counts[shard.name] = sum(row["status"] != DROPPED for row in found)
                write_index(partial, counts)

    def _take(self, batch: RecordingBatch, answer: list[Recognition] | Failure | Lost) -> None:
        if isinstance(answer, Lost):
            answer = Failure(answer.how, answer.detail)
        with disk_faults_explained():
            if isinstance(answer, Failure):
                self._note(batch, answer)
            else:
                self._results.save(batch, answer)

    def _note(self, batch: RecordingBatch, failure: Failure) -> None:
        weighed = self._results.weigh(batch, failure)
        if weighed["is_lost"]:
            utterance_id = batch.utterances[0]["utterance_id"]
            sentence = f"{utterance_id} cannot be recognised ({failure.reason}): {failure.detail}"
            if self._on_failure == "stop":
                raise BrewlineError(f"{sentence}; asr.on_failure: keep goes on without its text")
            tqdm.write(sentence)
        self._results.save_failure(batch, weighed)
        self._num_failed += weighed["is_lost"]

    def _num_lost(self, shard: ShardPlan) -> int:
        if self._is_finished(shard):
            return sum(row["status"] != OK for row in read_table(self._table(shard)))
        failures = self._results.files(shard, "failure.json")
        return sum(read_json(path)["is_lost"] for path in failures)

    def _missing(self, shards: Iterable[ShardPlan]) -> list[RecordingBatch]:
        return [
            part
            for shard in shards
            if not self._is_finished(shard)
            for batch in shard.batches
            for part in self._results.missing_parts(batch)
        ]

    def _table(self, shard: ShardPlan) -> Path:
        return self._work / f"{shard.name}.parquet"

    def _is_finished(self, shard: ShardPlan) -> bool:
        return self._table(shard).exists() and (self.states / shard.name).exists()

    def _set_damaged_aside(self, shard: ShardPlan) -> None:
        """Lets a finished shard be made again where a disk has damaged its table or its states."""
        if not self._is_finished(shard):
            return
        consequence = "its recordings are recognised again"
        table, states = self._table(shard), self.states / shard.name
        try:
            rows = read_table(table)
        except BrewlineError:
            set_aside(table, consequence)
            return
        if not holds_samples(states, [r["utterance_id"] for r in rows if r["status"] != DROPPED]):
            set_aside(states, consequence)

    def _finish_if_through(self, shard: ShardPlan) -> None:
        """Writes the states and the table of a shard that lost nothing, and removes its batches."""
        if self._is_finished(shard) or self._missing([shard]):
            return
        if not any(outcome.failure for outcome in self._in_order(shard)):
            self._finish(shard)

    def _in_order(self, shard: ShardPlan) -> list[Outcome]:
        """What became of the recordings of a shard that is through, as the manifest has them."""
        where = {
            outcome.row["utterance_id"]: outcome
            for batch in shard.batches
            for outcome in self._results.outcomes(batch)
        }
        return [where[row["utterance_id"]] for row in shard.utterances]

    def _finish(self, shard: ShardPlan) -> None:
        if self._is_finished(shard):
            return
        outcomes = self._in_order(shard)
        rows = [self._table_row(outcome) for outcome in outcomes]
        with disk_faults_explained():
            with atomic_path(self.states / shard.name) as partial:
                samples = (
                    {"__key__": row["utterance_id"], "npy": self._results.states_of(outcome)}
                    for row, outcome in zip(rows, outcomes, strict=True)
                    if row["status"] != DROPPED
                )
                write_shard(partial, samples)
            write_table(self._table(shard), TRANSCRIPTS, rows)
        for path in (
            *self._results.files(shard, "npz"),
            *self._results.files(shard, "failure.json"),
        ):
            remove(path)

    def _table_row(self, outcome: Outcome) -> dict[str, Any]:
        facts, failure = outcome.facts, outcome.failure
        status = OK
        if failure:
            status = DROPPED if self._on_failure == "drop" else FAILED
        imported = outcome.row["transcript"] is not None
        return {
            "utterance_id": outcome.row["utterance_id"],
            "split": outcome.row["split"],
            **{name: facts[name] for name in COLUMNS},
            "status": status,
            "reason": failure["reason"] if failure else facts["reason"],
            "asr_model": IMPORTED if imported else self._asr_model,
        }
