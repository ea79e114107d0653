"""How much of a recording is speech, by silero-vad, whose weights come in its package."""

from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

from brewline.core.errors import BrewlineError
from brewline.media.audio import SAMPLE_RATE_HZ

# Frames of 32 ms that are more likely speech than not count as speech.
_SPEECH = 0.5
_MODEL = "silero_vad_16k_sequence.onnx"


class SpeechShare:
    """The model, loaded; one per process."""

    def __init__(self) -> None:
        """Loads it.

        Raises:
            BrewlineError: silero-vad is not installed.
        """
        import torch

        num_threads = torch.get_num_threads()
        try:
            from silero_vad import SileroVADSequence
        except ImportError as error:
            raise BrewlineError(
                f"inspect.speech_share and asr.vad need silero-vad ({error}): `uv pip install "
                "'.[speech-share]'`, or set them to false and none",
                "settings",
            ) from None
        finally:
            # Importing it sets one thread for the whole process, Whisper's too.
            torch.set_num_threads(num_threads)
        with as_file(files("silero_vad.data") / _MODEL) as path:
            self._model = SileroVADSequence(str(path))

    def __call__(self, waveform: NDArray[np.float32]) -> float:
        """The share of the time of (num_samples,) at 16 kHz in which somebody speaks."""
        probabilities = self._model.audio_forward(np.nan_to_num(waveform), SAMPLE_RATE_HZ)
        return float((probabilities > _SPEECH).mean()) if probabilities.size else 0.0
