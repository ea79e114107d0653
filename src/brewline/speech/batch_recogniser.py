"""Batches of recordings recognised in a worker process, which may fail in any way."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brewline.config.asr import AsrParams
from brewline.core.compute import DeviceName
from brewline.core.system import keep_freed_memory, usable_cores
from brewline.media.archives import MediaStore
from brewline.media.audio import decode, to_mono_16k
from brewline.speech.batch_plan import RecordingBatch, Row
from brewline.speech.recognition import Recognition

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


# What answers a batch, in a worker process.
Recognise = Callable[[RecordingBatch], list[Recognition] | Failure]


class BatchRecogniser:
    """Recognises batches of a corpus, in a process of its own."""

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
        import torch

        from brewline.core.devices import choose_device
        from brewline.speech.recogniser import Recogniser

        # On a processor a second thread gains little at the batch sizes that fit there, and so
        # the result depends on the number of neither workers nor cores.
        torch.set_num_threads(1)
        keep_freed_memory()
        self._recogniser = Recogniser(checkpoint, settings, device)
        self._store = MediaStore(root)
        # A GPU should not wait for one core to decode a batch of files.
        cores = 1 if choose_device(device).type == "cpu" else usable_cores()
        self._decoders = ThreadPoolExecutor(min(cores, _MAX_DECODERS))

    def __call__(self, batch: RecordingBatch) -> list[Recognition] | Failure:
        """Recognises a batch, or says why it cannot."""
        import torch

        # Outside: files that cannot be read are no fault of the model's.
        contents = [self._content(row) for row in batch.utterances]
        try:
            waveforms = list(self._decoders.map(_waveform, contents))
            texts = [_known_text(row, batch.decode) for row in batch.utterances]
            languages = [row["language"] for row in batch.utterances]
            return self._recogniser.recognise(waveforms, texts, languages)
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
