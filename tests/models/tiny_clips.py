"""A tiny world of clips: a colour is a tone, and changes in the middle of a clip or does not."""

import io
from functools import cache

import numpy as np
import soundfile
from PIL import Image
from sound_params import sound_params
from tiny_models import COLOURS, RGB

from brewline.config.sounds import SoundParams
from brewline.config.variants import VariantParams
from brewline.samples.training_reader import TrainingOrder
from brewline.samples.utterance import Event, Frame, Utterance
from brewline.training.loop import TrainingData

RATE_HZ = 16_000


def sound_variant(rule: str = "random_frame", **options) -> VariantParams:
    sound = SoundParams.model_validate(sound_params(rule, **options))
    return VariantParams(prompts=0, sound=sound)


def tone(hz: float, seconds: float) -> np.ndarray:
    return 0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)


def flac(samples: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE_HZ, format="FLAC")
    return buffer.getvalue()


def picture(colour: int | None, rng: np.random.Generator) -> bytes:
    """Plain, or grey noise where nothing is to be seen."""
    base = np.full((40, 40, 3), (128, 128, 128) if colour is None else RGB[colour], np.int16)
    spread = 120 if colour is None else 9
    buffer = io.BytesIO()
    pixels = (base + rng.integers(-spread, spread, (40, 40, 3))).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def make_clip(number: int, frames: int = 4, seconds: float = 0.8, captions: int = 2) -> Utterance:
    """A colour in one part of the clip, heard all the time; the other frames are noise."""
    rng = np.random.default_rng(number)
    colour = number % len(COLOURS)
    seen = int(rng.integers(frames))
    part_s = seconds / frames
    return Utterance(
        utterance_id=f"clip{number}",
        image_id=None,
        image=None,
        transcript="",
        caption=None,
        num_frames=0,
        sound=flac(
            tone(200 * 1.4**colour, seconds) + rng.normal(0, 0.01, round(seconds * RATE_HZ))
        ),
        frames=tuple(
            Frame((k + 0.5) * part_s, picture(colour if k == seen else None, rng))
            for k in range(frames)
        ),
        captions=tuple(f"a {COLOURS[colour]} sound {k}" for k in range(captions)),
        events=(Event(seen * part_s, (seen + 1) * part_s, COLOURS[colour]),),
    )


@cache
def clip_data() -> TrainingData:
    splits = {
        "train": [make_clip(number) for number in range(16)],
        "dev": [make_clip(number) for number in range(80, 88)],
        "test": [make_clip(number) for number in range(160, 168)],
    }

    def read_training(seed: int, start: int, stop: int) -> list[Utterance]:
        order = TrainingOrder([len(splits["train"])], seed)
        return [splits["train"][place.row] for place in order.places(start, stop)]

    return TrainingData(read_training, splits.__getitem__, splits.__getitem__)
