"""A manifest to a transcript table and encoder-state shards, a batch of recordings at a time.

A batch is the unit of work: what one gives is a function of its recordings, is computed in a worker
process, and lies whole in the work folder before the next one is begun. So a run that was killed
goes on with the batches that are missing, and ends in the same bytes; and what makes the model
crash, hang or run out of memory costs a recording, not a run.
"""

import errno
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from brewline.config.params import AsrParams, OnFailure
from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path, link, read_json, remove, write_json
from brewline.core.processes import keep_freed_memory
from brewline.core.workers import Lost, WorkerPool
from brewline.media.archives import MediaStore
from brewline.media.audio import decode, to_mono_16k
from brewline.samples.shards import encode_states, plan_shards, shard_name, write_shard
from brewline.speech.recognition import Recognition
from brewline.speech.windows import FRAMES_PER_SECOND, WINDOW_S, fewest_windows
from brewline.tables.manifest import DROPPED, FAILED, OK, TRANSCRIPTS, read_table, write_table

# Stands for the recogniser of a transcript that was imported.
IMPORTED = "imported"
_BYTES_PER_VALUE = 2  # float16
# A process that was killed from outside is no fault of its batch, so a batch that crashes has
# another try as it is before it is split.
_TRIES = {"crash": 2}
# Threads that decode the files of a batch for a GPU.
_MAX_DECODERS = 8
_NO_MEMORY = ("can't allocate memory", "out of memory")
# After these nothing runs on a GPU in the same process any more; PyTorch's and CTranslate2's words.
_BROKEN_GPU = ("CUDA error", "CUDA failed", "cuBLAS failed", "cuDNN error", "cuDNN failed")
# What a file of recognitions calls everything but their states.
_FACTS = "facts"
# Of a recognition, what is in the table as it is.
_COLUMNS = (
    "text",
    "avg_logprob",
    "no_speech_prob",
    "compression_ratio",
    "temperature",
    "num_windows",
    "num_frames",
)
_NOTHING = dict.fromkeys(_COLUMNS) | {"text": "", "num_windows": 0, "num_frames": 0}

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Batch:
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
class Failure:
    """Why a batch was not recognised: `crash`, `timeout`, `out_of_memory` or `error`."""

    reason: str
    detail: str


class Progress(NamedTuple):
    """How far a corpus is: seconds of speech done and in all, and recordings that failed.

    `real_time_factor`: how many seconds of speech take one of ours, in this process.
    """

    done_s: float
    total_s: float
    num_failed: int
    real_time_factor: float

    def as_row(self) -> dict[str, float]:
        """Metrics at a step, which is the seconds done: a run that goes on goes on there."""
        return {
            "step": round(self.done_s),
            "asr/hours_done": self.done_s / 3600,
            "asr/real_time_factor": self.real_time_factor,
            "asr/num_failed": self.num_failed,
        }


def shown(stream: Iterable[Progress]) -> Iterator[Progress]:
    """Passes progress on, and shows it: hours of speech, time left, speed, failures."""
    bar = None
    for progress in stream:
        if bar is None:
            bar = tqdm(
                desc="speech",
                total=progress.total_s / 3600,
                initial=progress.done_s / 3600,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {n:.2f} of {total:.2f} h "
                "[{elapsed}, {remaining} left{postfix}]",
                disable=None,
            )
        failed = f", {progress.num_failed} failed" if progress.num_failed else ""
        bar.set_postfix_str(f"{progress.real_time_factor:.0f}x real time{failed}", refresh=False)
        bar.update(progress.done_s / 3600 - bar.n)
        yield progress
    if bar is not None:
        bar.close()


def summary(rows: Sequence[Row]) -> str:
    """What became of the recordings, in words."""
    counts = Counter(row["status"] for row in rows)
    reasons = Counter(f"{row['status']}: {row['reason']}" for row in rows if row["reason"])
    parts = [f"{count:,} {status}" for status, count in counts.most_common()]
    doubts = [f"{count:,} {reason}" for reason, count in reasons.most_common()]
    return " + ".join(parts) + (f" ({', '.join(doubts)})" if doubts else "")


def estimated_states_mb(manifest: Iterable[Row], width: int, settings: AsrParams) -> float:
    """The disk that the encoder states of a corpus will take at most, in MB."""
    seconds = 0.0
    for row in manifest:
        seconds += row["duration_s"]
        if settings.states == "all":
            # The last window comes with its padding; of several nobody knows yet where they end.
            seconds += WINDOW_S - (row["duration_s"] if row["duration_s"] <= WINDOW_S else 0)
    frames = FRAMES_PER_SECOND * seconds
    return frames * width * _BYTES_PER_VALUE / 1e6


def outlook(
    manifest: Sequence[Row], width: int, settings: AsrParams, backbone: str, free_mb: float
) -> Iterator[str]:
    """What a user should know before hours of work.

    Args:
        manifest: Its rows.
        width: Of an encoder state.
        settings: How Whisper is run.
        backbone: Its name.
        free_mb: Room on the disk.
    """
    size_mb = estimated_states_mb(manifest, width, settings)
    yield (
        f"{len(manifest):,} utterances; encoder states will take {size_mb:,.0f} MB, "
        f"{free_mb:,.0f} MB are free"
    )
    # Those of the miniature world were trained on short windows.
    if settings.audio_context == "utterance" and not backbone.startswith("mini-"):
        yield (
            "asr.audio_context is `utterance`; published weights were trained on windows of 30 s, "
            "expect `full`, and hear worse without"
        )


@dataclass(frozen=True)
class Shard:
    """A part of the manifest: where its states go, and the batches that make them."""

    utterances: Sequence[Row]
    name: str
    batches: Sequence[Batch]


def plan(manifest: Sequence[Row], utterances_per_shard: int, batch_size: int) -> list[Shard]:
    """Cuts a manifest into shards, and each of them into batches of recordings of like length.

    A batch holds about `batch_size` windows. The plan depends on nothing but its arguments.

    Args:
        manifest: Its rows, sorted by split and utterance id.
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
        batches = [Batch(f"{stem}.{count:04d}", name, rows) for count, rows in enumerate(cut)]
        shards.append(Shard(utterances, name, batches))
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


# What answers a batch, in a worker process.
Recognise = Callable[[Batch], list[Recognition] | Failure]


class BatchRecogniser:
    """Recognises batches of a corpus, in a process of its own."""

    def __init__(self, root: Path, checkpoint: Path, settings: AsrParams) -> None:
        """Loads the model.

        Args:
            root: The corpus' files.
            checkpoint: Of Whisper.
            settings: How it is run.

        Raises:
            BrewlineError: see `load_engine`.
        """
        # Imported here: the process that hands out the work needs no model.
        import torch

        from brewline.core.devices import choose_device
        from brewline.speech.recogniser import Recogniser

        # On a processor a second thread gains little at the batch sizes that fit there, and so
        # the result depends on the number of neither workers nor cores.
        torch.set_num_threads(1)
        keep_freed_memory()
        self._recogniser = Recogniser(checkpoint, settings)
        self._store = MediaStore(root)
        # A GPU should not wait for one core to decode a batch of files.
        cores = len(os.sched_getaffinity(0)) if choose_device().type == "cuda" else 1
        self._decoders = ThreadPoolExecutor(min(cores, _MAX_DECODERS))

    def __call__(self, batch: Batch) -> list[Recognition] | Failure:
        """Recognises a batch, or says why it cannot."""
        import torch

        # Outside: files that cannot be read are no fault of the model's.
        contents = [self._content(row) for row in batch.utterances]
        try:
            waveforms = list(self._decoders.map(_waveform, contents))
            texts = [_known_text(row, batch.decode) for row in batch.utterances]
            return self._recogniser.recognise(waveforms, texts)
        except (MemoryError, torch.OutOfMemoryError) as error:
            return Failure("out_of_memory", str(error))
        except Exception as error:  # noqa: BLE001 - whatever a model raises costs a recording
            # PyTorch has no class of its own for a processor's memory, CTranslate2 none at all.
            is_memory = any(words in str(error) for words in _NO_MEMORY)
            if not is_memory and any(words in str(error) for words in _BROKEN_GPU):
                os._exit(1)
            reason = "out_of_memory" if is_memory else "error"
            return Failure(reason, f"{type(error).__name__}: {error}")

    def _content(self, row: Row) -> bytes:
        path = self._store.find(row["audio_path"])
        assert path is not None, "a row of the manifest has its recording"
        return self._store.read(path)


def _known_text(row: Row, decode: bool) -> str | None:
    """What is not to be decoded: a text that was imported, or one that is given up."""
    text: str | None = row["transcript"]
    return "" if text is None and not decode else text


def _waveform(content: bytes) -> NDArray[np.float32]:
    return to_mono_16k(decode(content))


class _Outcome(NamedTuple):
    """An utterance: what was found in it, where its states are, and why its text is lost."""

    row: Row
    facts: Mapping[str, Any]
    # A file of numpy's, and the member of it.
    stored: tuple[Path, str] | None
    failure: dict[str, Any] | None


class Transcriber:
    """Recognises a corpus in a work folder, and goes on where an earlier one left off.

    The folder holds, for each batch that is done, its recognitions; for each that failed, why;
    and for each shard whose batches are through, its states and the table of its transcripts,
    instead of them. A shard with recordings that are lost waits for `put_out`: till then they may
    be tried again, and they alone.
    """

    def __init__(
        self, shards: Sequence[Shard], on_failure: OnFailure, asr_model: str, width: int, work: Path
    ) -> None:
        """Looks what is done already.

        Args:
            shards: What came of `plan`.
            on_failure: What becomes of a recording that cannot be recognised.
            asr_model: Name of the recogniser, for the table.
            width: Of an encoder state.
            work: The folder.
        """
        self._on_failure = on_failure
        self._asr_model = asr_model
        self._shards = {shard.name: shard for shard in shards}
        self._width = width
        self._work = work
        self.states = work / "states"
        self.states.mkdir(parents=True, exist_ok=True)
        # Recordings whose text is lost, so far.
        self._num_failed = sum(map(self._num_lost, shards))

    def run(
        self, prepare: Callable[[], Recognise], workers: int, limit_s: float
    ) -> Iterator[Progress]:
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
        yield Progress(done_s, total_s, self._num_failed, 0.0)
        if not missing:
            return
        start_s = time.monotonic()
        workers = min(workers, len(missing))
        with WorkerPool(prepare, workers, limit_s, chunk_size=1) as pool:
            while missing:
                for number, answer in pool.map_unordered(missing):
                    batch, shard = missing[number], self._shards[missing[number].shard]
                    self._take(batch, answer)
                    if not any(self._missing_parts(batch)):
                        done_s += batch.seconds
                    self._finish_if_through(shard)
                    factor = (done_s - before_s) / (time.monotonic() - start_s)
                    yield Progress(done_s, total_s, self._num_failed, factor)
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
                for path in self._files(shard, "failure.json"):
                    if read_json(path)["num_recordings"] == 1:
                        remove(path)
        reason, count = reasons.most_common(1)[0]
        raise BrewlineError(
            f"{reasons.total():,} of {len(rows):,} recordings could not be recognised, most of "
            f"them ({count:,}) for `{reason}`; asr.max_failure_rate allows {100 * max_rate:g} %"
        )

    def put_out(self, rows: Sequence[Row], table: Path, states: Path) -> None:
        """Writes the table, and the folder of states, from the work folder.

        States are linked, not moved: a run that is killed here finds all of it again.
        """
        with _full_disk_is_told():
            write_table(table, TRANSCRIPTS, rows)
            with atomic_path(states) as partial:
                for shard in self._shards.values():
                    self._finish(shard)
                    link(self.states / shard.name, partial / shard.name)

    def _take(self, batch: Batch, answer: list[Recognition] | Failure | Lost) -> None:
        if isinstance(answer, Lost):
            answer = Failure(answer.how, answer.detail)
        with _full_disk_is_told():
            if isinstance(answer, Failure):
                self._note(batch, answer)
            else:
                self._save(batch, answer)

    def _note(self, batch: Batch, failure: Failure) -> None:
        """Keeps why a batch failed, so that a run that goes on does not try it in vain."""
        before = self._failure(batch)
        num_tries = before["num_tries"] + 1 if before else 1
        is_final = num_tries >= _TRIES.get(failure.reason, 1)
        is_lost = is_final and batch.decode and len(batch.utterances) == 1
        if is_lost:
            utterance_id = batch.utterances[0]["utterance_id"]
            sentence = f"{utterance_id} cannot be recognised ({failure.reason}): {failure.detail}"
            if self._on_failure == "stop":
                raise BrewlineError(f"{sentence}; asr.on_failure: keep goes on without its text")
            tqdm.write(sentence)
        note = {
            "num_recordings": len(batch.utterances),
            "num_tries": num_tries,
            "is_final": is_final,
            "is_lost": is_lost,
        }
        write_json(self._failure_path(batch), asdict(failure) | note)
        self._num_failed += is_lost

    def _num_lost(self, shard: Shard) -> int:
        if self._is_finished(shard):
            return sum(row["status"] != OK for row in read_table(self._table(shard)))
        failures = self._files(shard, "failure.json")
        return sum(read_json(path)["is_lost"] for path in failures)

    def _files(self, shard: Shard, suffix: str) -> Iterator[Path]:
        """What is kept of a shard's batches."""
        return self._work.glob(f"{Path(shard.name).stem}.*.{suffix}")

    def _failure_path(self, batch: Batch) -> Path:
        return self._work / f"{batch.name}.failure.json"

    def _failure(self, batch: Batch) -> dict[str, Any] | None:
        path = self._failure_path(batch)
        return read_json(path) if path.exists() else None

    def _save(self, batch: Batch, recognitions: Sequence[Recognition]) -> None:
        facts, arrays = [], {}
        for number, recognition in enumerate(recognitions):
            facts.append({k: v for k, v in vars(recognition).items() if k != "states"})
            arrays[str(number)] = recognition.states
        with atomic_path(self._path(batch)) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_FACTS: np.array(json.dumps(facts))}, **arrays)

    def _path(self, batch: Batch) -> Path:
        return self._work / f"{batch.name}.npz"

    def _is_done(self, batch: Batch) -> bool:
        return self._path(batch).exists()

    def _missing(self, shards: Iterable[Shard]) -> list[Batch]:
        return [
            part
            for shard in shards
            if not self._is_finished(shard)
            for batch in shard.batches
            for part in self._missing_parts(batch)
        ]

    def _missing_parts(self, batch: Batch) -> Iterator[Batch]:
        """What has to be recognised of a batch: all of it, or of what it was split into."""
        if self._is_done(batch):
            return
        failure = self._failure(batch)
        if failure is None or not failure["is_final"]:
            yield batch
            return
        for part in self._split(batch, failure):
            yield from self._missing_parts(part)

    def _split(self, batch: Batch, failure: Mapping[str, Any]) -> list[Batch]:
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
        if not batch.decode or self._on_failure == "drop":
            return []
        return [replace(batch, name=f"{batch.name}.states", decode=False)]

    def _outcomes(self, batch: Batch, failure: dict[str, Any] | None = None) -> Iterator[_Outcome]:
        """What became of the recordings of a batch that misses nothing any more."""
        if self._is_done(batch):
            path = self._path(batch)
            with np.load(path, allow_pickle=False) as stored:
                facts = json.loads(stored[_FACTS].item())
            for number, (row, one) in enumerate(zip(batch.utterances, facts, strict=True)):
                yield _Outcome(row, one, (path, str(number)), failure)
            return
        noted = self._failure(batch)
        assert noted is not None, "what is not done has failed"
        parts = self._split(batch, noted)
        if len(batch.utterances) == 1 and batch.decode:
            failure = noted
        for part in parts:
            yield from self._outcomes(part, failure)
        if not parts:
            row = batch.utterances[0]
            yield _Outcome(row, _NOTHING | {"text": row["transcript"] or ""}, None, failure)

    def _states_of(self, outcome: _Outcome) -> bytes:
        if outcome.stored is None:
            return encode_states(np.empty((0, self._width), np.float16))
        path, member = outcome.stored
        with np.load(path, allow_pickle=False) as stored:
            return encode_states(stored[member])

    def _table(self, shard: Shard) -> Path:
        return self._work / f"{shard.name}.parquet"

    def _is_finished(self, shard: Shard) -> bool:
        return self._table(shard).exists() and (self.states / shard.name).exists()

    def _finish_if_through(self, shard: Shard) -> None:
        """Writes the states and the table of a shard that lost nothing, and removes its batches."""
        if self._is_finished(shard) or self._missing([shard]):
            return
        if not any(outcome.failure for outcome in self._in_order(shard)):
            self._finish(shard)

    def _in_order(self, shard: Shard) -> list[_Outcome]:
        """What became of the recordings of a shard that is through, as the manifest has them."""
        where = {
            outcome.row["utterance_id"]: outcome
            for batch in shard.batches
            for outcome in self._outcomes(batch)
        }
        return [where[row["utterance_id"]] for row in shard.utterances]

    def _finish(self, shard: Shard) -> None:
        if self._is_finished(shard):
            return
        outcomes = self._in_order(shard)
        rows = [self._table_row(outcome) for outcome in outcomes]
        with _full_disk_is_told():
            with atomic_path(self.states / shard.name) as partial:
                samples = (
                    {"__key__": row["utterance_id"], "npy": self._states_of(outcome)}
                    for row, outcome in zip(rows, outcomes, strict=True)
                    if row["status"] != DROPPED
                )
                write_shard(partial, samples)
            write_table(self._table(shard), TRANSCRIPTS, rows)
        for path in (*self._files(shard, "npz"), *self._files(shard, "failure.json")):
            remove(path)

    def _table_row(self, outcome: _Outcome) -> dict[str, Any]:
        facts, failure = outcome.facts, outcome.failure
        status = OK
        if failure:
            status = DROPPED if self._on_failure == "drop" else FAILED
        imported = outcome.row["transcript"] is not None
        return {
            "utterance_id": outcome.row["utterance_id"],
            "split": outcome.row["split"],
            **{name: facts[name] for name in _COLUMNS},
            "status": status,
            "reason": failure["reason"] if failure else facts["reason"],
            "asr_model": IMPORTED if imported else self._asr_model,
        }


@contextmanager
def _full_disk_is_told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BrewlineError(
            "the disk is full; make room and run it again: what is recognised is kept"
        ) from None
