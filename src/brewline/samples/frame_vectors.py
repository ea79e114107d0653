"""The frames of a split as vectors of a frozen tower, computed once and kept on disk.

A folder holds `vectors.f16` (frames, E), unit vectors in half precision, one clip after the other,
and `clips.npy`: the number of each clip, rising, its first row and how many rows it has. Both are
read where they lie, so that two million clips take no memory. `sizes.json` has their sizes, and of
clips with a damaged frame, which have no vectors, their ids and what is wrong.
"""

import mmap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brewline.core.errors import BrewlineError
from brewline.core.files import atomic_path, read_json, write_json
from brewline.core.locks import locked
from brewline.core.system import load_mapped
from brewline.samples.collator import number_of
from brewline.samples.iteration import chunks, make_of_good
from brewline.samples.utterance import BadSampleError, Utterance

_VECTORS, _CLIPS, _SIZES = "vectors.f16", "clips.npy", "sizes.json"
_ROW = np.dtype([("number", "<i8"), ("first", "<i8"), ("count", "<i4")])


class FrameVectors:
    """The vectors of every clip's frames.

    Args:
        folder: What `keep_frame_vectors` wrote.
    """

    def __init__(self, folder: Path) -> None:
        sizes = read_json(folder / _SIZES)
        self.max_frames: int = sizes["max_frames"]
        self._width: int = sizes["width"]
        self.damaged: dict[str, str] = sizes["damaged"]
        with (folder / _VECTORS).open("rb") as file:
            self._mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._vectors = np.frombuffer(self._mapped, np.float16).reshape(-1, self._width)
        self._folder = folder
        self._clips = np.load(folder / _CLIPS, mmap_mode="r")

    def of(self, clips: Sequence[Utterance]) -> Tensor:
        """The vectors of clips, (B, max_frames, E) in fp32, padded with zeros.

        Raises:
            BrewlineError: a clip has other frames than when they were computed; a `BadSampleError`
                if one of them is damaged, or its vectors cannot be read.
        """
        found = torch.zeros(len(clips), self.max_frames, self._width)
        numbers = self._clips["number"]
        for row, clip in zip(found, clips, strict=True):
            if why := self.damaged.get(clip.utterance_id):
                raise BadSampleError(clip.utterance_id, why)
            number = number_of(clip.utterance_id)
            place = int(np.searchsorted(numbers, number))
            known = place < len(numbers) and numbers[place] == number
            first, count = (
                int(self._clips[place][key]) if known else 0 for key in ("first", "count")
            )
            if count != len(clip.frames):
                raise BrewlineError(
                    f"clip {clip.utterance_id!r} has {len(clip.frames)} frames, of which {count} "
                    "were embedded; its shards changed meanwhile: run `dvc repro`"
                )
            row[:count] = torch.from_numpy(self._read(clip, first, count).astype(np.float32))
        return torch.nn.functional.normalize(found, dim=-1)

    def _read(self, clip: Utterance, first: int, count: int) -> NDArray[np.float16]:
        vectors = self._vectors[first : first + count]
        try:
            load_mapped(self._mapped, first * self._vectors.strides[0], vectors.nbytes)
        except OSError as error:
            raise BadSampleError(
                clip.utterance_id,
                f"{self._folder} cannot be read at clip {clip.utterance_id!r} ({error}); remove it",
            ) from None
        return vectors


def keep_frame_vectors(
    folder: Path,
    clips: Callable[[], Iterable[Utterance]],
    embed: Callable[[Sequence[Utterance]], Tensor],
    batch_size: int,
) -> FrameVectors:
    """The vectors of the frames of clips, from disk if those of all clips are there.

    Processes that ask for the same ones wait for the first of them. Clips with a damaged frame are
    looked at by each of them: they may have been mended.

    Args:
        folder: Named by whatever determines the vectors.
        clips: Reads them.
        embed: Gives the vectors of all frames of some clips, one after the other, (frames, E).
        batch_size: Clips at a time.

    Raises:
        BrewlineError: a clip has no frames, or no clip has whole ones.
    """
    with locked(folder.with_name(f"{folder.name}.lock")):
        if not folder.exists() or FrameVectors(folder).damaged:
            with atomic_path(folder) as partial:
                partial.mkdir()
                _write(partial, clips(), embed, batch_size)
        return FrameVectors(folder)


def _write(
    folder: Path,
    clips: Iterable[Utterance],
    embed: Callable[[Sequence[Utterance]], Tensor],
    batch_size: int,
) -> None:
    rows: list[tuple[int, int, int]] = []
    damaged: dict[str, str] = {}
    total = width = 0
    with (folder / _VECTORS).open("wb") as file:
        for batch in chunks(iter(clips), batch_size):
            for clip in batch:
                require_frames(clip)
            vectors, good, bad = make_of_good(embed, batch)
            damaged |= bad
            for clip in good:
                rows.append((number_of(clip.utterance_id), total, len(clip.frames)))
                total += len(clip.frames)
            if vectors is not None:
                width = vectors.shape[1]
                file.write(vectors.half().cpu().numpy().tobytes())
    if not rows:
        raise BrewlineError(next(iter(damaged.values()), "there are no clips to train on"))
    table = np.array(rows, _ROW)
    np.save(folder / _CLIPS, table[np.argsort(table["number"])])
    most = int(table["count"].max())
    sizes = {"width": width, "max_frames": most, "damaged": damaged}
    write_json(folder / _SIZES, sizes)


def require_frames(clip: Utterance) -> None:
    """Makes sure that a clip has pictures.

    Raises:
        BrewlineError: it has none.
    """
    if not clip.frames:
        raise BrewlineError(
            f"clip {clip.utterance_id!r} has no frames; task audio_image needs a corpus of videos",
            "settings",
        )
