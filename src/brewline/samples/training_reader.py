"""Training utterances by their numbers in one endless order, each read from its place in a shard.

The order depends on the seed alone, so that any number of processes take their rows of the same
batches, and a batch is known by its number.
"""

import mmap
import tarfile
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from brewline.core.errors import BrewlineError
from brewline.core.system import load_mapped
from brewline.samples.shards import (
    decode_states,
    explained,
    make_utterance,
    require_parallel,
    shards_of,
)
from brewline.samples.utterance import BadSampleError, Utterance

_MEND = "run `dvc checkout --force`"
# Shards that are open at a time: mostly a batch lies in fewer.
_OPEN_SHARDS = 4


class Place(NamedTuple):
    """Row `row` of shard `shard`, both counted from 0."""

    shard: int
    row: int


class TrainingOrder:
    """The endless order of one seed: epoch after epoch, each utterance once in each.

    An epoch permutes the shards, and the utterances inside each shard, so that one or two shards
    are read at a time. Rows are spread over shards by a hash of their ids, so that those of one
    shard are a random sample already.

    Args:
        counts: How many utterances each shard holds.
        seed: Determines the order.
    """

    def __init__(self, counts: Sequence[int], seed: int) -> None:
        self._counts = np.array(counts)
        self._seed = seed

    def __len__(self) -> int:
        """How many utterances an epoch has."""
        return int(self._counts.sum())

    def places(self, start: int, stop: int) -> list[Place]:
        """Where utterances number `start` to `stop` (exclusive) lie."""
        found: list[Place] = []
        while (at := start + len(found)) < stop:
            epoch, offset = divmod(at, len(self))
            shards = np.random.default_rng([self._seed, epoch]).permutation(len(self._counts))
            ends = self._counts[shards].cumsum()
            turn = int(np.searchsorted(ends, offset, side="right"))
            shard = int(shards[turn])
            order = np.random.default_rng([self._seed, epoch, turn]).permutation(
                self._counts[shard]
            )
            first = offset - int(ends[turn] - self._counts[shard])
            rows = order[first : first + stop - at]
            found += [Place(shard, int(row)) for row in rows]
        return found


class TrainingReader:
    """Reads training utterances from their places in the shards of a corpus.

    Args:
        shards_dir: `data/shards/<corpus>`.
        states_dir: `data/states/<corpus>`, to get the encoder states too.

    Raises:
        BrewlineError: there are none.
    """

    def __init__(self, shards_dir: Path, states_dir: Path | None) -> None:
        self._shards_dir, self._states_dir = shards_dir, states_dir
        self._entries = shards_of(shards_dir, "train")
        if not self._entries:
            raise BrewlineError(f"{shards_dir} has no training utterances")
        self._open = lru_cache(_OPEN_SHARDS)(self._open_shard)

    def read(self, seed: int, start: int, stop: int) -> list[Utterance]:
        """The utterances number `start` to `stop` (exclusive) in the order of a seed.

        Raises:
            BrewlineError: a shard is missing, damaged, or not parallel to its states; a
                `BadSampleError` if only a sample is.
        """
        counts = [entry["num_utterances"] for entry in self._entries]
        return [self._read(place) for place in TrainingOrder(counts, seed).places(start, stop)]

    def _read(self, place: Place) -> Utterance:
        samples, states = self._open(place.shard)
        key, members = samples.read(place.row)
        frames = None
        if states is not None:
            frames = decode_states({"__key__": key, **states.read(place.row)[1]}, self._states_dir)
        fields = {name: bytes(one) for name, one in members.items()}
        return make_utterance(key, fields, frames, self._shards_dir)

    def _open_shard(self, shard: int) -> "tuple[_Members, _Members | None]":
        entry = self._entries[shard]
        samples = _Members(self._shards_dir / entry["file"], entry["num_utterances"])
        if self._states_dir is None:
            return samples, None
        states = _Members(self._states_dir / entry["file"], entry["num_utterances"])
        for key, parallel in zip(samples.keys, states.keys, strict=True):
            require_parallel(key, parallel, self._states_dir / entry["file"])
        return samples, states


class _Members:
    """The samples of one tar, each by its number."""

    def __init__(self, path: Path, num_samples: int) -> None:
        self._path = path
        places: dict[str, dict[str, tuple[int, int]]] = {}
        with explained(path), path.open("rb") as file:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for member in archive:
                    key, _, field = member.name.partition(".")
                    places.setdefault(key, {})[field] = (member.offset_data, member.size)
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        # States are copied once, from there to their place in a batch.
        self._content = memoryview(self._map)
        self._loaded: set[int] = set()
        self._places = list(places.values())
        self.keys = list(places)
        if len(self.keys) != num_samples:
            raise BrewlineError(
                f"{path} holds {len(self.keys)} utterances instead of {num_samples}; it is "
                f"damaged: {_MEND}"
            )

    def read(self, number: int) -> tuple[str, dict[str, memoryview]]:
        """The key of a sample, and its fields by their endings, where they lie.

        Raises:
            BrewlineError: the shard ends there; a `BadSampleError` if the disk cannot read it.
        """
        key = self.keys[number]
        fields: dict[str, memoryview] = {}
        with explained(self._path):
            for field, (offset, size) in self._places[number].items():
                fields[field] = self._content[offset : offset + size]
                if len(fields[field]) < size:
                    raise EOFError(f"it ends within {key}.{field}")
        # In memory for as long as the shard is open, mostly: asking takes as long as copying.
        if number not in self._loaded:
            self._load(number)
        return key, fields

    def _load(self, number: int) -> None:
        """Reads a sample from the disk, so that what it cannot read does not end the process."""
        try:
            for offset, size in self._places[number].values():
                load_mapped(self._map, offset, size)
        except OSError as error:
            key = self.keys[number]
            raise BadSampleError(
                key, f"{self._path} cannot be read at {key!r} ({error}): {_MEND}"
            ) from None
        self._loaded.add(number)
