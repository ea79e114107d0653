"""When each word of a window was said, by openai-whisper's own timing.

The decoder reads the text that it gave once more; where its aligned heads look in the recording
tells when each token was said (dynamic time warping, `whisper.timing`). That of the library encodes
the recording again, and in its full context; here the states that are there are read.
"""

from collections.abc import Sequence
from typing import Any

import whisper
from torch import Tensor
from whisper.timing import add_word_timestamps
from whisper.tokenizer import Tokenizer

from brewline.speech.recognition import Word
from brewline.speech.windows import FRAMES_PER_SECOND

# The library counts in frames of a mel spectrogram.
_MEL_FRAMES = 2


class _HeardAlready:
    """Stands for a model to the library's timing, with encoder states as what is heard."""

    def __init__(self, model: whisper.Whisper) -> None:
        self.dims, self.device = model.dims, model.device
        self.decoder, self.alignment_heads = model.decoder, model.alignment_heads

    def __call__(self, states_ATW: Tensor, tokens_AS: Tensor) -> Tensor:
        logits_ASV: Tensor = self.decoder(tokens_AS, states_ATW)
        return logits_ASV


def time_words(
    model: whisper.Whisper,
    tokenizer: Tokenizer,
    states_TW: Tensor,
    tokens: Sequence[int],
    first_frame: int,
    num_frames: int,
) -> list[Word]:
    """The words of a window's text, each with its times.

    Args:
        model: Of openai-whisper.
        tokenizer: In the window's language.
        states_TW: Encoder states of the window, with those of padding or without.
        tokens: Its text.
        first_frame: Where in its recording the window begins, in encoder frames.
        num_frames: How many of the states are the window's own.
    """
    start_s = first_frame / FRAMES_PER_SECOND
    segment: dict[str, Any] = {
        "tokens": list(tokens),
        "seek": _MEL_FRAMES * first_frame,
        "start": start_s,
        "end": start_s + num_frames / FRAMES_PER_SECOND,
    }
    add_word_timestamps(
        segments=[segment],
        model=_HeardAlready(model),
        tokenizer=tokenizer,
        mel=states_TW,
        num_frames=_MEL_FRAMES * num_frames,
        last_speech_timestamp=start_s,
    )
    return [
        Word(
            word=word["word"].strip(),
            start_s=round(float(word["start"]), 2),
            end_s=round(float(word["end"]), 2),
            probability=float(word["probability"]),
        )
        for word in segment["words"]
        if word["word"].strip()
    ]
