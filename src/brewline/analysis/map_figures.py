"""Maps of what is attended to, as SVG files that bring everything with them."""

import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from brewline.analysis.attended import Weights
from brewline.models.crop_box import CropBox
from brewline.pages.render import data_uri

# The colour of what is attended to, and its opacity where it is most.
_COLOUR = (213, 94, 0)
_OPACITY = 0.78
_SMOOTHER = 12
SOUND_WIDTH, _SOUND_HEIGHT, _STRIP, _TEXT_LINE = 720, 120, 22, 15
# How wide a letter is at most, so that words beside one another can be told apart.
_LETTER = 6.2
_NUM_LINES = 3


def draw_picture_map(
    thumbnail: bytes, width: int, height: int, views: Sequence[tuple[Weights, CropBox]]
) -> str:
    """A picture with what is attended to laid over it, and what is not seen in the shade.

    Args:
        thumbnail: The whole picture, a JPEG.
        width: Of the thumbnail in pixels.
        height: The same.
        views: Of each part that the model sees its patches (rows, columns), and where it lies.
    """
    # The parts together are one rectangle: they stand side by side.
    left, right = (end * width for end in _span([(one.left, one.width) for _, one in views]))
    top, bottom = (end * height for end in _span([(one.top, one.height) for _, one in views]))
    most = max(float(patches.max(initial=0)) for patches, _ in views)
    overlays = "".join(_overlay(patches, box, width, height, most) for patches, box in views)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">'
        f'<image width="{width}" height="{height}" href="{data_uri("image/jpeg", thumbnail)}"/>'
        f'<path fill="#000" fill-opacity=".55" fill-rule="evenodd" d="M0 0H{width}V{height}H0Z'
        f'M{left:.2f} {top:.2f}H{right:.2f}V{bottom:.2f}H{left:.2f}Z"/>'
        f"{overlays}</svg>"
    )


def _span(ends: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(start for start, _ in ends), max(start + length for start, length in ends)


def _overlay(patches: Weights, box: CropBox, width: int, height: int, most: float) -> str:
    frame = (
        f'x="{box.left * width:.2f}" y="{box.top * height:.2f}" '
        f'width="{box.width * width:.2f}" height="{box.height * height:.2f}"'
    )
    uri = data_uri("image/png", overlay_png(patches, most))
    return f'<image {frame} preserveAspectRatio="none" href="{uri}"/>'


def overlay_png(weights: Weights, most: float) -> bytes:
    """Weights (rows, columns) as a picture that is opaque where they are `most`."""
    return _png(_relative(weights, most) * _OPACITY, _SMOOTHER)


def _relative(weights: Weights, most: float) -> Weights:
    """As shares of the largest one; nothing where all are nothing."""
    return weights / (most or 1.0)


def _png(opacities: Weights, smoother: int = 1) -> bytes:
    rows, columns = opacities.shape
    pixels = np.empty((rows, columns, 4), np.uint8)
    pixels[..., :3] = _COLOUR
    pixels[..., 3] = np.rint(255 * opacities.clip(0, 1))
    image = Image.fromarray(pixels)
    if smoother > 1:
        size = (smoother * columns, smoother * rows)
        image = image.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def draw_sound_map(
    loudness: Weights,
    duration_s: float,
    frames: Weights,
    frame_s: float,
    words: Sequence[Mapping[str, Any]],
) -> str:
    """A recording over time, what is attended to below it, and its words where they were said.

    Args:
        loudness: A spectrogram, (frequencies, times).
        duration_s: How long the recording is.
        frames: What is attended to, (T,).
        frame_s: How long a frame is. Those that begin behind the end are left out.
        words: With `word`, `start_s` and `end_s`; may be none.
    """
    shown = frames[: max(1, round(duration_s / frame_s))]
    wide = SOUND_WIDTH * min(1.0, len(shown) * frame_s / duration_s)
    grey = Image.fromarray(np.rint(255 * (1 - 0.85 * loudness)).astype(np.uint8))
    buffer = io.BytesIO()
    grey.save(buffer, "JPEG", quality=60, optimize=True)
    places, num_lines = _word_places(words, duration_s)
    strip_top = _SOUND_HEIGHT + 2
    text_top = strip_top + _STRIP + 4
    axis = text_top + _TEXT_LINE * num_lines
    strip = data_uri("image/png", _png(_relative(shown, shown.max(initial=0))[None]))
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SOUND_WIDTH} {axis + 18}" '
        f'font-family="sans-serif" font-size="11" fill="#8a8177">',
        f'<image width="{SOUND_WIDTH}" height="{_SOUND_HEIGHT}" preserveAspectRatio="none" '
        f'href="{data_uri("image/jpeg", buffer.getvalue())}"/>',
        *(
            f'<image y="{top}" width="{wide:.1f}" height="{high}" preserveAspectRatio="none" '
            f'opacity="{opacity}" href="{strip}"/>'
            for top, high, opacity in ((0, _SOUND_HEIGHT, 0.5), (strip_top, _STRIP, 1))
        ),
        *(
            f'<text x="{left:.1f}" y="{text_top + _TEXT_LINE * line + 10}">{html.escape(text)}'
            "</text>"
            f'<path stroke="#8a8177" stroke-opacity=".5" d="M{left:.1f} {strip_top}V{text_top}"/>'
            for text, left, line in places
        ),
        *(
            f'<text x="{SOUND_WIDTH * second / duration_s:.1f}" y="{axis + 13}" '
            f'text-anchor="middle">{second} s</text>'
            for second in range(1, int(duration_s) + 1, max(1, int(duration_s) // 12))
        ),
        "</svg>",
    ]
    return "".join(parts)


def _word_places(
    words: Sequence[Mapping[str, Any]], duration_s: float
) -> tuple[list[tuple[str, float, int]], int]:
    """The places of words, (text, left, line), and how many lines they take.

    What has no place beside the others is left out.
    """
    ends = [0.0] * _NUM_LINES
    places = []
    for word in words:
        left = SOUND_WIDTH * word["start_s"] / duration_s
        line = next((line for line, end in enumerate(ends) if end <= left), None)
        if line is not None:
            ends[line] = left + _LETTER * (len(word["word"]) + 1)
            places.append((word["word"], left, line))
    return places, 1 + max((line for _, _, line in places), default=-1)
