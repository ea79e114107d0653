"""A picture in numbers."""

import hashlib
import io
import warnings
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from brewline.tables.facts import PictureFacts

# Others are not asked: some decoders of Pillow start programs.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_ORIENTATION_TAG = 0x0112
_UPRIGHT = 1
# A perceptual hash: of so many pixels a side, the signs of so many of the lowest frequencies.
_HASH_SIDE_PX = 32
_HASH_FREQUENCIES = 8
# Of the pixels, from 0 to 255: what packing a picture of one colour as JPEG leaves is less.
_LEAST_DEVIATION = 2.0


class PictureError(Exception):
    """These bytes are not a picture that can be opened."""


def read_picture_facts(content: bytes) -> PictureFacts:
    """Opens a picture fully.

    Raises:
        PictureError: it cannot be opened.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of a decompression bomb before it refuses one; both end here.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                image.load()
                return PictureFacts(
                    sha256=hashlib.sha256(content).hexdigest(),
                    content=perceptual_hash(image),
                    width_px=image.width,
                    height_px=image.height,
                    mode=image.mode,
                    orientation=int(image.getexif().get(_ORIENTATION_TAG, _UPRIGHT)),
                    format=str(image.format),
                )
    except UnidentifiedImageError:
        # Its own message names an address in memory, which no two runs share.
        start = content[:16].decode("ascii", "backslashreplace")
        raise PictureError(f"no known image format; starts with {start!r}") from None
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise whatever they stumble over
        raise PictureError(str(error) or type(error).__name__) from None


def perceptual_hash(image: Image.Image) -> str | None:
    """The signs of the lowest frequencies of a picture in grey, against their median.

    This is the hash that is called pHash: a discrete cosine transform (type II) of 32 x 32 pixels,
    of which the 8 x 8 lowest frequencies are kept.

    Returns:
        None for a picture of one colour, of which the rounding of its pixels would decide.
    """
    small = image.convert("RGB").convert("L").resize((_HASH_SIDE_PX, _HASH_SIDE_PX))
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
