"""The clips of a corpus cut out of their files: sound as FLAC, and some frames as JPEGs.

As with pictures (`shrinking`), files are read in the order of their archives, and what is cut waits
in the work folder until the shards are written, whose order is another one.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.ipc
import soundfile

from brewline.config.shard import ShardParams
from brewline.core.engine import Job
from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path
from brewline.core.workers import Lost, Worker
from brewline.media.archives import MediaStore
from brewline.media.audio import SAMPLE_RATE_HZ, AudioError, waveform
from brewline.media.containers import PlacedFile
from brewline.media.file_runs import FileRuns, PlacedFiles, list_runs
from brewline.media.pictures import shrink_image
from brewline.media.video import VideoError, middle_times, open_video
from brewline.samples.shrinking import MadeFiles, Refused, file_of
from brewline.tables.parquet import read_column

_CLIPS = pyarrow.schema(
    [
        pyarrow.field("sound", pyarrow.binary(), nullable=False),
        pyarrow.field("times_s", pyarrow.list_(pyarrow.float64()), nullable=False),
        pyarrow.field("frames", pyarrow.list_(pyarrow.binary()), nullable=False),
    ]
)
# Of each clip: where in its file it begins and ends, in seconds (NaN: with the file), and whether
# it has frames.
_PARTS = np.dtype([("start_s", "f8"), ("end_s", "f8"), ("is_video", "?")])


class ClipTask(NamedTuple):
    """A file, and the part of it that is a clip."""

    file: PlacedFile
    start_s: float
    end_s: float
    is_video: bool


class CutClip(NamedTuple):
    """A clip as a shard has it; times are in seconds from its beginning."""

    sound: bytes
    times_s: list[float]
    frames: list[bytes]


@dataclass(frozen=True)
class CutClips(Job[int, ClipTask, CutClip | Refused, int]):
    """Cuts the clips of a run. `parts` is the array that `list_clips` writes."""

    root: Path
    files: FileRuns
    parts: Path
    folder: Path
    settings: ShardParams
    limit_s: float
    chunk_size: int = 4

    def prepare(self) -> "Cut":
        """See `Job`."""
        return Cut(PlacedFiles(self.root), self.settings)

    def is_done(self, unit: int) -> bool:
        """See `Job`."""
        return file_of(self.folder, unit).exists()

    def do(self, unit: int, worker: Worker[ClipTask, CutClip | Refused]) -> Iterator[int]:
        """See `Job`; tells the number of clips.

        Raises:
            BrewlineError: one of them cannot be cut.
        """
        start = unit * self.files.length
        files = self.files.read(unit)
        parts = np.load(self.parts, mmap_mode="r")[start : start + len(files)].tolist()
        tasks = [ClipTask(file, *part) for file, part in zip(files, parts, strict=True)]
        with (
            atomic_path(file_of(self.folder, unit)) as partial,
            pyarrow.ipc.new_file(str(partial), _CLIPS) as clips,
        ):
            for task, answer in zip(tasks, worker.map(tasks), strict=True):
                if isinstance(answer, Refused | Lost):
                    raise BrewlineError(f"{task.file.name!r} cannot be packed: {answer.detail}")
                columns = [[value] for value in answer]
                clips.write_batch(pyarrow.record_batch(columns, schema=_CLIPS))
        yield len(files)


@dataclass(frozen=True)
class Cut:
    """Cuts a clip out of its file, in a worker process."""

    files: PlacedFiles
    settings: ShardParams

    def __call__(self, task: ClipTask) -> CutClip | Refused:
        """The clip.

        Raises:
            BrewlineError: its archive is damaged.
        """
        try:
            return cut_clip(self.files.read(task.file), task, self.settings)
        except (AudioError, VideoError) as error:
            return Refused(error.detail)


def cut_clip(content: bytes, task: ClipTask, settings: ShardParams) -> CutClip:
    """Cuts a clip out of a whole file.

    Args:
        content: The file.
        task: Which part of it, and whether with frames.
        settings: How many frames, and how large.

    Raises:
        AudioError: see `brewline.media.audio.decode`.
        VideoError: see `brewline.media.video`.
    """
    samples = waveform(content)
    start_s = 0.0 if np.isnan(task.start_s) else task.start_s
    end_s = len(samples) / SAMPLE_RATE_HZ if np.isnan(task.end_s) else task.end_s
    samples = samples[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]
    times_s = middle_times(len(samples) / SAMPLE_RATE_HZ, settings.frames_per_clip)
    if not task.is_video:
        return CutClip(encode_flac(samples), [], [])
    with open_video(content) as video:
        seen = video.seen_at([start_s + time_s for time_s in times_s])
        frames = [shrink_image(one.image, settings) for one in seen]
    return CutClip(encode_flac(samples), times_s, frames)


def encode_flac(samples: Any) -> bytes:
    """(num_samples,) at 16 kHz as FLAC of 16 bits; what is louder than full scale is clipped."""
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE_HZ, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


class CutFiles(MadeFiles):
    """The clips that `CutClips` made, by their numbers in the list."""

    def read(self, number: int) -> CutClip:
        """A clip.

        Raises:
            BrewlineError: a disk has damaged the file that it is in.
        """
        row = self.batch(number)
        return CutClip(*(row.column(name)[0].as_py() for name in _CLIPS.names))


def list_clips(root: Path, manifest: Path, path: Path, parts: Path, numbers: Path) -> FileRuns:
    """Lists the file of each clip of a corpus, and says which number in the list each row has.

    Args:
        root: The corpus' folder.
        manifest: The table.
        path: The list, which is written; a file of several clips is in it as often.
        parts: An array that is written, `.npy`, (num_clips,): which part of the file each one is.
        numbers: Another one, (num_rows,): the number of each row's clip.

    Raises:
        BrewlineError: a file is not there.
    """
    store = MediaStore(root)
    audio = read_column(manifest, "audio_path").to_pylist()
    names = [store.find(name) or "" for name in audio]
    if "" in names:
        raise BrewlineError(f"{store.absence(audio[names.index('')])}; run `dvc repro`")
    place = {name: number for number, name in enumerate(store.in_stored_order(set(names)))}
    order = sorted(range(len(names)), key=lambda row: place[names[row]])
    found = np.empty(len(names), _PARTS)
    for column in ("start_s", "end_s"):
        values = read_column(manifest, column).to_numpy()
        found[column] = values[order]
    found["is_video"] = read_column(manifest, "video_path").is_valid().to_numpy()[order]
    number_of = np.empty(len(names), np.int64)
    number_of[order] = np.arange(len(names))
    _save(parts, found)
    _save(numbers, number_of)
    return list_runs(path, store, [names[row] for row in order])


def _save(path: Path, array: Any) -> None:
    with atomic_path(path) as partial, partial.open("wb") as file:
        np.save(file, array)


def clip_fields(clip: CutClip) -> dict[str, bytes]:
    """The fields of a clip's sample beside its facts: `flac`, and `0.jpg`, `1.jpg` ..."""
    pictures: Sequence[bytes] = clip.frames
    return {"flac": clip.sound} | {f"{number}.jpg": one for number, one in enumerate(pictures)}
