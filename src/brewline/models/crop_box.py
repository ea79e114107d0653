"""Which part of a picture a CLIP sees; to know a box needs no torch."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from brewline.core.errors import BrewlineError

if TYPE_CHECKING:
    from brewline.models.backbones import ClipBackbone


@dataclass(frozen=True)
class CropBox:
    """The part of a picture that a model sees, in shares of its width and height."""

    left: float
    top: float
    width: float
    height: float

    @property
    def lost(self) -> float:
        """The share of the picture that lies outside."""
        return 1 - self.width * self.height


def crop_box(backbone: "ClipBackbone", width_px: int, height_px: int) -> CropBox:
    """Where in a picture of a size the square lies that the CLIP's own preprocessing crops.

    Raises:
        BrewlineError: it does something else than to scale the short side and to crop the centre,
            or to squash the picture into a square.
    """
    from torchvision.transforms import CenterCrop, Resize

    resize, crop, *_ = backbone.preprocess.transforms  # type: ignore[attr-defined]
    if isinstance(resize, Resize) and not isinstance(resize.size, int):
        return CropBox(0, 0, 1, 1)
    if not isinstance(resize, Resize) or not isinstance(crop, CenterCrop):
        raise BrewlineError(
            "which part of a picture this CLIP sees is not known; use one whose resize_mode (in "
            "open_clip_config.json) is shortest or squash",
            "settings",
        )
    side, short = resize.size, min(width_px, height_px)
    # As torchvision rounds.
    width, height = (int(side * length / short) for length in (width_px, height_px))
    left, top = (round((length - side) / 2) for length in (width, height))
    return CropBox(left / width, top / height, side / width, side / height)
