"""Pictures as a person sees them: one door for the shards, a search, a served model and the pages.

A picture is upright (EXIF orientation), in RGB of 8 bits, its greys scaled and not clipped, and
where it is transparent it lies on white. Formats are named to Pillow: some of its decoders, such as
that of EPS, start programs.
"""

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from brewline.config.shard import ShardParams

_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
_BACKGROUND = "white"
# CIPA DC-008 (EXIF 2.32), section 4.6.4: how the stored picture is turned to stand upright.
_ORIENTATION_TAG = 274
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)
# TIFF 6.0: 0 is white.
_PHOTOMETRIC_TAG, _WHITE_IS_ZERO = 262, 0
# The largest values of greys; the first that none exceeds is white.
_WHITES = (1.0, 255.0, 65_535.0)
# A larger JPEG is decoded at a fraction of its size where no more is needed: as a whole, one of 200
# megapixels takes 800 MB.
_WHOLE_PIXELS = 50_000_000
# libjpeg's JPEG_MAX_DIMENSION.
_MAX_JPEG_SIDE_PX = 65_500

# Pillow's limit belongs to the process.
_pillow_limit = threading.Lock()


class PictureError(Exception):
    """These bytes are no picture that can be shown; `reason` is a short code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Picture:
    """A picture as a person sees it.

    `pixels` is upright, in RGB; width and height are those of the whole picture, upright.
    `format`, `mode` and `orientation` (1 to 8) say how it is stored, in Pillow's words.
    """

    pixels: Image.Image
    width_px: int
    height_px: int
    format: str
    mode: str
    orientation: int


def open_picture(
    content: bytes, max_megapixels: float | None = None, needed_px: int | None = None
) -> Picture:
    """Opens a picture fully.

    Args:
        content: JPEG, PNG, WEBP, GIF, BMP or TIFF; of several pictures the first.
        max_megapixels: A larger one is refused before it is decoded; None for one that was let
            through before.
        needed_px: The short side that is needed; a huge JPEG may then come smaller than it is.

    Raises:
        PictureError: `bad_image`, or `large_image`.
    """
    with _opened(content, max_megapixels) as image:
        mode = image.mode
        width, height = image.size
        # That of a TIFF is applied by Pillow itself when it loads.
        stated = _orientation(image) if image.format == "TIFF" else 1
        if needed_px is not None and width * height > _WHOLE_PIXELS:
            # The smallest that is at least twice as large as needed.
            image.draft("RGB", (2 * needed_px, 2 * needed_px))
        image.load()
        turn = _orientation(image)
        rgb = _to_rgb(image)
        if turn in _TURNS:
            rgb = rgb.transpose(_TURNS[turn])
        if turn in _SIDEWAYS:
            width, height = height, width
        return Picture(rgb, width, height, image.format or "", mode, max(stated, turn))


def is_picture(content: bytes) -> bool:
    """Whether the content begins like a picture; it may be damaged."""
    try:
        with _opened(content, None):
            return True
    except PictureError:
        return False


def shrink_jpeg(content: bytes, settings: ShardParams) -> bytes:
    """Returns the picture as a JPEG whose short side is at most `image_short_side_px`.

    A JPEG that is small and upright already is kept to the byte: encoding it again would only lose.

    Raises:
        PictureError: `bad_image`, or `extreme_shape`: no JPEG can be that long.
    """
    short_side = settings.image_short_side_px
    with _opened(content, None) as image:
        is_plain = image.format == "JPEG" and image.mode == "RGB"
        if is_plain and min(image.size) <= short_side and _orientation(image) == 1:
            return content
    return shrink_image(open_picture(content, needed_px=short_side).pixels, settings)


def shrink_image(rgb: Image.Image, settings: ShardParams) -> bytes:
    """Returns pixels as a JPEG whose short side is at most `image_short_side_px`.

    Raises:
        PictureError: `extreme_shape`: no JPEG can be that long.
    """
    short_side = settings.image_short_side_px
    scale = short_side / min(rgb.size)
    if scale < 1:
        size = (round(rgb.width * scale), round(rgb.height * scale))
        rgb = rgb.resize(size, Image.Resampling.BICUBIC)
    if max(rgb.size) > _MAX_JPEG_SIDE_PX:
        raise PictureError("extreme_shape", f"{rgb.width} x {rgb.height} pixels fit in no JPEG")
    return encode_jpeg(rgb, settings.jpeg_quality)


def encode_jpeg(rgb: Image.Image, quality: int, optimize: bool = False) -> bytes:
    """The pixels as a JPEG, with nothing beside them."""
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=quality, optimize=optimize)
    return buffer.getvalue()


@contextmanager
def _opened(content: bytes, max_megapixels: float | None) -> Iterator[Image.Image]:
    """A picture of which the head was read; whatever fails while it is used is `bad_image`."""
    try:
        with _open(content, max_megapixels) as image:
            yield image
    except (PictureError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise PictureError(
            "large_image", f"it has more than {max_megapixels:g} million pixels"
        ) from None
    except UnidentifiedImageError:
        # Its own message names an address in memory, which no two runs share.
        start = content[:16].decode("ascii", "backslashreplace")
        raise PictureError(
            "bad_image", f"no known image format ({', '.join(_FORMATS)}); starts with {start!r}"
        ) from None
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise whatever they stumble over
        raise PictureError("bad_image", str(error) or type(error).__name__) from None


def _open(content: bytes, max_megapixels: float | None) -> Image.Image:
    """Reads the head, under a limit of our own in place of Pillow's."""
    with _pillow_limit, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        before = Image.MAX_IMAGE_PIXELS
        # It warns above its limit, and refuses above twice that.
        Image.MAX_IMAGE_PIXELS = None if max_megapixels is None else int(max_megapixels * 1e6 / 2)
        try:
            return Image.open(io.BytesIO(content), formats=_FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _orientation(image: Image.Image) -> int:
    """How a picture is stored; 1, which is upright, where that is not said or makes no sense."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 - a damaged tag is none, and Pillow raises whatever it meets
        return 1
    return orientation if orientation in _TURNS else 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        grey = _greys(np.asarray(image), is_16_bit=image.mode.startswith("I;16"))
        if getattr(image, "tag_v2", {}).get(_PHOTOMETRIC_TAG) == _WHITE_IS_ZERO:
            grey = 255 - grey
        return Image.fromarray(grey).convert("RGB")
    if image.has_transparency_data:
        # What lies hidden in transparent places is no part of the picture.
        background = Image.new("RGBA", image.size, _BACKGROUND)
        background.alpha_composite(image.convert("RGBA"))
        return background.convert("RGB")
    return image.convert("RGB")


def _greys(values: NDArray[Any], is_16_bit: bool) -> NDArray[np.uint8]:
    """Greys of more than 8 bits, (height, width), brought to 0 to 255.

    Integers of 16 bits are scaled by their type. Others have no scale of their own: white is 1,
    255 or 65,535, whichever is the first that no value exceeds; values beyond that, or below 0,
    are stretched from the least to the greatest. What is no number is black.
    """
    numbers = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = float(numbers.min()), float(numbers.max())
    if is_16_bit:
        low, high = 0.0, _WHITES[-1]
    elif low >= 0 and high <= _WHITES[-1]:
        low, high = 0.0, next(white for white in _WHITES if high <= white)
    # Where all are alike, nothing is stretched.
    scaled: NDArray[np.float32] = (numbers - low) * (255 / ((high - low) or 1.0))
    return scaled.round().clip(0, 255).astype(np.uint8)
