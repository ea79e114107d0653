"""A shard of a manifest to encoder states and a table, a batch of recordings at a time.

What a batch gives is a function of its recordings, is computed in a worker process, and lies whole
in the work folder before the next one is waited for. So whoever was stopped goes on with the
batches that are missing, and ends in the same bytes; and what makes the model crash, hang or run
out of memory costs a recording, not a run.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from tqdm import tqdm

from brewline.config.asr import AsrParams
from brewline.core.engine import Job
from brewline.core.errors import BrewlineError, disk_faults_explained
from brewline.core.files import atomic_path, remove, set_aside
from brewline.core.workers import Lost, Worker
from brewline.media.file_runs import FileRuns
from brewline.samples.shards import holds_samples, write_shard
from brewline.speech.batch_plan import RecordingBatch, Row, Shard, plan_batches, with_languages
from brewline.speech.batch_recogniser import BatchTask, Failure, Recognise
from brewline.speech.batch_results import COLUMNS, BatchResults, Outcome
from brewline.speech.progress import ShardProgress, StatusCounts
from brewline.speech.recognition import Recognition
from brewline.speech.recordings import read_placed_rows
from brewline.tables.parquet import read_column, write_table
from brewline.tables.transcripts import DROPPED, FAILED, OK, TRANSCRIPTS

# Stands for the recogniser of a transcript that was imported.
IMPORTED = "imported"
# Of the manifest, what is read here.
_COLUMNS = ("utterance_id", "split", "duration_s", "language", "transcript")

Answer = list[Recognition] | Failure


@dataclass(frozen=True)
class Transcriber(Job[Shard, BatchTask, Answer, ShardProgress]):
    """Recognises shards in a work folder, and goes on where somebody left off.

    The folder holds, for each batch that is done, its recognitions; for each that failed, why; and
    for each shard that is finished its states and the table of its transcripts, instead of them. A
    shard that is done but for recordings that are lost has its table only, in another place, and
    its batches: till `finish` those recordings may be tried again, and they alone.
    """

    manifest: Path
    # Of each of its rows.
    recordings: FileRuns
    work: Path
    asr: AsrParams
    # Name of the recogniser, for the table.
    asr_model: str
    # Of an encoder state.
    width: int
    # Called once in each worker process, gives what answers a batch.
    recogniser: Callable[[], Recognise]
    # Seconds that a batch may take.
    limit_s: float
    on_gpu: bool = False

    def prepare(self) -> Recognise:
        """See `Job`."""
        return self.recogniser()

    def is_done(self, shard: Shard) -> bool:
        """See `Job`; recordings may be lost."""
        return self._is_finished(shard) or self._table_with_losses(shard).exists()

    def do(self, shard: Shard, worker: Worker[BatchTask, Answer]) -> Iterator[ShardProgress]:
        """See `Job`.

        Raises:
            BrewlineError: the disk is full, the checkpoint is damaged, or a recording fails and
                `asr.on_failure` is `stop`.
        """
        try:
            yield from self._do(shard, worker)
        except FileNotFoundError:
            # Of a shard that somebody else has finished meanwhile no batch is left.
            if not self.is_done(shard):
                raise

    def _do(self, shard: Shard, worker: Worker[BatchTask, Answer]) -> Iterator[ShardProgress]:
        utterances = self._utterances(shard)
        results = self._results(shard, utterances)
        results.set_damaged_aside()
        told = results.progress()
        yield told
        while missing := results.missing():
            answers = worker.map(_with_upcoming(missing, results))
            for batch, answer in zip(missing, answers, strict=True):
                if self.is_done(shard):
                    # By somebody else, who has removed what there was of its batches.
                    seconds = sum(row["duration_s"] for row in utterances)
                    yield ShardProgress(shard.name, seconds, self.num_lost(shard))
                    return
                lost = self._take(results, batch, answer)
                heard_s = results.done_s(batch)
                told = ShardProgress(
                    shard.name, told.done_s + heard_s, told.num_failed + lost, heard_s
                )
                yield told
        outcomes = results.outcomes([row["utterance_id"] for row in utterances])
        if any(outcome.failure for outcome in outcomes):
            with disk_faults_explained():
                self._write_table(self._table_with_losses(shard), outcomes)
        else:
            self._finish(shard, results, outcomes)

    def progress(self, shard: Shard) -> ShardProgress:
        """How far a shard is that is not done."""
        return self._results(shard, self._utterances(shard)).progress()

    def status_counts(self, shard: Shard) -> StatusCounts:
        """What became of the recordings of a shard that is done."""
        table = self.table(shard)
        columns = (read_column(table, name).to_pylist() for name in ("status", "reason"))
        return Counter(zip(*columns, strict=True))

    def num_lost(self, shard: Shard) -> int:
        """Recordings without a text of a shard that is done."""
        counts = self.status_counts(shard)
        return sum(count for (status, _), count in counts.items() if status != OK)

    def table(self, shard: Shard) -> Path:
        """The table of a shard that is done."""
        losses = self._table_with_losses(shard)
        return losses if losses.exists() else self._table(shard)

    def states(self, shard: Shard) -> Path:
        """The states of a shard that is finished."""
        return self.work / "states" / shard.name

    def set_damaged_aside(self, shard: Shard) -> None:
        """Lets what a disk has damaged of a shard that is done be made again."""
        consequence = "its recordings are recognised again"
        if not self.is_done(shard):
            return
        table = self.table(shard)
        try:
            ids = read_column(table, "utterance_id").to_pylist()
            statuses = read_column(table, "status").to_pylist()
        except BrewlineError:
            set_aside(table, consequence)
            return
        if self._is_finished(shard):
            rows = zip(ids, statuses, strict=True)
            kept = [utterance_id for utterance_id, status in rows if status != DROPPED]
            if not holds_samples(self.states(shard), kept):
                set_aside(self.states(shard), consequence)
            return
        results = self._results(shard, self._utterances(shard))
        results.set_damaged_aside()
        if results.missing():
            remove(table)

    def try_lost_again(self, shard: Shard) -> None:
        """Has the next run recognise what is lost of a shard that is done."""
        remove(self._table(shard))
        remove(self._table_with_losses(shard))
        self._results(shard, ()).forget_lost()

    def finish(self, shard: Shard) -> None:
        """Writes the states of a shard that is done, where recordings are lost."""
        if self._is_finished(shard):
            return
        utterances = self._utterances(shard)
        results = self._results(shard, utterances)
        ids = [row["utterance_id"] for row in utterances]
        self._finish(shard, results, results.outcomes(ids))

    def _finish(self, shard: Shard, results: BatchResults, outcomes: Sequence[Outcome]) -> None:
        with disk_faults_explained():
            with atomic_path(self.states(shard)) as partial:
                kept = [one for one in outcomes if self._status(one) != DROPPED]
                write_shard(
                    partial,
                    (
                        {"__key__": outcome.row["utterance_id"], "npy": content}
                        for outcome, content in zip(kept, results.states(kept), strict=True)
                    ),
                )
            self._write_table(self._table(shard), outcomes)
        remove(self._table_with_losses(shard))
        results.clear()

    def _write_table(self, path: Path, outcomes: Iterable[Outcome]) -> None:
        write_table(path, TRANSCRIPTS, map(self._table_row, outcomes))

    def _take(self, results: BatchResults, batch: RecordingBatch, answer: Answer | Lost) -> bool:
        """Keeps an answer; returns whether the text of a recording is lost with it."""
        if isinstance(answer, Lost):
            answer = Failure(answer.how, answer.detail)
        with disk_faults_explained():
            if isinstance(answer, Failure):
                return self._note(results, batch, answer)
            results.save(batch, answer)
            return False

    def _note(self, results: BatchResults, batch: RecordingBatch, failure: Failure) -> bool:
        weighed = results.weigh(batch, failure)
        if weighed["is_lost"]:
            utterance_id = batch.utterances[0]["utterance_id"]
            sentence = f"{utterance_id} cannot be recognised ({failure.reason}): {failure.detail}"
            if self.asr.on_failure == "stop":
                raise BrewlineError(
                    f"{sentence}; asr.on_failure: keep goes on without its text", "settings"
                )
            tqdm.write(sentence)
        results.save_failure(batch, weighed)
        return bool(weighed["is_lost"])

    def _utterances(self, shard: Shard) -> list[Row]:
        part = slice(shard.start, shard.stop)
        rows = read_placed_rows(self.manifest, self.recordings, part, _COLUMNS)
        return with_languages(rows, self.asr.spoken)

    def _results(self, shard: Shard, utterances: Sequence[Row]) -> BatchResults:
        batches = plan_batches(shard.stem, utterances, self.asr.batch_size)
        drops_failed = self.asr.on_failure == "drop"
        return BatchResults(self.work, shard, batches, self.width, drops_failed)

    def _table(self, shard: Shard) -> Path:
        return self.work / f"{shard.name}.parquet"

    def _table_with_losses(self, shard: Shard) -> Path:
        return self.work / f"{shard.name}.losses.parquet"

    def _is_finished(self, shard: Shard) -> bool:
        return self._table(shard).exists() and self.states(shard).exists()

    def _status(self, outcome: Outcome) -> str:
        if not outcome.failure:
            return OK
        return DROPPED if self.asr.on_failure == "drop" else FAILED

    def _table_row(self, outcome: Outcome) -> dict[str, Any]:
        facts, failure = outcome.facts, outcome.failure
        imported = outcome.row["transcript"] is not None
        return {
            "utterance_id": outcome.row["utterance_id"],
            "split": outcome.row["split"],
            **{name: facts[name] for name in COLUMNS},
            "status": self._status(outcome),
            "reason": failure["reason"] if failure else facts["reason"],
            "asr_model": IMPORTED if imported else self.asr_model,
        }


def _with_upcoming(batches: Sequence[RecordingBatch], results: BatchResults) -> Iterator[BatchTask]:
    """Gives each batch the one after it, to be read ahead.

    Not where either has failed before: a file that takes the process with it while another batch is
    recognised would have that one split in vain.
    """
    for batch, upcoming in zip_longest(batches, batches[1:]):
        if upcoming and (results.has_failed(batch) or results.has_failed(upcoming)):
            upcoming = None
        yield BatchTask(batch, upcoming)
