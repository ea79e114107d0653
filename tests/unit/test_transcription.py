"""Transcribing a corpus with a recogniser that crashes, hangs or runs out of memory."""

import errno
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brewline.config import load_params
from brewline.config.asr import OnFailure
from brewline.core.errors import BrewlineError
from brewline.core.files import sha256_tree
from brewline.samples.shards import _samples
from brewline.speech.batch_plan import (
    RecordingBatch,
    languages_to_hear,
    plan_batches,
    with_languages,
)
from brewline.speech.batch_recogniser import BatchRecogniser, Failure
from brewline.speech.progress import estimated_states_mb, outlook, summary
from brewline.speech.recognition import Recognition, Word
from brewline.speech.transcriber import Transcriber
from brewline.tables.parquet import read_table

WIDTH = 3


def manifest(count: int) -> list[dict[str, Any]]:
    """Rows with what transcription reads: train and test, 1 to 9 s long."""
    return [
        {
            "utterance_id": f"u{number:03d}",
            "split": "train" if number < count * 3 // 4 else "test",
            "duration_s": 1.0 + number * 7 % 9,
            "transcript": None,
            "language": "de",
        }
        for number in range(count)
    ]


@dataclass(frozen=True)
class Recogniser:
    """Writes down the id of a recording as its text; has its ways with some of them.

    `ways` says what happens where a batch holds a recording; with "both" it happens too when it is
    only encoded. `most` is how many recordings fit into memory. Every batch that is begun is noted
    in `log`.
    """

    log: Path
    ways: tuple[tuple[str, str], ...] = ()
    most: int = 1000
    pause_s: float = 0.0

    def __call__(self, batch: RecordingBatch) -> list[Recognition] | Failure:
        with self.log.open("a") as file:
            file.write(f"{batch.name} {len(batch.utterances)}\n")
        time.sleep(self.pause_s)
        ids = [row["utterance_id"] for row in batch.utterances]
        for utterance_id, way in self.ways:
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

    def begun(self) -> list[str]:
        """The batches that were begun, with their sizes, in order."""
        return self.log.read_text().splitlines() if self.log.exists() else []

    def transcriber(self, on_failure: OnFailure) -> Transcriber:
        shards = plan_batches(self.rows, 20, 4)
        return Transcriber(shards, on_failure, "fake", WIDTH, self.folder / "work")

    def transcribe(
        self,
        recogniser: Recogniser | None = None,
        on_failure: OnFailure = "keep",
        workers: int = 1,
        limit_s: float = 60,
        max_rate: float = 1.0,
    ) -> list[dict[str, Any]]:
        """Runs to the end and writes the table."""
        transcriber = self.transcriber(on_failure)
        prepare = partial(give, recogniser or Recogniser(self.log))
        progress = list(transcriber.run(prepare, workers, limit_s))
        assert progress[-1].done_s == pytest.approx(progress[-1].total_s)
        rows = list(transcriber.rows())
        assert progress[-1].num_failed == sum(row["status"] != "ok" for row in rows)
        transcriber.check_failures(rows, max_rate)
        transcriber.write_outputs(rows, self.folder / "table.parquet", self.folder / "states")
        return rows

    def states(self) -> dict[str, np.ndarray]:
        """The stored states by utterance, in their order."""
        found = {}
        for path in sorted((self.folder / "states").glob("*.tar")):
            for sample in _samples(path):
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
    assert read_table(one.folder / "table.parquet") == rows
    states = one.states()
    assert sorted(states) == ids
    for row in rows:
        stored = states[row["utterance_id"]]
        assert stored.shape == (row["num_frames"], WIDTH)
        assert set(stored.flat) == {int(row["utterance_id"][1:])}
    two.transcribe(workers=2)
    assert two.digest() == one.digest()
    # Nothing is done twice, and nothing of the batches is left.
    assert len(one.begun()) == len(set(one.begun())) == 11
    assert sorted(path.suffix for path in (one.folder / "work").glob("*.*")) == [".parquet"] * 3


def test_what_is_spoken_is_said_by_the_corpus_or_else_for_all() -> None:
    rows = [
        {"utterance_id": "a", "language": "de", "transcript": None},
        {"utterance_id": "b", "language": None, "transcript": None},
        {"utterance_id": "c", "language": "yue", "transcript": "known"},
    ]
    assert [row["language"] for row in with_languages(rows, "fr")] == ["de", "fr", "yue"]
    assert languages_to_hear(with_languages(rows, "fr")) == {"de", "fr"}
    assert with_languages(rows, None) == rows
    # Nothing has to be known of what Whisper tells, and of what it does not have to hear.
    assert languages_to_hear(rows) == {"de"}


def test_batches_hold_recordings_of_like_length() -> None:
    rows = manifest(30)
    rows[3]["duration_s"] = 95.0
    shards = plan_batches(rows, 20, 4)
    assert [shard.name for shard in shards] == [
        "train-000000.tar",
        "train-000001.tar",
        "test-000000.tar",
    ]
    first, *rest = shards[0].batches
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
    assert summary(list(rows.values())) == "6 ok + 2 failed (2 failed: crash)"


def test_a_recording_that_hangs_is_given_up(make: Callable[..., Corpus]) -> None:
    corpus = make(count=8)
    rows = corpus.transcribe(Recogniser(corpus.log, (("u002", "hang"),)), limit_s=1.5)
    lost = [(row["utterance_id"], row["reason"]) for row in rows if row["status"] != "ok"]
    assert lost == [("u002", "timeout")]
    # The batch, its recordings alone, and the states of the one: no try of a half takes the limit.
    tries = [line for line in corpus.begun() if line.startswith("train-000000.0000")]
    assert sorted(int(line.split()[1]) for line in tries) == [1, 1, 1, 1, 1, 4]


def test_a_batch_without_room_is_split_until_there_is(make: Callable[..., Corpus]) -> None:
    corpus, other = make(), make("other")
    rows = corpus.transcribe(Recogniser(corpus.log, most=1))
    other.transcribe()
    assert {row["status"] for row in rows} == {"ok"}
    assert corpus.digest() == other.digest()
    rows = make("none", 8).transcribe(Recogniser(corpus.log, most=0))
    assert {(row["status"], row["reason"]) for row in rows} == {("failed", "out_of_memory")}
    corpus = Corpus(corpus.folder.with_name("none"), manifest(8))
    transcriber = corpus.transcriber("keep")
    transcriber.check_failures(rows, 1.0)
    with pytest.raises(BrewlineError, match=r"8 of 8 .* `out_of_memory`; .* allows 2 %"):
        transcriber.check_failures(rows, 0.02)
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


def test_a_shard_that_was_not_finished_is(
    make: Callable[..., Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of its batches lie there, but a kill came before its states and its table."""
    corpus, other = make(count=20), make("other", 20)
    other.transcribe()
    with monkeypatch.context() as patch:
        patch.setattr("brewline.speech.transcriber.write_table", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            corpus.transcribe()
    assert not list((corpus.folder / "work").glob("*.parquet"))
    begun = len(corpus.begun())
    corpus.transcribe()
    assert corpus.digest() == other.digest()
    assert len(set(corpus.begun()[:begun]) & set(corpus.begun()[begun:])) <= 1


def test_a_run_killed_after_a_failure_does_not_try_it_again(make: Callable[..., Corpus]) -> None:
    corpus = make(count=8)
    prepare = partial(give, Recogniser(corpus.log, (("u002", "crash"),)))
    list(corpus.transcriber("keep").run(prepare, 1, 60))
    assert list((corpus.folder / "work").glob("*.failure.json"))
    begun = len(corpus.begun())
    rows = corpus.transcribe()
    assert [row["utterance_id"] for row in rows if row["status"] != "ok"] == ["u002"]
    assert corpus.transcribe() == rows
    assert len(corpus.begun()) == begun
    assert not list((corpus.folder / "work").glob("*.failure.json"))


@pytest.mark.parametrize("suffix", ["npz", "failure.json"])
def test_a_damaged_batch_is_set_aside_and_recognised_again(
    make: Callable[..., Corpus], capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    corpus, other = make(count=8), make("other", 8)
    recogniser = Recogniser(corpus.log, (("u002", "crash"),))
    other.transcribe(Recogniser(other.log, recogniser.ways))
    list(corpus.transcriber("keep").run(partial(give, recogniser), 1, 60))
    damaged = sorted((corpus.folder / "work").glob(f"*.{suffix}"))[0]
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
    damaged = corpus.folder / "work" / name
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
    (corpus.folder / "work/states/train-000001.tar").unlink()
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
    assert not list((corpus.folder / "work").glob(".*partial"))
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
    found = recognise(RecordingBatch("b", "s", []))
    assert isinstance(found, Failure)
    assert found.reason == reason
    assert str(error) in found.detail


def test_the_disk_that_states_take_is_known_before() -> None:
    asr = load_params(Path(__file__).parents[2] / "params.yaml").asr
    rows = [{"duration_s": 10.0}, {"duration_s": 40.0}]
    valid = asr.model_copy(update={"states": "valid"})
    assert estimated_states_mb(rows, 512, valid) == pytest.approx(50 * 50 * 512 * 2 / 1e6)
    every = asr.model_copy(update={"states": "all"})
    assert estimated_states_mb(rows, 512, every) == pytest.approx(5000 * 512 * 2 / 1e6)
    said = "2 utterances; encoder states will take 5 MB, 1,234 MB are free"
    assert list(outlook(rows, 512, every, "mini-whisper", 1234.0)) == [said]


def test_published_weights_in_short_windows_are_warned_of() -> None:
    asr = load_params(Path(__file__).parents[2] / "params.yaml").asr
    short = asr.model_copy(update={"audio_context": "utterance"})
    assert len(list(outlook([], 512, short, "mini-whisper", 0.0))) == 1
    assert "expect `full`" in list(outlook([], 512, short, "base.en", 0.0))[1]
