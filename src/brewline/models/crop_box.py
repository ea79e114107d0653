"""A part of a picture; to know one needs no torch."""

from dataclasses import dataclass


@dataclass(frozen=True)
class CropBox:
    """A part of a picture, in shares of its width and height; it may reach beyond its edges."""

    left: float
    top: float
    width: float
    height: float

    @property
    def lost(self) -> float:
        """The share of the picture that lies outside, of a part that lies in it."""
        return 1 - self.width * self.height


def middle_square(width_px: int, height_px: int) -> CropBox:
    """The largest square in the middle of a picture, which is all that a crop leaves of it."""
    short = min(width_px, height_px)
    width, height = short / width_px, short / height_px
    return CropBox((1 - width) / 2, (1 - height) / 2, width, height)
