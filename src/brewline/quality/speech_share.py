"""How much of a recording is speech, by silero-vad, whose weights come in its package."""

from importlib.resources import as_file, files

import numpy as np

from brewline.core.errors import BrewlineError
from brewline.media.audio import SAMPLE_RATE_HZ, decode, to_mono_16k

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
        try:
            from silero_vad import SileroVADSequence
        except ImportError as error:
            raise BrewlineError(
                f"inspect.speech_share needs silero-vad ({error}): `uv pip install "
                "brewline[speech-share]`, or set it to false",
                "settings",
            ) from None
        with as_file(files("silero_vad.data") / _MODEL) as path:
            self._model = SileroVADSequence(str(path))

    def __call__(self, content: bytes) -> float:
        """The share of a recording's time in which somebody speaks.

        Raises:
            AudioError: it cannot be decoded.
        """
        samples = to_mono_16k(decode(content))
        probabilities = self._model.audio_forward(np.nan_to_num(samples), SAMPLE_RATE_HZ)
        return float((probabilities > _SPEECH).mean()) if probabilities.size else 0.0
