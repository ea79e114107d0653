"""The facts of a corpus: what its recordings and pictures are, before anything is judged.

Rows are in the order of the archives that the files lie in. A file that could not be decoded has
its reason, and no facts.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from brewline.tables.parquet import BOOL, FLOAT, INT, TEXT, table_schema

# The level of nothing, so that levels are finite.
FLOOR_DBFS = -200.0

RECORDINGS = table_schema(
    path=TEXT,
    reason=[TEXT],
    detail=[TEXT],
    # Of the bytes; `content` is alike for the same samples in another lossless container.
    sha256=[TEXT],
    content=[TEXT],
    duration_s=[FLOAT],
    promised_duration_s=[FLOAT],
    has_end=[BOOL],
    sample_rate_hz=[INT],
    num_channels=[INT],
    num_samples=[INT],
    num_non_finite=[INT],
    num_clipped=[INT],
    low=[FLOAT],
    high=[FLOAT],
    mean=[FLOAT],
    rms_dbfs=[FLOAT],
    mono_peak=[FLOAT],
    level_dbfs=[FLOAT],
    noise_dbfs=[FLOAT],
    burst_share=[FLOAT],
    loudness_lufs=[FLOAT],
    speech_share=[FLOAT],
)

PICTURES = table_schema(
    path=TEXT,
    reason=[TEXT],
    detail=[TEXT],
    sha256=[TEXT],
    # A perceptual hash of what one sees: 64 bits as hexadecimal digits.
    content=[TEXT],
    width_px=[INT],
    height_px=[INT],
    mode=[TEXT],
    orientation=[INT],
    format=[TEXT],
)

VIDEOS = table_schema(
    path=TEXT,
    reason=[TEXT],
    detail=[TEXT],
    duration_s=[FLOAT],
    frames_per_s=[FLOAT],
    width_px=[INT],
    height_px=[INT],
    rotation=[INT],
    num_asked=[INT],
    num_found=[INT],
    picture_change=[FLOAT],
)


@dataclass(frozen=True, slots=True)
class RecordingFacts:
    """A recording in numbers; amplitudes are shares of full scale, over all channels.

    `low`, `high`, `mean` and `num_clipped` are over the finite samples, and 0 where there are none.
    `mono_peak`, levels and bursts are of the mean of the channels, which is what Whisper hears.
    """

    sha256: str
    content: str
    duration_s: float
    promised_duration_s: float
    # False where the container has an end mark and it is missing: cut off, or never closed.
    has_end: bool
    sample_rate_hz: int
    num_channels: int
    num_samples: int
    num_non_finite: int
    num_clipped: int
    low: float
    high: float
    mean: float
    rms_dbfs: float
    mono_peak: float
    # Of frames of 20 ms: what nineteen of twenty stay below, and what nine of ten stay above.
    level_dbfs: float
    noise_dbfs: float
    # The share of the energy that falls into the loudest 60 ms.
    burst_share: float
    # Integrated, after ITU-R BS.1770-4; None where no 400 ms of it are above -70 LUFS.
    loudness_lufs: float | None
    # The share of the time in which somebody speaks, where that was asked for.
    speech_share: float | None = None


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """A picture that opened fully.

    `content` is a hash of what one sees, 16 hexadecimal digits: of a picture in another size or
    format it differs in few of its 64 bits; a picture of one colour has none. Width and height are
    those of the picture upright; `orientation` is how it is stored (EXIF, 1 to 8).
    """

    sha256: str
    content: str | None
    width_px: int
    height_px: int
    mode: str
    orientation: int
    format: str


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """The picture track of a video, of which some pictures are looked at, evenly over the whole.

    Width and height are those of the picture upright; `rotation` is by how many degrees it is
    turned for that, anticlockwise. `duration_s` is that of the sound or of the pictures, whichever
    end later.
    """

    duration_s: float
    frames_per_s: float
    width_px: int
    height_px: int
    rotation: int
    # Pictures that were looked for, and those that there are.
    num_asked: int
    num_found: int
    # By how much the part of the picture that changes most does so from one of them to the next,
    # from 0 to 255; parts are 32 x 32.
    picture_change: float


def dbfs(amplitude: ArrayLike) -> Any:
    """Shares of full scale, of any shape, as levels."""
    return 20 * np.log10(np.maximum(amplitude, 10 ** (FLOOR_DBFS / 20)))
