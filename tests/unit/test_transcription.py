"""Transcribing a corpus with a recogniser that crashes, hangs or runs out of memory."""

import errno
import io
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from brewline.config import load_params
from brewline.config.asr import OnFailure
from brewline.core.engine import Engine, Processes
from brewline.core.engines import open_engine
from brewline.core.errors import BrewlineError
from brewline.core.files import sha256_tree
from brewline.core.workers import Worker
from brewline.media.containers import LocalFile, PlacedFile
from brewline.samples.shards import read_samples
from brewline.speech.batch_plan import (
    RecordingBatch,
    cut_into_shards,
    languages_to_hear,
    plan_batches,
    with_languages,
)
from brewline.speech.batch_recogniser import BatchRecogniser, BatchTask, Failure
from brewline.speech.corpus_transcription import CorpusTranscription
from brewline.speech.progress import (
    TranscriptionProgress,
    estimated_states_mb,
    outlook,
    summary,
)
from brewline.speech.recognition import Recognition, Word
from brewline.speech.recordings import list_recordings
from brewline.speech.transcriber import Transcriber
from brewline.tables.manifest import MANIFEST
from brewline.tables.parquet import read_table, write_table

WIDTH = 3


def manifest(count: int) -> list[dict[str, Any]]:
    """Rows with what transcription reads: train and test, 1 to 9 s long."""
    return [
        dict.fromkeys(MANIFEST.names)
        | {
            "utterance_id": f"u{number:03d}",
            "corpus": "corpus",
            "split": "train" if number < count * 3 // 4 else "test",
            "audio_path": f"u{number:03d}.wav",
            "speaker_id": "s",
            "duration_s": 1.0 + number * 7 % 9,
            "sample_rate_hz": 16_000,
            "num_channels": 1,
            "audio_sha256": "0",
            "language": "de",
        }
        for number in range(count)
    ]


@dataclass(frozen=True)
class Recogniser:
    """Writes down the id of a recording as its text; has its ways with some of them.

    `ways` says what happens where a batch holds a recording; with "both" it happens too when it is
    only encoded. `most` is how many recordings fit into memory. Every batch that is begun is noted
    in `log`. A batch that is to be read ahead ends the process if it holds a recording whose way is
    "unreadable", as it does when it is recognised.
    """

    log: Path
    ways: tuple[tuple[str, str], ...] = ()
    most: int = 1000
    pause_s: float = 0.0

    def __call__(self, task: BatchTask) -> list[Recognition] | Failure:
        batch = task.batch
        with self.log.open("a") as file:
            file.write(f"{batch.name} {len(batch.utterances)}\n")
        time.sleep(self.pause_s)
        ids = [row["utterance_id"] for row in batch.utterances]
        ahead = [row["utterance_id"] for row in task.upcoming.utterances] if task.upcoming else []
        for utterance_id, way in self.ways:
            if way == "unreadable" and utterance_id in ids + ahead:
                self._misbehave("crash", batch)
            if utterance_id in ids and (batch.decode or way.endswith(" both")):
                self._misbehave(way.split()[0], batch)
        if len(ids) > self.most:
            return Failure("out_of_memory", "no room")
        return [self._found(row, batch.decode) for row in batch.utterances]

    def _misbehave(self, way: str, batch: RecordingBatch) -> None:
        if way == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        if way == "hang":
            time.sleep(60)
        if way == "killed":
            # Once, by somebody else.
            once = self.log.with_name(f"{batch.name}.killed")
            if not once.exists():
                once.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    def _found(self, row: dict[str, Any], decode: bool) -> Recognition:
        frames = round(row["duration_s"])
        number = int(row["utterance_id"][1:])
        states = np.full((frames, WIDTH), number, np.float16)
        text = row["utterance_id"] if decode else ""
        words = [Word(word=text, start_s=0.02, end_s=1.5, probability=0.5)] if number % 2 else None
        return Recognition(text, 1, states, frames, -0.1, 0.0, 1.0, 0.0, language="ja", words=words)


def give(recogniser: Recogniser) -> Recogniser:
    """What `prepare` calls in a worker."""
    return recogniser


@dataclass
class Corpus:
    """A corpus in a folder of its own."""

    folder: Path
    rows: Sequence[dict[str, Any]]

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def durations_s(self) -> np.ndarray:
        return np.array([row["duration_s"] for row in self.rows])

    @property
    def work(self) -> Path:
        return self.folder / "work"

    def begun(self) -> list[str]:
        """The batches that were begun, with their sizes, in order."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def transcriber(
        self,
        recogniser: Recogniser | None = None,
        on_failure: OnFailure = "keep",
        limit_s: float = 60,
    ) -> Transcriber:
        self.work.mkdir(exist_ok=True)
        write_table(self.folder / "manifest.parquet", MANIFEST, self.rows)
        asr = load_params(Path(__file__).parents[2] / "params.yaml").asr
        raw = self.folder / "raw"
        raw.mkdir(exist_ok=True)
        for row in self.rows:
            (raw / row["audio_path"]).touch()
        manifest = self.folder / "manifest.parquet"
        return Transcriber(
            manifest=manifest,
            recordings=list_recordings(raw, manifest, self.folder / "recordings.parquet"),
            work=self.work,
            asr=asr.model_copy(update={"batch_size": 4, "on_failure": on_failure}),
            asr_model="fake",
            width=WIDTH,
            recogniser=partial(give, recogniser or Recogniser(self.log)),
            limit_s=limit_s,
        )

    def transcription(self, transcriber: Transcriber) -> CorpusTranscription:
        return CorpusTranscription(transcriber, 20)

    def run(
        self, transcriber: Transcriber | None = None, engine: Engine | None = None
    ) -> list[TranscriptionProgress]:
        """Recognises what is missing."""
        transcription = self.transcription(transcriber or self.transcriber())
        return list(transcription.run(engine or Processes(1)))

    def transcribe(
        self,
        recogniser: Recogniser | None = None,
        on_failure: OnFailure = "keep",
        limit_s: float = 60,
        max_rate: float = 1.0,
        engine: Engine | None = None,
    ) -> list[dict[str, Any]]:
        """Runs to the end and writes the table."""
        transcriber = self.transcriber(recogniser, on_failure, limit_s)
        progress = self.run(transcriber, engine)
        assert progress[-1].done_s == pytest.approx(progress[-1].total_s)
        assert [told.done_s for told in progress] == sorted(told.done_s for told in progress)
        transcription = self.transcription(transcriber)
        counts = transcription.status_counts()
        lost = sum(count for (status, _), count in counts.items() if status != "ok")
        assert progress[-1].num_failed == lost
        transcription.check_failures(max_rate)
        transcription.write_outputs(self.folder / "table.parquet", self.folder / "states")
        return read_table(self.folder / "table.parquet")

    def states(self) -> dict[str, np.ndarray]:
        """The stored states by utterance, in their order."""
        found = {}
        for path in sorted((self.folder / "states").glob("*.tar")):
            for sample in read_samples(path):
                found[sample["__key__"]] = np.load(io.BytesIO(sample["npy"]))
        return found

    def digest(self) -> tuple[str, str]:
        """Of the table and the states."""
        return sha256_tree(self.folder / "table.parquet"), sha256_tree(self.folder / "states")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Corpus]:
    def corpus(name: str = "corpus", count: int = 40) -> Corpus:
        (tmp_path / name).mkdir()
        return Corpus(tmp_path / name, manifest(count))

    return corpus


def test_every_recording_has_a_row_and_states_in_the_manifests_order(
    make: Callable[..., Corpus],
) -> None:
    one, two = make("one"), make("two")
    rows = one.transcribe()
    ids = [row["utterance_id"] for row in one.rows]
    assert [row["utterance_id"] for row in rows] == [row["text"] for row in rows] == ids
    assert {row["status"] for row in rows} == {"ok"}
    assert {row["language"] for row in rows} == {"ja"}
    assert rows[0]["words"] is None
    assert rows[1]["words"] == [{"word": "u001", "start_s": 0.02, "end_s": 1.5, "probability": 0.5}]
    states = one.states()
    assert sorted(states) == ids
    for row in rows:
        stored = states[row["utterance_id"]]
        assert stored.shape == (row["num_frames"], WIDTH)
        assert set(stored.flat) == {int(row["utterance_id"][1:])}
    two.transcribe(engine=Processes(2))
    assert two.digest() == one.digest()
    # Nothing is done twice, and nothing of the batches is left.
    assert len(one.begun()) == len(set(one.begun())) == 11
    assert sorted(path.suffix for path in one.work.glob("*.*")) == [".parquet"] * 3


def test_what_is_spoken_is_said_by_the_corpus_or_else_for_all(tmp_path: Path) -> None:
    rows = [
        {"utterance_id": "a", "language": "de", "transcript": None},
        {"utterance_id": "b", "language": None, "transcript": None},
        {"utterance_id": "c", "language": "yue", "transcript": "known"},
    ]
    assert [row["language"] for row in with_languages(rows, "fr")] == ["de", "fr", "yue"]
    assert with_languages(rows, None) == rows
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "manifest")
    assert languages_to_hear(tmp_path / "manifest", "fr") == {"de", "fr"}
    # Nothing has to be known of what Whisper tells, and of what it does not have to hear.
    assert languages_to_hear(tmp_path / "manifest", None) == {"de"}


def test_batches_hold_recordings_of_like_length(tmp_path: Path) -> None:
    rows = manifest(30)
    rows[3]["duration_s"] = 95.0
    write_table(tmp_path / "manifest", MANIFEST, rows)
    shards = cut_into_shards(tmp_path / "manifest", 20)
    assert shards == [
        ("train-000000.tar", 0, 20),
        ("train-000001.tar", 20, 22),
        ("test-000000.tar", 22, 30),
    ]
    first, *rest = plan_batches("train-000000", rows[:20], 4)
    assert [batch.name for batch in rest[:2]] == ["train-000000.0001", "train-000000.0002"]
    # It takes four windows, at least.
    assert [row["utterance_id"] for row in first.utterances] == ["u003"]
    assert all(len(batch.utterances) == 4 for batch in rest[:-1])
    lengths = [row["duration_s"] for batch in rest for row in batch.utterances]
    assert lengths == sorted(lengths, reverse=True)


def test_a_recording_that_crashes_the_model_is_lost_alone(make: Callable[..., Corpus]) -> None:
    corpus = make(count=8)
    ways = (("u002", "crash"), ("u005", "crash both"))
    rows = {row["utterance_id"]: row for row in corpus.transcribe(Recogniser(corpus.log, ways))}
    lost = [row for row in rows.values() if row["status"] != "ok"]
    # Of the one that the encoder hears too, what is spoken was told by it, of the other known.
    assert [row["language"] for row in lost] == ["ja", "de"]
    assert [(row["utterance_id"], row["status"], row["reason"], row["text"]) for row in lost] == [
        ("u002", "failed", "crash", ""),
        ("u005", "failed", "crash", ""),
    ]
    states = corpus.states()
    # The encoder did for the one; for the other, nothing.
    assert len(states["u002"]) == rows["u002"]["num_frames"] == corpus.rows[2]["duration_s"]
    assert states["u005"].shape == (0, WIDTH)
    assert rows["u005"]["num_frames"] == 0
    counts = corpus.transcription(corpus.transcriber()).status_counts()
    assert summary(counts) == "6 ok + 2 failed (2 failed: crash)"


def test_a_recording_that_hangs_is_given_up(make: Callable[..., Corpus]) -> None:
    corpus = make(count=8)
    rows = corpus.transcribe(Recogniser(corpus.log, (("u002", "hang"),)), limit_s=1.5)
    lost = [(row["utterance_id"], row["reason"]) for row in rows if row["status"] != "ok"]
    assert lost == [("u002", "timeout")]
    # The batch, its recordings alone, and the states of the one: no try of a half takes the limit.
    tries = [line for line in corpus.begun() if line.startswith("train-000000.0000")]
    assert sorted(int(line.split()[1]) for line in tries) == [1, 1, 1, 1, 1, 4]


def test_a_file_that_kills_its_reader_costs_no_other_recording(
    make: Callable[..., Corpus],
) -> None:
    """It is read while the batch before it is recognised, which is lost with the process."""
    corpus, other = make(), make("other")
    rows = corpus.transcribe(Recogniser(corpus.log, (("u002", "unreadable"),)))
    other.transcribe(Recogniser(other.log, (("u002", "crash both"),)))
    assert [row["utterance_id"] for row in rows if row["status"] != "ok"] == ["u002"]
    assert corpus.digest() == other.digest()


def test_a_batch_without_room_is_split_until_there_is(make: Callable[..., Corpus]) -> None:
    corpus, other = make(), make("other")
    rows = corpus.transcribe(Recogniser(corpus.log, most=1))
    other.transcribe()
    assert {row["status"] for row in rows} == {"ok"}
    assert corpus.digest() == other.digest()
    corpus = make("none", 8)
    rows = corpus.transcribe(Recogniser(corpus.log, most=0))
    assert {(row["status"], row["reason"]) for row in rows} == {("failed", "out_of_memory")}
    transcription = corpus.transcription(corpus.transcriber())
    transcription.check_failures(1.0)
    with pytest.raises(BrewlineError, match=r"8 of 8 .* `out_of_memory`; .* allows 2 %"):
        transcription.check_failures(0.02)
    # Once there is room, they are tried again.
    assert {row["status"] for row in corpus.transcribe()} == {"ok"}


def test_too_many_failures_cost_no_work_that_is_done(make: Callable[..., Corpus]) -> None:
    corpus, other = make(), make("other")
    recogniser = Recogniser(corpus.log, (("u002", "crash"),))
    with pytest.raises(BrewlineError, match="1 of 40 recordings"):
        corpus.transcribe(recogniser, max_rate=0.02)
    begun = len(corpus.begun())
    with pytest.raises(BrewlineError, match="1 of 40 recordings"):
        corpus.transcribe(recogniser, max_rate=0.02)
    # It has two tries; its states are there already.
    assert [line.split()[1] for line in corpus.begun()[begun:]] == ["1", "1"]
    begun = len(corpus.begun())
    assert {row["status"] for row in corpus.transcribe()} == {"ok"}
    other.transcribe()
    assert corpus.digest() == other.digest()
    assert len(corpus.begun()) == begun + 1


def test_a_worker_that_somebody_kills_costs_nothing(make: Callable[..., Corpus]) -> None:
    corpus, other = make(), make("other")
    rows = corpus.transcribe(Recogniser(corpus.log, (("u005", "killed"),)))
    other.transcribe()
    assert {row["status"] for row in rows} == {"ok"}
    assert corpus.digest() == other.digest()


def test_what_failed_can_be_dropped_from_the_shards(make: Callable[..., Corpus]) -> None:
    corpus = make(count=8)
    rows = corpus.transcribe(Recogniser(corpus.log, (("u002", "crash"),)), "drop")
    assert [row["utterance_id"] for row in rows if row["status"] == "dropped"] == ["u002"]
    assert len(rows) == 8
    assert "u002" not in corpus.states()
    assert len(corpus.states()) == 7


def test_a_failure_can_stop_the_run_which_then_goes_on(make: Callable[..., Corpus]) -> None:
    corpus, other = make(count=8), make("other", 8)
    with pytest.raises(BrewlineError, match=r"^u002 cannot be recognised \(crash\): its process"):
        corpus.transcribe(Recogniser(corpus.log, (("u002", "crash"),)), "stop")
    begun = len(corpus.begun())
    # What was wrong is mended.
    rows = corpus.transcribe(on_failure="stop")
    other.transcribe()
    assert {row["status"] for row in rows} == {"ok"}
    assert corpus.digest() == other.digest()
    # The second batch, and what the first was split into.
    assert len(corpus.begun()) - begun <= 4


@pytest.mark.slow
def test_a_cluster_transcribes_as_processes_do(make: Callable[..., Corpus]) -> None:
    pytest.importorskip("ray")
    corpus, other = make(), make("other")
    ways = (("u002", "crash"), ("u031", "crash both"))
    other.transcribe(Recogniser(other.log, ways))
    with open_engine("ray", 2, "local") as engine:
        with pytest.raises(BrewlineError, match="2 of 40 recordings"):
            corpus.transcribe(Recogniser(corpus.log, ways), max_rate=0.02, engine=engine)
        begun = len(corpus.begun())
        corpus.transcribe(Recogniser(corpus.log, ways), engine=engine)
        # Of the one the states are there, of the other there is nothing.
        assert len(corpus.begun()) == begun + 6
        assert corpus.digest() == other.digest()


def test_two_may_work_at_one_shard(make: Callable[..., Corpus]) -> None:
    """As when a machine is given up for lost, and goes on."""
    corpus, other = make(count=16), make("other", 16)
    other.transcribe()
    recogniser = Recogniser(corpus.log, pause_s=0.1)
    jobs = [corpus.transcriber(recogniser) for _ in range(2)]
    shards = cut_into_shards(jobs[0].manifest, 20)
    with Worker(jobs[0].prepare, 60, 1) as first, Worker(jobs[1].prepare, 60, 1) as second:
        for worker in (first, second):
            worker.wait_until_ready()
        for shard in shards:
            streams = [job.do(shard, one) for job, one in zip(jobs, (first, second), strict=True)]
            # In turns, the second one behind the first.
            told = [list(turn) for turn in zip_longest(*streams)]
            assert len(told) >= 3
            assert jobs[1].is_done(shard)
            # The one who came too late says that all is done, and leaves it as it is.
            before = jobs[1].table(shard).read_bytes()
            assert list(jobs[0].do(shard, first))[-1].done_s == pytest.approx(
                sum(row["duration_s"] for row in corpus.rows[shard.start : shard.stop])
            )
            assert jobs[1].table(shard).read_bytes() == before
    corpus.transcribe()
    assert corpus.digest() == other.digest()


def test_progress_goes_on_where_it_was(make: Callable[..., Corpus]) -> None:
    """Of shards that are done, and of one that was begun."""
    corpus = make()
    transcriber = corpus.transcriber()
    stream = corpus.transcription(transcriber).run(Processes(1))
    seen = [next(stream) for _ in range(11)]
    stream.close()  # type: ignore[attr-defined]
    again = corpus.run()
    # A batch may have been written that was not told of any more.
    assert seen[-1].done_s <= again[0].done_s < again[0].total_s
    assert again[0].done_s > corpus.durations_s[:20].sum()
    assert again[-1].done_s == pytest.approx(corpus.durations_s.sum())


def test_a_shard_that_was_not_finished_is(
    make: Callable[..., Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its batches lie there, but a kill came before its states and its table."""
    corpus, other = make(count=20), make("other", 20)
    other.transcribe()
    with monkeypatch.context() as patch:
        patch.setattr("brewline.speech.transcriber.write_table", lambda *_, **__: 1 / 0)
        with pytest.raises(RuntimeError, match="ZeroDivisionError"):
            corpus.transcribe()
    assert not list(corpus.work.glob("*.parquet"))
    begun = len(corpus.begun())
    corpus.transcribe()
    assert corpus.digest() == other.digest()
    assert len(set(corpus.begun()[:begun]) & set(corpus.begun()[begun:])) <= 1


def test_a_run_killed_after_a_failure_does_not_try_it_again(make: Callable[..., Corpus]) -> None:
    corpus = make(count=8)
    corpus.run(corpus.transcriber(Recogniser(corpus.log, (("u002", "crash"),))))
    assert list(corpus.work.glob("*.failure.json"))
    begun = len(corpus.begun())
    rows = corpus.transcribe()
    assert [row["utterance_id"] for row in rows if row["status"] != "ok"] == ["u002"]
    assert corpus.transcribe() == rows
    assert len(corpus.begun()) == begun
    assert not list(corpus.work.glob("*.failure.json"))


@pytest.mark.parametrize("suffix", ["npz", "failure.json"])
def test_a_damaged_batch_is_set_aside_and_recognised_again(
    make: Callable[..., Corpus], capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    corpus, other = make(count=8), make("other", 8)
    recogniser = Recogniser(corpus.log, (("u002", "crash"),))
    other.transcribe(Recogniser(other.log, recogniser.ways))
    corpus.run(corpus.transcriber(recogniser))
    damaged = sorted(corpus.work.glob(f"*.{suffix}"))[0]
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    corpus.transcribe(recogniser)
    assert corpus.digest() == other.digest()
    assert f"{damaged} is damaged and is set aside" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["train-000000.tar.parquet", "states/train-000000.tar"])
def test_a_damaged_shard_is_set_aside_and_recognised_again(
    make: Callable[..., Corpus], capsys: pytest.CaptureFixture[str], name: str
) -> None:
    corpus, other = make(), make("other")
    other.transcribe()
    corpus.transcribe()
    damaged = corpus.work / name
    content = damaged.read_bytes()
    # The states have a second name among the outputs.
    damaged.unlink()
    damaged.write_bytes(content[: len(content) // 2])
    corpus.transcribe()
    assert corpus.digest() == other.digest()
    assert f"{damaged} is damaged and is set aside" in capsys.readouterr().err


def test_states_that_are_gone_are_made_again(make: Callable[..., Corpus]) -> None:
    corpus, other = make(), make("other")
    other.transcribe()
    corpus.transcribe()
    (corpus.work / "states/train-000001.tar").unlink()
    corpus.transcribe()
    assert corpus.digest() == other.digest()


def test_an_imported_text_outlives_a_failure(make: Callable[..., Corpus]) -> None:
    corpus = make(count=4)
    corpus.rows[1]["transcript"] = "a dog"
    rows = corpus.transcribe(Recogniser(corpus.log, (("u001", "crash both"),)))
    assert (rows[1]["status"], rows[1]["text"], rows[1]["asr_model"]) == (
        "failed",
        "a dog",
        "imported",
    )


def test_a_full_disk_is_told_and_costs_nothing(
    make: Callable[..., Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus, other = make(), make("other")
    other.transcribe()
    savez, calls = np.savez, []

    def full_at_the_third(*arguments: Any, **arrays: Any) -> None:
        calls.append(arguments)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        savez(*arguments, **arrays)

    monkeypatch.setattr(np, "savez", full_at_the_third)
    with pytest.raises(BrewlineError, match="the disk is full; make room"):
        corpus.transcribe()
    assert not list(corpus.work.glob(".*partial"))
    corpus.transcribe()
    assert corpus.digest() == other.digest()
    # The batch without room, and the one that was in work when the disk was found to be full.
    assert len(corpus.begun()) <= len(other.begun()) + 2


def test_a_run_that_is_killed_again_and_again_ends_in_the_same_bytes(
    make: Callable[..., Corpus],
) -> None:
    corpus, other = make(), make("other")
    other.transcribe()
    program = (
        "import sys, test_transcription as t\n"
        "from pathlib import Path\n"
        "if __name__ == '__main__':\n"
        "    corpus = t.Corpus(Path(sys.argv[1]), t.manifest(40))\n"
        "    corpus.transcribe(t.Recogniser(corpus.log, pause_s=0.15))\n"
    )
    script = corpus.folder / "program.py"
    script.write_text(program)
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    chance = random.Random(0)
    num_kills = 0
    for num_started in range(5):
        before = len(corpus.begun())
        with subprocess.Popen(
            [sys.executable, str(script), str(corpus.folder)],
            env=os.environ | {"PYTHONPATH": paths},
        ) as running:
            # From when it works on, for some batches.
            wanted = before + chance.randint(1, 2)
            while running.poll() is None and len(corpus.begun()) < wanted:
                time.sleep(0.02)
            time.sleep(chance.random() * 0.15)
            if running.poll() is None and num_started < 4:
                running.kill()
                num_kills += 1
    assert num_kills >= 3
    assert corpus.digest() == other.digest()
    # A kill costs the batch in work, and the one whose result is being written meanwhile.
    assert len(corpus.begun()) <= len(other.begun()) + 2 * num_kills


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("no room"), "out_of_memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
            "out_of_memory",
        ),
        (ValueError("NaN in logits"), "error"),
    ],
)
def test_what_a_model_raises_is_a_failure_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    import torch

    class Faulty:
        def __init__(self, *_: object) -> None:
            pass

        def recognise(self, *_: object) -> None:
            raise error

    monkeypatch.setattr("brewline.speech.recogniser.Recogniser", Faulty)
    threads = torch.get_num_threads()
    recognise = BatchRecogniser(tmp_path, tmp_path / "none.pt", None)  # type: ignore[arg-type]
    torch.set_num_threads(threads)
    found = recognise(BatchTask(RecordingBatch("b", [])))
    assert isinstance(found, Failure)
    assert found.reason == reason
    assert str(error) in found.detail


class Watched:
    """Stands for a model; each batch waits till as many recordings have been read as are wanted."""

    decoded = threading.Semaphore(0)
    wanted: Sequence[int] = ()
    took: Sequence[list[int]] = ()

    def __init__(self, *_: object) -> None:
        type(self).took = []

    def recognise(self, waveforms: Sequence[np.ndarray], *_: object) -> list[int]:
        for _ in range(self.wanted[len(self.took)]):
            assert self.decoded.acquire(timeout=60), "nothing was read ahead"
        self.took = [*self.took, [len(one) for one in waveforms]]
        return [len(one) for one in waveforms]


def test_the_next_batch_is_read_while_one_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import soundfile
    import torch

    from brewline.speech import batch_recogniser

    def waveform(content: bytes) -> np.ndarray:
        try:
            return decode_one(content)
        finally:
            Watched.decoded.release()

    decode_one = batch_recogniser.waveform
    monkeypatch.setattr(batch_recogniser, "waveform", waveform)
    monkeypatch.setattr("brewline.speech.recogniser.Recogniser", Watched)
    # Of the two in the first batch and the two of the next one, while the first is in work.
    monkeypatch.setattr(Watched, "wanted", [4, 0, 1])
    row = {"transcript": None, "language": "en"}
    batches = []
    for name, files in {"a": ("1", "2"), "b": ("3", "4"), "c": ("5",), "d": ("6",)}.items():
        for number in files:
            noise = np.linspace(-0.5, 0.5, 1000 * int(number))
            soundfile.write(tmp_path / f"{number}.wav", noise, 16_000)
        places = {number: LocalFile(tmp_path / f"{number}.wav") for number in files}
        batches.append(
            RecordingBatch(
                name,
                [
                    row | {"file": PlacedFile(f"{number}.wav", ((file, f"{number}.wav", ()),))}
                    for number, file in places.items()
                ],
            )
        )
    (tmp_path / "5.wav").write_bytes(b"RIFF")
    threads = torch.get_num_threads()
    recognise = BatchRecogniser(tmp_path, tmp_path / "none.pt", None)  # type: ignore[arg-type]
    torch.set_num_threads(threads)
    a, b, c, d = batches
    assert recognise(BatchTask(a, b)) == [1000, 2000]
    assert recognise(BatchTask(b, c)) == [3000, 4000]
    # What is wrong with a file that was read ahead is told of its own batch.
    damaged = recognise(BatchTask(c, d))
    assert isinstance(damaged, Failure)
    assert damaged.reason == "error"
    # Where there was nothing to recognise, nothing was read ahead.
    assert recognise(BatchTask(d)) == [6000]


def test_the_disk_that_states_take_is_known_before() -> None:
    asr = load_params(Path(__file__).parents[2] / "params.yaml").asr
    rows = np.array([10.0, 40.0])
    valid = asr.model_copy(update={"states": "valid"})
    assert estimated_states_mb(rows, 512, valid) == pytest.approx(50 * 50 * 512 * 2 / 1e6)
    every = asr.model_copy(update={"states": "all"})
    assert estimated_states_mb(rows, 512, every) == pytest.approx(5000 * 512 * 2 / 1e6)
    said = "2 utterances; encoder states will take 5 MB, 1,234 MB are free"
    assert list(outlook(rows, 512, every, "mini-whisper", 1234.0)) == [said]


def test_published_weights_in_short_windows_are_warned_of() -> None:
    asr = load_params(Path(__file__).parents[2] / "params.yaml").asr
    short = asr.model_copy(update={"audio_context": "utterance"})
    assert len(list(outlook(np.empty(0), 512, short, "mini-whisper", 0.0))) == 1
    assert "expect `full`" in list(outlook(np.empty(0), 512, short, "base.en", 0.0))[1]
