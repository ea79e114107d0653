"""Clips of a split as unit vectors, and the file that holds them.

`data/embeddings/<corpus>/<experiment>/<seed-n>.safetensors` has, for each split, `<split>/sounds`
(U, D), `<split>/frames` and `<split>/segments` (F, D), and `<split>/captions` (C, D), in float32.
What they are stands in its header, as JSON under `clips`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path
from brewline.evaluation.vectors import Embeddings

_ARRAYS = ("sounds", "frames", "segments", "captions")


@dataclass(frozen=True)
class SoundEmbeddings:
    """A split as unit vectors: of every sound, of every frame, of the sound at its time.

    `frame_clips` and `caption_clips` say by its place which clip a frame or a caption is of, and
    rise; frames of a clip are in the order of their times. `frame_labels` are the events of each
    frame's time. There may be no frames, and no captions.
    """

    clip_ids: list[str]
    sounds: Embeddings
    frame_clips: list[int]
    frames: Embeddings
    segments: Embeddings
    frame_labels: list[list[str]]
    caption_clips: list[int]
    captions: Embeddings


def save_sound_vectors(path: Path, splits: Mapping[str, SoundEmbeddings]) -> None:
    """Writes splits by their names, whole or not at all."""
    facts, arrays = {}, {}
    for split, one in splits.items():
        facts[split] = [one.clip_ids, one.frame_clips, one.frame_labels, one.caption_clips]
        for name in _ARRAYS:
            arrays[f"{split}/{name}"] = np.ascontiguousarray(getattr(one, name))
    with atomic_path(path) as partial:
        save_file(arrays, partial, metadata={"clips": json.dumps(facts)})


def load_sound_vectors(path: Path) -> dict[str, SoundEmbeddings]:
    """Reads what `save_sound_vectors` wrote.

    Raises:
        BrewlineError: the file is missing or damaged.
    """
    try:
        with safe_open(path, "np") as file:
            facts = json.loads(file.metadata()["clips"])
            splits = {}
            for split, (clip_ids, frame_clips, labels, caption_clips) in facts.items():
                of = {name: file.get_tensor(f"{split}/{name}") for name in _ARRAYS}
                splits[split] = SoundEmbeddings(
                    clip_ids=clip_ids,
                    frame_clips=frame_clips,
                    frame_labels=labels,
                    caption_clips=caption_clips,
                    **of,
                )
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise BrewlineError(f"{path} is missing or damaged: {error}; run `dvc repro`") from None
    for split, one in splits.items():
        numbers = [len(each) for each in (one.clip_ids, one.frame_clips, one.frame_labels)]
        rows = [len(one.sounds), len(one.frames), len(one.segments)]
        if numbers != rows or len(one.caption_clips) != len(one.captions):
            raise BrewlineError(
                f"{path} has other numbers of vectors of {split} than it says; run `dvc repro`"
            )
    return splits


def holds_sound_vectors(path: Path) -> bool:
    """Whether a file of partial work is there and whole."""
    try:
        return bool(load_sound_vectors(path))
    except BrewlineError:
        return False
