"""What is attended to in a recording and its picture, in numbers and drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]


@dataclass(frozen=True)
class AttentionMaps:
    """What the similarity of a recording and a picture rests on; none of it is negative.

    `patches` (rows, columns) of each square that is seen of the picture; `words` of the text as the
    tokeniser has them, as far as they are read, and `word_weights` (W,); `frames` (T,) of the
    recording, each `frame_s` long. Of a channel that the model does not have there is None.
    """

    similarity: float
    patches: Sequence[Weights]
    words: Sequence[str] | None = None
    word_weights: Weights | None = None
    frames: Weights | None = None
    frame_s: float | None = None


@dataclass(frozen=True)
class AttendedQuery:
    """A recording of test with its maps, and the figures of them as SVG."""

    utterance_id: str
    image_id: str
    row: str
    rank: int
    maps: AttentionMaps
    picture: str
    sound: str | None
