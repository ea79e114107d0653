"""What Whisper's encoder makes of recordings that are changed a little, shard by shard."""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brewline.config.asr import AsrParams
from brewline.core.compute import DeviceName
from brewline.core.engine import Job
from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path
from brewline.core.workers import Lost, Worker
from brewline.media.audio import waveform
from brewline.media.file_runs import FileRuns
from brewline.samples.augmented import AUGMENTATIONS, member_of
from brewline.samples.iteration import chunks
from brewline.samples.shards import encode_states, read_samples, write_shard
from brewline.speech.augmentation import augmented
from brewline.speech.batch_plan import Row, Shard
from brewline.speech.layers import load_layers
from brewline.speech.recordings import Recordings, read_placed_rows

# What a worker does at a time.
_RECORDINGS_PER_TASK = 32

# Of a recording: its states (T, S), of each augmentation.
Versions = list[NDArray[np.float16]]


class AugmentedEncoder:
    """Encodes recordings, changed in every way that there is, in a process of its own."""

    def __init__(
        self, root: Path, checkpoint: Path, settings: AsrParams, device: DeviceName = "auto"
    ) -> None:
        """Loads the model; arguments and errors are those of `BatchRecogniser`."""
        self._encoder = load_layers(checkpoint, settings, device)
        self._recordings = Recordings(root)

    def __call__(self, rows: Sequence[Row]) -> list[Versions]:
        """The versions of rows of the manifest."""
        return [
            self.versions(waveform(self._recordings.content(row)), row["utterance_id"])
            for row in rows
        ]

    def versions(self, waveform: NDArray[np.float32], utterance_id: str) -> Versions:
        """The states of every version of a recording, in the order of `AUGMENTATIONS`.

        Raises:
            BrewlineError: the model gives something that is no number.
        """
        seed = zlib.crc32(utterance_id.encode())
        return [self._encode(one) for one in augmented(waveform, seed)]

    def _encode(self, waveform: NDArray[np.float32]) -> NDArray[np.float16]:
        """The states of the recording's own frames, window by window."""
        parts = []
        for window in self._encoder.windows(waveform):
            *_, last = self._encoder.layers(window)
            parts.append(last.half().cpu().numpy())
        found: NDArray[np.float16] = np.concatenate(parts)
        if not np.isfinite(found).all():
            raise BrewlineError("encoder states are no numbers, or too large for 16 bits")
        return found


@dataclass(frozen=True)
class AugmentStates(Job[Shard, list[Row], list[Versions], int]):
    """Writes the shards of a corpus' states again, with those of the versions beside them."""

    manifest: Path
    recordings: FileRuns
    states: Path
    folder: Path
    encoder: Callable[[], AugmentedEncoder]
    # Seconds that some recordings may take.
    limit_s: float
    on_gpu: bool = False

    def file(self, shard: Shard) -> Path:
        """The tar of a shard."""
        return self.folder / shard.name

    def prepare(self) -> AugmentedEncoder:
        """See `Job`."""
        return self.encoder()

    def is_done(self, unit: Shard) -> bool:
        """See `Job`."""
        return self.file(unit).exists()

    def do(self, unit: Shard, worker: Worker[list[Row], list[Versions]]) -> Iterator[int]:
        """See `Job`; tells the number of recordings."""
        with atomic_path(self.file(unit)) as partial:
            count = write_shard(partial, self._samples(unit, worker))
        yield count

    def _samples(
        self, shard: Shard, worker: Worker[list[Row], list[Versions]]
    ) -> Iterator[dict[str, Any]]:
        part = slice(shard.start, shard.stop)
        placed = read_placed_rows(self.manifest, self.recordings, part, ["utterance_id"])
        row_of = {row["utterance_id"]: row for row in placed}
        # Recordings that were dropped when they were transcribed have no states.
        for samples in chunks(read_samples(self.states / shard.name), _RECORDINGS_PER_TASK):
            rows = [row_of[sample["__key__"]] for sample in samples]
            (found,) = worker.map([rows])
            if isinstance(found, Lost):
                raise BrewlineError(
                    f"{rows[0]['utterance_id']} to {rows[-1]['utterance_id']} could not be "
                    f"encoded with changes: {found.detail}",
                    "crash",
                )
            for sample, versions in zip(samples, found, strict=True):
                encoded = map(encode_states, versions)
                further = dict(zip(map(member_of, AUGMENTATIONS), encoded, strict=True))
                yield {"__key__": sample["__key__"], "npy": sample["npy"], **further}
