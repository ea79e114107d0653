"""A picture in numbers."""

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from brewline.media.pictures import open_picture
from brewline.tables.facts import PictureFacts

# A perceptual hash: of so many pixels a side, the signs of so many of the lowest frequencies.
_HASH_SIDE_PX = 32
_HASH_FREQUENCIES = 8
# Of the pixels, from 0 to 255: what packing a picture of one colour as JPEG leaves is less.
_LEAST_DEVIATION = 2.0


def read_picture_facts(content: bytes, max_megapixels: float) -> PictureFacts:
    """Opens a picture fully.

    Args:
        content: The file.
        max_megapixels: A larger one is not decoded.

    Raises:
        PictureError: it cannot be opened, or is too large; see `brewline.media.pictures`.
    """
    picture = open_picture(content, max_megapixels, needed_px=_HASH_SIDE_PX)
    return PictureFacts(
        sha256=hashlib.sha256(content).hexdigest(),
        content=perceptual_hash(picture.pixels),
        width_px=picture.width_px,
        height_px=picture.height_px,
        mode=picture.mode,
        orientation=picture.orientation,
        format=picture.format,
    )


def perceptual_hash(image: Image.Image) -> str | None:
    """The signs of the lowest frequencies of a picture in grey, against their median.

    This is the hash that is called pHash: a discrete cosine transform (type II) of 32 x 32 pixels,
    of which the 8 x 8 lowest frequencies are kept.

    Returns:
        None for a picture of one colour, of which the rounding of its pixels would decide.
    """
    small = image.convert("L").resize((_HASH_SIDE_PX, _HASH_SIDE_PX))
    grey = np.asarray(small, np.float64)
    if grey.std() < _LEAST_DEVIATION:
        return None
    low = _cosines() @ grey @ _cosines().T
    bits = (low > np.median(low)).reshape(-1)
    return np.packbits(bits).tobytes().hex()


@cache
def _cosines() -> NDArray[np.float64]:
    """The rows of the transform: (frequencies, pixels)."""
    frequencies, pixels = np.arange(_HASH_FREQUENCIES), np.arange(_HASH_SIDE_PX) + 0.5
    waves: NDArray[np.float64] = np.cos(np.pi / _HASH_SIDE_PX * np.outer(frequencies, pixels))
    return waves
