"""Where a recording is speech, and how much of it, by silero-vad; its weights come with it."""

from importlib.resources import as_file, files

import numpy as np
from numpy.typing import NDArray

from brewline.core.errors import BrewlineError
from brewline.media.audio import SAMPLE_RATE_HZ

# What the model hears at a time: 32 ms. Frames that are more likely speech than not are speech.
SAMPLES_PER_FRAME = 512
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
        is_speech = self.frames(waveform)
        return float(is_speech.mean()) if is_speech.size else 0.0

    def frames(self, waveform: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether somebody speaks in each frame of (num_samples,) at 16 kHz, a last part too."""
        probabilities = self._model.audio_forward(np.nan_to_num(waveform), SAMPLE_RATE_HZ)
        return np.asarray(probabilities > _SPEECH)
