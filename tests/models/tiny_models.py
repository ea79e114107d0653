"""A tiny CLIP of the real class, and a tiny world in which speech, text and image agree."""

import io
import zlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import open_clip
import torch
from PIL import Image

from brewline.config.variants import AcousticParams, VariantParams
from brewline.samples.training_reader import TrainingOrder
from brewline.samples.utterance import BadSampleError, Utterance
from brewline.training.loop import TrainingData

IMAGE_SIZE = 32
STATE_WIDTH = 12
NUM_LAYERS = 3
EMBEDDING_SIZE = 20
VISION = {"image_size": IMAGE_SIZE, "layers": 2, "width": 32, "patch_size": 8, "head_width": 8}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 24, "heads": 3, "layers": 2}
COLOURS = ["red", "green", "blue", "black", "white", "yellow", "brown", "pink"]
RGB = [
    (220, 20, 20),
    (20, 200, 20),
    (20, 20, 220),
    (0, 0, 0),
    (255, 255, 255),
    (240, 240, 10),
    (120, 60, 10),
    (250, 150, 200),
]


def make_clip() -> open_clip.CLIP:
    """A CLIP whose text tower is narrower than its image tower."""
    torch.manual_seed(3)
    clip = open_clip.CLIP(EMBEDDING_SIZE, vision_cfg=VISION, text_cfg=TEXT).eval()
    # open_clip starts these almost at zero, which would make every text look the same.
    torch.nn.init.normal_(clip.token_embedding.weight, std=0.5)
    return clip


ACOUSTIC = AcousticParams(
    layers=1, heads=4, feedforward_width=32, dropout=0.1, pool_frames=2, padding_mask="valid"
)


def variant(
    text: Literal["asr", "caption"] | None = "asr",
    acoustic: AcousticParams | None = ACOUSTIC,
    prompts: int = 2,
    alpha: float = 0.1,
    **options: Any,
) -> VariantParams:
    both = text is not None and acoustic is not None
    return VariantParams(
        text=text, acoustic=acoustic, prompts=prompts, alpha=alpha if both else None, **options
    )


# Branches that hear an encoder's layers; as in SpeechCLIP.
PARALLEL = ACOUSTIC.model_copy(update={"encoder": "hubert", "branch": "parallel", "pool_frames": 1})
CASCADED = PARALLEL.model_copy(
    update={"branch": "cascaded", "heads": 1, "feedforward_width": None, "keywords": 3}
)

PROMPTED = variant(acoustic=None)
FULL = variant()
E2E = variant(text=None)
ZERO_SHOT = variant(acoustic=None, prompts=0)
SPEECHCLIP_P = variant(text=None, acoustic=PARALLEL, prompts=0)
SPEECHCLIP_C = variant(text=None, acoustic=CASCADED, prompts=0)


def make_world(num_images: int = 8, takes: int = 2, first: int = 0) -> list[Utterance]:
    """Utterances about plain pictures: colour decides words, sound and pixels."""
    utterances = []
    for index in range(first, first + num_images):
        rng = np.random.default_rng(index)
        colour = index % len(COLOURS)
        pixels = np.full((48, 40, 3), RGB[colour], np.int16) + rng.integers(-9, 9, (48, 40, 3))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG")
        for take in range(takes):
            frames = int(rng.integers(3, 12))
            states = rng.normal(0, 0.3, (frames, STATE_WIDTH))
            states[:, colour] += 2
            utterances.append(
                Utterance(
                    utterance_id=f"u{index}-{take}",
                    image_id=f"i{index}",
                    image=buffer.getvalue(),
                    transcript=f" A {COLOURS[colour]} picture, take {take}.",
                    caption=f"something {COLOURS[colour]}",
                    num_frames=frames,
                    states=states.astype(np.float16),
                )
            )
    return utterances


def in_layers(utterances: Sequence[Utterance]) -> list[Utterance]:
    """The same, heard by an encoder of layers: the second has the sound, the others hide it."""
    found = []
    for one in utterances:
        assert one.states is not None
        seed = zlib.crc32(one.utterance_id.encode())
        noise = np.random.default_rng(seed).normal(0, 3, (2, *one.states.shape))
        layers = np.stack([noise[0], one.states, noise[1]], axis=1)
        found.append(replace(one, states=layers.astype(np.float16)))
    return found


def data_for(switches: VariantParams) -> TrainingData:
    """The tiny world as a variant hears it."""
    data = world_data()
    if switches.acoustic is None or not switches.acoustic.hears_layers:
        return data
    return TrainingData(
        lambda *numbers: in_layers(data.read_training(*numbers)),
        lambda split: in_layers(list(data.read_split(split))),
        data.read_without_states,
    )


def world_data(with_states: bool = True) -> TrainingData:
    """A reader of the tiny world, in the order of the real one."""
    splits = {
        "train": make_world(),
        "dev": make_world(num_images=8, takes=1, first=80),
        "test": make_world(num_images=8, takes=2, first=160),
    }
    if not with_states:
        splits = {k: [replace(u, states=None) for u in v] for k, v in splits.items()}

    def read_training(seed: int, start: int, stop: int) -> list[Utterance]:
        order = TrainingOrder([len(splits["train"])], seed)
        return [splits["train"][place.row] for place in order.places(start, stop)]

    def read_without_states(split: str) -> list[Utterance]:
        return [replace(one, states=None) for one in splits[split]]

    return TrainingData(read_training, splits.__getitem__, read_without_states)


def damaged_data(bad: Collection[str], what: str) -> TrainingData:
    """The tiny world, in which some utterances of training cannot be read: `image` or `states`."""
    data = world_data()

    def spoil(one: Utterance) -> Utterance:
        if one.utterance_id not in bad:
            return one
        assert one.image is not None
        return replace(one, image=one.image[:50])

    def read_training(seed: int, start: int, stop: int) -> list[Utterance]:
        found = data.read_training(seed, start, stop)
        if what == "states":
            for one in found:
                if one.utterance_id in bad:
                    raise BadSampleError(one.utterance_id, f"no states for {one.utterance_id!r}")
            return found
        return [spoil(one) for one in found]

    def read_without_states(split: str) -> Iterable[Utterance]:
        found = data.read_without_states(split)
        return [spoil(one) for one in found] if what == "image" else found

    return replace(data, read_training=read_training, read_without_states=read_without_states)
