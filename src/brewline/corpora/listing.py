"""What a reader says of one utterance, and what the readers share."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from brewline.archives import MediaStore
from brewline.errors import BrewlineError


@dataclass(frozen=True)
class Listing:
    """One utterance as its corpus lists it; nothing of it has been opened yet.

    Paths are the published ones. `utterance_id` is unique in its corpus and becomes the shard key,
    so it consists of letters, digits, `_` and `-`.
    """

    utterance_id: str
    split: str
    audio_path: str
    speaker_id: str
    image_id: str | None = None
    image_path: str | None = None
    caption: str | None = None
    emotion: str | None = None
    intensity: str | None = None


def held_out(groups: Iterable[str], fraction: float) -> set[str]:
    """Chooses which images (or speakers) of the training part become the dev split.

    The choice depends on the names alone: it is the same on every machine, whatever the order of
    the files.

    Args:
        groups: Names; duplicates count once.
        fraction: Share to choose, rounded to the nearest whole number of groups.
    """
    ordered = sorted(set(groups), key=lambda name: hashlib.sha256(name.encode()).digest())
    return set(ordered[: round(fraction * len(ordered))])


def one_file(store: MediaStore, *names: str) -> str:
    """Returns the first of several names under which a file is published.

    Raises:
        BrewlineError: none of them is there.
    """
    for name in names:
        if name in store:
            return name
    raise BrewlineError(f"{store.root} has no {' or '.join(names)}")


def stem(path: str) -> str:
    """The file name of a path without its suffix."""
    return PurePosixPath(path).stem
