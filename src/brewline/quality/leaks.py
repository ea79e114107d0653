"""What two splits share: recordings with the same samples, pictures that look alike."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from brewline.quality.verdicts import Verdict
from brewline.tables.listing import SPLITS, Listing

# Bits in which the hashes of two pictures that look alike differ at most. A picture that was packed
# again, or made smaller, differs in none or two; of 8,000 photographs hardly two are this close.
_MOST_BITS = 2
# Cut into one part more than bits may differ, two such hashes agree in a part.
_PARTS = np.array([(1 << 22) - 1, ((1 << 21) - 1) << 22, ((1 << 21) - 1) << 43], np.uint64)


@dataclass(frozen=True)
class Leaks:
    """What dev and test have that an earlier split has: its name, and that of the earlier one."""

    num_recordings: int
    num_pictures: int
    recordings: list[tuple[str, str]]
    pictures: list[tuple[str, str]]

    @property
    def recordings_rate(self) -> float:
        """Of the recordings of dev and test."""
        return len(self.recordings) / max(self.num_recordings, 1)

    @property
    def pictures_rate(self) -> float:
        """Of the pictures of dev and test."""
        return len(self.pictures) / max(self.num_pictures, 1)


@dataclass
class LeakFinder:
    """Looks at good utterances as they come."""

    # The first utterance with this content.
    _recordings: dict[int, Listing] = field(default_factory=dict)
    _pictures: dict[str, tuple[int, str]] = field(default_factory=dict)
    _leaked: list[tuple[str, str]] = field(default_factory=list)
    _num_recordings: int = 0

    def add(self, verdict: Verdict) -> None:
        """Looks at the next one."""
        row, split = verdict.listing, SPLITS.index(verdict.listing.split)
        self._num_recordings += split > 0
        first = self._recordings.setdefault(verdict.audio_content, row)
        if first.split != row.split:
            earlier, later = sorted((first, row), key=lambda one: SPLITS.index(one.split))
            self._leaked.append((later.utterance_id, earlier.utterance_id))
        if row.image_path and verdict.image_content:
            self._pictures.setdefault(row.image_path, (split, verdict.image_content))

    def found(self) -> Leaks:
        """What leaks."""
        names = list(self._pictures)
        splits = np.array([split for split, _ in self._pictures.values()], np.int64)
        hashes = [int(content, 16) for _, content in self._pictures.values()]
        pairs = alike(np.array(hashes, np.uint64))
        pictures: dict[str, str] = {}
        for one, other in pairs[splits[pairs[:, 0]] != splits[pairs[:, 1]]]:
            earlier, later = sorted((one, other), key=lambda place: splits[place])
            pictures.setdefault(names[later], names[earlier])
        num_pictures = int((splits > 0).sum())
        return Leaks(self._num_recordings, num_pictures, self._leaked, sorted(pictures.items()))


def alike(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """The places, (num_pairs, 2), of (num_pictures,) hashes that differ in at most two bits."""
    found = [np.zeros((0, 2), np.int64)]
    for part in _PARTS:
        order = np.argsort(hashes & part, kind="stable")
        in_order = hashes[order]
        keys = in_order & part
        # Those that agree in this part lie beside each other.
        for distance in range(1, len(hashes)):
            agree = np.flatnonzero(keys[distance:] == keys[:-distance])
            if not agree.size:
                break
            differing = np.bitwise_count(in_order[agree] ^ in_order[agree + distance])
            close = agree[differing <= _MOST_BITS]
            found.append(np.stack([order[close], order[close + distance]], axis=1))
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
