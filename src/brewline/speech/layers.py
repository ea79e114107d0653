"""What each layer of Whisper's encoder makes of a recording: mean and deviation over its frames.

Frames of padding do not count: a clip of 3.7 s fills an eighth of Whisper's 30 s. States are pooled
while they are made, so that none of them are kept.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brewline.config.asr import AsrParams
from brewline.core.compute import DeviceName
from brewline.core.engine import Job
from brewline.core.errors import BrewlineError
from brewline.core.workers import Lost, Worker
from brewline.media.audio import waveform
from brewline.media.file_runs import FileRuns
from brewline.speech.batch_plan import Row
from brewline.speech.recordings import Recordings, read_placed_rows
from brewline.speech.windows import num_frames
from brewline.tables.features import Features, holds_features, save_features

if TYPE_CHECKING:
    from brewline.speech.layered_encoders import WhisperLayers

# What a worker does at a time, and what a killed one has to do again.
_RECORDINGS_PER_PART = 32
# The names of the arrays, (U, L, S) each: U recordings, L layers, S width of the states.
MEAN, DEVIATION = "mean", "deviation"


def load_layers(checkpoint: Path, settings: AsrParams, device: DeviceName) -> "WhisperLayers":
    """Loads Whisper's encoder.

    For a process of its own, which has one thread from then on.

    Raises:
        BrewlineError: see `load_engine`.
    """
    # Imported here: the process that hands out the work needs no model.
    from brewline.core.devices import choose_device, compute_in_one_thread
    from brewline.speech.layered_encoders import WhisperLayers

    compute_in_one_thread()
    return WhisperLayers(checkpoint, settings, choose_device(device))


class LayerPooler:
    """Pools the layers of recordings, in a process of its own.

    Each window is encoded by itself, so the result for a recording depends on no other one.
    """

    def __init__(
        self, root: Path, checkpoint: Path, settings: AsrParams, device: DeviceName = "auto"
    ) -> None:
        """Loads the model; arguments and errors are those of `BatchRecogniser`."""
        self._encoder = load_layers(checkpoint, settings, device)
        self._recordings = Recordings(root)

    def __call__(self, rows: Sequence[Row]) -> Features:
        """Pools the recordings of rows of the manifest."""
        pooled = [self.pool_layers(waveform(self._recordings.content(row))) for row in rows]
        mean, deviation = (np.stack(part) for part in zip(*pooled, strict=True))
        ids = [row["utterance_id"] for row in rows]
        return Features(ids, {MEAN: mean, DEVIATION: deviation})

    def pool_layers(
        self, waveform: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and deviation of each layer's states over a recording's own frames.

        Args:
            waveform: Of any length, (num_samples,) at 16 kHz.

        Returns:
            Two arrays (L, S).

        Raises:
            BrewlineError: the model gives something that is no number.
        """
        windows = list(self._encoder.windows(waveform))
        frames = [num_frames(len(window)) for window in windows]
        moments = [self._moments(window) for window in windows]
        means_WLS, variances_WLS = (np.stack(part) for part in zip(*moments, strict=True))
        mean_LS = np.average(means_WLS, axis=0, weights=frames)
        spread_WLS = variances_WLS + (means_WLS - mean_LS) ** 2
        deviation_LS = np.sqrt(np.average(spread_WLS, axis=0, weights=frames))
        if not (np.isfinite(mean_LS).all() and np.isfinite(deviation_LS).all()):
            raise BrewlineError("encoder states are no numbers")
        return mean_LS.astype(np.float32), deviation_LS.astype(np.float32)

    def _moments(
        self, window: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance of each layer over the frames of a window, (L, S) each."""
        layers = self._encoder.layers(window)
        moments = [(rows.mean(0), rows.var(0, correction=0)) for rows in layers]
        means, variances = (
            np.stack([one.cpu().numpy() for one in part]).astype(np.float64)
            for part in zip(*moments, strict=True)
        )
        return means, variances


@dataclass(frozen=True)
class PoolLayers(Job[int, list[Row], Features, int]):
    """Pools the layers of parts of a manifest; a unit is the first row of one."""

    manifest: Path
    recordings: FileRuns
    folder: Path
    pooler: Callable[[], LayerPooler]
    # Seconds that a part may take.
    limit_s: float
    on_gpu: bool = False

    def sizes(self) -> dict[int, int]:
        """How many recordings each part has."""
        num_rows = self.recordings.num_files
        starts = range(0, num_rows, _RECORDINGS_PER_PART)
        return {start: min(_RECORDINGS_PER_PART, num_rows - start) for start in starts}

    def file(self, unit: int) -> Path:
        """The features of a part."""
        return self.folder / f"{unit:08}.safetensors"

    def prepare(self) -> LayerPooler:
        """See `Job`."""
        return self.pooler()

    def is_done(self, unit: int) -> bool:
        """See `Job`."""
        return holds_features(self.file(unit))

    def do(self, unit: int, worker: Worker[list[Row], Features]) -> Iterator[int]:
        """See `Job`; tells the number of recordings."""
        part = slice(unit, min(unit + _RECORDINGS_PER_PART, self.recordings.num_files))
        rows = read_placed_rows(self.manifest, self.recordings, part, ["utterance_id"])
        for features in worker.map([rows]):
            if isinstance(features, Lost):
                raise BrewlineError(
                    f"Whisper's layers of {rows[0]['utterance_id']} to {rows[-1]['utterance_id']} "
                    f"could not be made: {features.detail}",
                    "crash",
                )
            save_features(self.file(unit), features)
        yield len(rows)


def join_features(parts: Iterable[Features]) -> Features:
    """The features of a corpus from those of its parts, in their order."""
    found = list(parts)
    return Features(
        [one for part in found for one in part.utterance_ids],
        {name: np.concatenate([part.arrays[name] for part in found]) for name in found[0].arrays},
    )
