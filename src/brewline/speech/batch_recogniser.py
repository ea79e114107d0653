"""Batches of recordings recognised in a worker process, which may fail in any way."""

import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brewline.config.asr import AsrParams
from brewline.core.compute import DeviceName
from brewline.core.system import usable_cores
from brewline.media.audio import waveform
from brewline.speech.batch_plan import RecordingBatch, Row
from brewline.speech.recognition import Recognition
from brewline.speech.recordings import Recordings

# Threads that decode the files of a batch for a GPU.
_MAX_DECODERS = 8
_NO_MEMORY = ("can't allocate memory", "out of memory")
# After these nothing runs on a GPU in the same process any more; PyTorch's and CTranslate2's words.
_BROKEN_GPU = ("CUDA error", "CUDA failed", "cuBLAS failed", "cuDNN error", "cuDNN failed")


@dataclass(frozen=True)
class Failure:
    """Why a batch was not recognised: `crash`, `timeout`, `out_of_memory` or `error`."""

    reason: str
    detail: str


class BatchTask(NamedTuple):
    """A batch to recognise, and the one that is to be read meanwhile."""

    batch: RecordingBatch
    upcoming: RecordingBatch | None = None


# What answers a task, in a worker process.
Recognise = Callable[[BatchTask], list[Recognition] | Failure]

_Waveforms = list[NDArray[np.float32]]


class BatchRecogniser:
    """Recognises batches of a corpus, in a process of its own.

    The files of the next batch are read and decoded while the model works on this one, so that a
    GPU does not wait for them.
    """

    def __init__(
        self, root: Path, checkpoint: Path, settings: AsrParams, device: DeviceName = "auto"
    ) -> None:
        """Loads the model.

        Args:
            root: The corpus' files.
            checkpoint: Of Whisper.
            settings: How it is run.
            device: Where.

        Raises:
            BrewlineError: see `load_engine`.
        """
        # Imported here: the process that hands out the work needs no model.
        from brewline.core.devices import choose_device, compute_in_one_thread
        from brewline.speech.recogniser import Recogniser

        # On a processor a second thread gains little at the batch sizes that fit there.
        compute_in_one_thread()
        self._recogniser = Recogniser(checkpoint, settings, device)
        self._recordings = Recordings(root)
        # A GPU should not wait for one core to decode a batch of files either.
        cores = 1 if choose_device(device).type == "cpu" else usable_cores()
        self._decoders = ThreadPoolExecutor(min(cores, _MAX_DECODERS))
        # One, which alone reads files.
        self._reader = ThreadPoolExecutor(1)
        self._ahead: tuple[str, Future[_Waveforms | Failure]] | None = None

    def __call__(self, task: BatchTask) -> list[Recognition] | Failure:
        """Recognises a batch, or says why it cannot."""
        batch = task.batch
        waveforms = self._read(batch).result()
        if isinstance(waveforms, Failure):
            return waveforms
        if task.upcoming:
            self._ahead = task.upcoming.name, self._read(task.upcoming)
        texts = [_known_text(row, batch.decode) for row in batch.utterances]
        languages = [row["language"] for row in batch.utterances]
        try:
            return self._recogniser.recognise(waveforms, texts, languages)
        except Exception as error:  # noqa: BLE001 - whatever a model raises costs a recording
            return _failure(error)

    def _read(self, batch: RecordingBatch) -> "Future[_Waveforms | Failure]":
        """The waveforms of a batch, which may have been begun already."""
        ahead, self._ahead = self._ahead, None
        if ahead and ahead[0] == batch.name:
            return ahead[1]
        return self._reader.submit(self._waveforms, batch)

    def _waveforms(self, batch: RecordingBatch) -> _Waveforms | Failure:
        # Outside: files that cannot be read are no fault of a batch.
        contents = [self._recordings.content(row) for row in batch.utterances]
        try:
            return list(self._decoders.map(waveform, contents))
        except Exception as error:  # noqa: BLE001 - as above
            return _failure(error)


def _failure(error: Exception) -> Failure:
    """What an error means for a batch; one after which a GPU does nothing more ends the process."""
    import torch

    text = str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return Failure("out_of_memory", text)
    named = f"{type(error).__name__}: {text}"
    # PyTorch has no class of its own for a processor's memory, CTranslate2 none at all.
    if any(words in text for words in _NO_MEMORY):
        return Failure("out_of_memory", named)
    if any(words in text for words in _BROKEN_GPU):
        os._exit(1)
    return Failure("error", named)


def _known_text(row: Row, decode: bool) -> str | None:
    """What is not to be decoded: a text that was imported, or one that is given up."""
    text: str | None = row["transcript"]
    return "" if text is None and not decode else text
