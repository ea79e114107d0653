"""What a model sees of a picture that is no square: squares of it, and where in it they lie."""

from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING, Any

from brewline.config.variants import PictureViews
from brewline.core.errors import BrewlineError
from brewline.models.crop_box import CropBox

if TYPE_CHECKING:
    from brewline.models.backbones import ClipBackbone

# The names that open_clip has for them.
_RESIZE_MODES = {"crop": "shortest", "letterbox": "longest", "squash": "squash"}


def picture_views(backbone: "ClipBackbone", pictures: PictureViews) -> Callable[[Any], list[Any]]:
    """From a PIL image to the squares of a model's size that it sees, in RGB.

    Args:
        backbone: Its preprocessing tells size and interpolation.
        pictures: See `brewline.config.variants`.
    """
    steps, side = _steps(backbone, pictures), backbone.image_size

    def one(picture: Any) -> list[Any]:
        for step in steps:
            picture = step(picture)
        return [picture]

    def several(picture: Any) -> list[Any]:
        # The first step scales the short side, the last one converts to RGB.
        scaled = steps[-1](steps[0](picture))
        corners = _corners(scaled.width, scaled.height, side)
        return [scaled.crop((x, y, x + side, y + side)) for x, y in corners]

    return several if pictures == "multicrop" else one


def seen_parts(
    backbone: "ClipBackbone", pictures: PictureViews, width_px: int, height_px: int
) -> list[CropBox]:
    """Where in a picture of a size the squares lie that `picture_views` makes of it.

    Raises:
        BrewlineError: the CLIP's own preprocessing does something that is not known here.
    """
    from open_clip.transform import CenterCropOrPad, ResizeKeepRatio
    from torchvision.transforms import CenterCrop, Resize

    resize, crop, *_ = _steps(backbone, pictures)
    if isinstance(resize, Resize) and not isinstance(resize.size, int):
        return [CropBox(0, 0, 1, 1)]
    if isinstance(resize, Resize) and isinstance(crop, CenterCrop):
        side, short = resize.size, min(width_px, height_px)
        # As torchvision rounds.
        width, height = (int(side * length / short) for length in (width_px, height_px))
        if pictures == "multicrop":
            corners = _corners(width, height, side)
        else:
            corners = [(round((width - side) / 2), round((height - side) / 2))]
    elif isinstance(crop, CenterCropOrPad) and getattr(resize, "longest", None) == 1:
        assert isinstance(resize, ResizeKeepRatio)
        side, long = resize.size[0], max(width_px, height_px)
        width, height = (round(length / (long / side)) for length in (width_px, height_px))
        corners = [(-((side - width) // 2), -((side - height) // 2))]
    else:
        raise BrewlineError(
            "which part of a picture this CLIP sees is not known; set `pictures` of the variant "
            "to another value than own",
            "settings",
        )
    return [CropBox(x / width, y / height, side / width, side / height) for x, y in corners]


def _steps(backbone: "ClipBackbone", pictures: PictureViews) -> list[Any]:
    """The steps from a PIL image to a square one."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    preprocess: Any = backbone.preprocess
    if pictures != "own":
        interpolation = str(preprocess.transforms[0].interpolation.value)
        mode = _RESIZE_MODES.get(pictures, "shortest")
        size = backbone.image_size
        cfg = PreprocessCfg(size=size, interpolation=interpolation, resize_mode=mode)
        preprocess = image_transform_v2(cfg, is_train=False)
    # The last two make a tensor and normalise it, which models do themselves.
    return list(preprocess.transforms[:-2])


def _corners(width: int, height: int, side: int) -> list[tuple[int, int]]:
    """Left and top of the fewest squares that cover a picture whose short side is theirs."""
    beyond = max(width, height) - side
    num_more = ceil(beyond / side)
    places = [round(number * beyond / max(1, num_more)) for number in range(num_more + 1)]
    return [(place, 0) if width > height else (0, place) for place in places]
