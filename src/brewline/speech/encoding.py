"""All layers of an encoder over a corpus, as shards that run parallel to those of `shard`.

Unlike Whisper's last layer they are not made beside the texts: who wants them later recognises
nothing again. A recording lies in a file of its own until its shard is written.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from brewline.config.asr import AsrParams
from brewline.config.variants import LayeredEncoderName
from brewline.core.compute import DeviceName
from brewline.core.engine import Engine, Job, run_under_bar
from brewline.core.errors import BrewlineError, disk_faults_explained
from brewline.core.files import atomic_path, remove
from brewline.core.workers import Lost, Worker
from brewline.media.audio import waveform
from brewline.media.file_runs import FileRuns
from brewline.samples.packing import require_joined
from brewline.samples.shards import encode_states, write_index, write_shard
from brewline.speech.batch_plan import Row, Shard, cut_into_shards
from brewline.speech.recordings import Recordings, read_placed_rows
from brewline.tables.parquet import read_column
from brewline.tables.transcripts import DROPPED


@dataclass(frozen=True)
class ToEncode:
    """A recording, and the file for its layers."""

    row: Row
    path: Path


class RecordingEncoder:
    """Writes the layers of recordings, in a process of its own."""

    def __init__(
        self,
        root: Path,
        name: LayeredEncoderName,
        checkpoint: Path,
        settings: AsrParams,
        pool_frames: int,
        device: DeviceName = "auto",
    ) -> None:
        """Loads the encoder; see `load_layered_encoder`, and for `root` `Recordings`."""
        # Imported here: the process that hands out the work needs no model.
        from brewline.core.devices import choose_device, compute_in_one_thread
        from brewline.speech.layered_encoders import encode_recording, load_layered_encoder

        compute_in_one_thread()
        encoder = load_layered_encoder(name, checkpoint, settings, choose_device(device))
        self._encode = partial(encode_recording, encoder, pool_frames=pool_frames)
        self._recordings = Recordings(root)

    def __call__(self, task: ToEncode) -> None:
        """Writes the file of a recording."""
        states = self._encode(waveform(self._recordings.content(task.row)))
        with disk_faults_explained(), atomic_path(task.path) as partial_path:
            partial_path.write_bytes(encode_states(states))


@dataclass(frozen=True)
class EncodeShards(Job[Shard, ToEncode, None, int]):
    """Encodes the recordings of a shard that transcription has not dropped."""

    manifest: Path
    transcripts: Path
    recordings: FileRuns
    work: Path
    encoder: Callable[[], RecordingEncoder]
    # Seconds that a recording may take.
    limit_s: float
    on_gpu: bool = False

    def prepare(self) -> RecordingEncoder:
        """See `Job`."""
        return self.encoder()

    def file(self, shard: Shard) -> Path:
        """The states of a shard."""
        return self.work / "states" / shard.name

    def is_done(self, shard: Shard) -> bool:
        """See `Job`."""
        return self.file(shard).exists()

    def do(self, shard: Shard, worker: Worker[ToEncode, None]) -> Iterator[int]:
        """See `Job`; tells the number of recordings.

        Raises:
            BrewlineError: a recording cannot be encoded.
        """
        folder = self.work / shard.stem
        folder.mkdir(exist_ok=True)
        tasks = [
            ToEncode(row, folder / f"{number:06}.npy")
            for number, row in enumerate(self._kept_rows(shard))
        ]
        missing = [task for task in tasks if not task.path.exists()]
        yield len(tasks) - len(missing)
        for task, answer in zip(missing, worker.map(missing), strict=True):
            if isinstance(answer, Lost):
                raise BrewlineError(
                    f"{task.row['utterance_id']} cannot be encoded: {answer.detail}", "crash"
                )
            yield 1
        with disk_faults_explained(), atomic_path(self.file(shard)) as partial_path:
            write_shard(
                partial_path,
                (
                    {"__key__": task.row["utterance_id"], "npy": task.path.read_bytes()}
                    for task in tasks
                ),
            )
        remove(folder)

    def num_kept(self, shard: Shard) -> int:
        """How many recordings of a shard are encoded."""
        return len(self._kept_rows(shard))

    def _kept_rows(self, shard: Shard) -> list[Row]:
        part = slice(shard.start, shard.stop)
        rows = read_placed_rows(self.manifest, self.recordings, part, ["utterance_id"])
        statuses = read_column(self.transcripts, "status").slice(part.start, len(rows)).to_pylist()
        return [row for row, status in zip(rows, statuses, strict=True) if status != DROPPED]


def encode_corpus(engine: Engine, job: EncodeShards, utterances_per_shard: int) -> Path:
    """Encodes what is missing of a corpus, and writes the index.

    Args:
        engine: Does the shards.
        job: What is done with each.
        utterances_per_shard: As of the shards that they run parallel to.

    Returns:
        The folder of the states.

    Raises:
        BrewlineError: a recording cannot be encoded; and see `require_joined` and `run_units`.
    """
    require_joined(job.manifest, job.transcripts)
    shards = cut_into_shards(job.manifest, utterances_per_shard)
    sizes = {shard: job.num_kept(shard) for shard in shards}
    (job.work / "states").mkdir(exist_ok=True)
    run_under_bar(engine, job, sizes, "encoding", "recordings")
    folder = job.work / "states"
    write_index(folder, {shard.name: size for shard, size in sizes.items()})
    return folder
