"""Training goes on without samples that cannot be read: each is counted, named, and replaced."""

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from brewline.core.errors import BrewlineError
from brewline.samples.utterance import BadSampleError, Utterance

NOTES_FILE = "skipped.jsonl"
# How far on in the endless order the utterance stands that is taken instead. What that one is
# depends on the seed alone, and no other process has to be asked.
_FURTHER_ON = 1 << 40
# Of a small corpus all may be bad, and fewer than may be skipped.
_MAX_TRIES = 100

BatchT = TypeVar("BatchT")

_log = logging.getLogger(__name__)


class SkippedSamples:
    """What a training could not read, in a file that its processes, and its restarts, share.

    Args:
        path: The file.
        limit: With more than so many samples the training ends.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self._path, self.limit = path, limit

    def read(self) -> dict[str, str]:
        """Why each was skipped, by its id."""
        if not self._path.exists():
            return {}
        rows = map(json.loads, self._path.read_text(encoding="utf-8").splitlines())
        return {row["utterance_id"]: row["why"] for row in rows}

    def add(self, bad: BadSampleError) -> None:
        """Notes a sample.

        Raises:
            BrewlineError: there are too many.
        """
        known = self.read()
        if bad.utterance_id in known:
            return
        if len(known) >= self.limit:
            raise BrewlineError(
                f"{bad}; more samples than runtime.max_skipped_samples ({self.limit}) cannot be "
                "read: run `dvc checkout --force`, or `dvc repro` to make them again"
            ) from None
        _log.warning("%s; another sample takes its place", bad)
        row = {"utterance_id": bad.utterance_id, "why": str(bad)}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


class GoodSamples:
    """Batches of training, with other utterances in place of those that cannot be read.

    Args:
        read: Utterances from one number to another in the order of a seed.
        seed: Determines the order.
        skipped: Notes what was left out.
    """

    def __init__(
        self,
        read: Callable[[int, int, int], list[Utterance]],
        seed: int,
        skipped: SkippedSamples,
    ) -> None:
        self._read, self._seed, self._skipped = read, seed, skipped

    def batch(
        self, start: int, stop: int, collate: Callable[[Sequence[Utterance]], BatchT]
    ) -> BatchT:
        """What a function makes of the utterances number `start` to `stop` (exclusive).

        Raises:
            BrewlineError: too many cannot be read.
        """
        try:
            return collate(self._read(self._seed, start, stop))
        except BadSampleError:
            # Which they are is found out one by one.
            return collate([self._good(number, collate) for number in range(start, stop)])

    def _good(self, number: int, collate: Callable[[Sequence[Utterance]], BatchT]) -> Utterance:
        for tries in range(_MAX_TRIES):
            place = number + tries * _FURTHER_ON
            try:
                (utterance,) = self._read(self._seed, place, place + 1)
                collate([utterance])
            except BadSampleError as bad:
                self._skipped.add(bad)
                last = bad
            else:
                return utterance
        raise last
