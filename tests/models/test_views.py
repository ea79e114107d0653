"""What a model sees of a picture that is no square, and where in the picture that lies."""

import io
import itertools
from dataclasses import replace

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tiny_models import STATE_WIDTH, make_world, variant

from brewline.config.variants import PictureViews
from brewline.core.errors import BrewlineError
from brewline.models.backbones import ClipBackbone, make_backbone
from brewline.models.brewclip import BrewClip
from brewline.models.crop_box import CropBox, middle_square
from brewline.models.transforms import input_transforms
from brewline.models.views import picture_views, seen_parts
from brewline.samples.collator import Collator

MODES: list[PictureViews] = ["own", "crop", "letterbox", "squash", "multicrop"]


def clip_of(side: int, resize_mode: str = "shortest") -> ClipBackbone:
    preprocess = image_transform_v2(PreprocessCfg(size=side, resize_mode=resize_mode), False)
    vision = {"image_size": side, "layers": 1, "width": 8, "patch_size": 16, "head_width": 8}
    text = {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1, "layers": 1}
    tokenizer = open_clip.SimpleTokenizer(context_length=8)
    return make_backbone(open_clip.CLIP(8, vision, text), tokenizer, preprocess)


def seen(
    backbone: ClipBackbone, mode: PictureViews, pixels: NDArray[np.uint8]
) -> list[Image.Image]:
    return list(picture_views(backbone, mode)(Image.fromarray(pixels)))


@pytest.mark.parametrize("size", [(90, 60), (61, 97), (64, 64), (400, 37)])
@pytest.mark.parametrize("side", [32, 112])
@pytest.mark.parametrize("mode", MODES)
def test_a_square_that_is_seen_lies_where_it_was_in_the_picture(
    mode: PictureViews, side: int, size: tuple[int, int]
) -> None:
    """A white square in a black picture goes through the transform, and is sent back."""
    width, height = size
    short = min(size)
    left, top = (width - short) // 2 + short // 4, (height - short) // 2 + short // 3
    square = short // 4
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[top : top + square, left : left + square] = 255
    backbone = clip_of(side)
    views = seen(backbone, mode, pixels)
    boxes = seen_parts(backbone, mode, width, height)
    assert len(views) == len(boxes)
    whole = square**2
    for view, box in zip(views, boxes, strict=True):
        assert view.size == (side, side)
        light = np.asarray(view)[..., 0].astype(float) / 255
        scale = (box.width * width / side, box.height * height / side)
        area = light.sum() * scale[0] * scale[1]
        # Of several, only one that has the square as a whole.
        if mode == "multicrop" and area < 0.85 * whole:
            continue
        rows, columns = (light.sum(axis=axis) / light.sum() for axis in (1, 0))
        places = np.arange(side) + 0.5
        middle = (
            box.left * width + columns @ places * scale[0],
            box.top * height + rows @ places * scale[1],
        )
        room = 0.75 * max(scale) + 0.5
        assert middle == pytest.approx((left + square / 2, top + square / 2), abs=room)
        assert area == pytest.approx(whole, rel=0.2)


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (50, 50), (300, 40)])
def test_everything_is_seen_but_of_a_crop(size: tuple[int, int]) -> None:
    """Which of the corners of a picture a model sees."""
    backbone = clip_of(32)
    for mode in MODES:
        boxes = seen_parts(backbone, mode, *size)
        left, top = min(box.left for box in boxes), min(box.top for box in boxes)
        right = max(box.left + box.width for box in boxes)
        bottom = max(box.top + box.height for box in boxes)
        sees_all = left <= 1e-9 and top <= 1e-9 and min(right, bottom) >= 1 - 1e-9
        assert sees_all == (mode not in ("own", "crop") or size == (50, 50)), mode
        # No gaps.
        for one, other in itertools.pairwise(boxes):
            assert other.left <= one.left + one.width + 1e-9
            assert other.top <= one.top + one.height + 1e-9


def test_parts_are_what_they_are_by_hand() -> None:
    backbone = clip_of(32)
    # Scaled to 48 by 32, or to 32 by 21.
    assert seen_parts(backbone, "own", 96, 64) == [CropBox(8 / 48, 0, 32 / 48, 1)]
    assert seen_parts(backbone, "crop", 64, 96) == [CropBox(0, 8 / 48, 1, 32 / 48)]
    assert seen_parts(backbone, "squash", 96, 64) == [CropBox(0, 0, 1, 1)]
    assert seen_parts(backbone, "letterbox", 96, 64) == [CropBox(0, -5 / 21, 1, 32 / 21)]
    assert seen_parts(backbone, "multicrop", 96, 64) == [
        CropBox(0, 0, 32 / 48, 1),
        CropBox(16 / 48, 0, 32 / 48, 1),
    ]
    assert len(seen_parts(backbone, "multicrop", 40, 40)) == 1
    assert middle_square(64, 128) == CropBox(0, 0.25, 1, 0.5)
    assert middle_square(96, 64).lost == pytest.approx(1 / 3)


def test_own_is_what_the_clip_says(backbone: ClipBackbone) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    for own, mode in (("shortest", "crop"), ("longest", "letterbox"), ("squash", "squash")):
        clip = clip_of(32, own)
        (ours,), (same,) = seen(clip, "own", pixels), seen(clip_of(32), mode, pixels)
        assert np.array_equal(np.asarray(ours), np.asarray(same)), mode
        assert seen_parts(clip, "own", 90, 60) == seen_parts(clip_of(32), mode, 90, 60)


def test_a_preprocessing_that_is_not_known_has_no_parts() -> None:
    backbone = clip_of(32)
    backbone.preprocess.transforms[1] = torch.nn.Identity()
    with pytest.raises(BrewlineError, match="set `pictures` of the variant"):
        seen_parts(backbone, "own", 96, 64)
    assert seen_parts(backbone, "crop", 96, 64)


def test_what_stands_at_the_edge_is_found(backbone: ClipBackbone) -> None:
    """Two pictures that differ at their left edge alone, as a model that crops cannot tell."""
    worlds = []
    for colour in (0, 255):
        pixels = np.full((40, 80, 3), 120, np.uint8)
        pixels[:, :18] = colour
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        worlds.append(replace(make_world(1)[0], image_id=f"i{colour}", image=buffer.getvalue()))
    found = {}
    for mode in MODES:
        switches = variant(acoustic=None, pictures=mode)
        torch.manual_seed(1)
        model = BrewClip(backbone, switches, (STATE_WIDTH,))
        pictures = Collator(input_transforms(backbone, switches), switches).pictures(worlds)
        one, other = model.encode_images(pictures)
        found[mode] = (one @ other).item()
    for mode, similarity in found.items():
        if mode in ("own", "crop"):
            assert similarity == pytest.approx(1, abs=1e-6)
        else:
            assert similarity < 0.999, mode


def test_squares_of_a_picture_are_averaged(backbone: ClipBackbone) -> None:
    switches = variant(acoustic=None, pictures="multicrop")
    world = make_world(2, takes=1)
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (32, 80, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    long = replace(world[0], image_id="long", image=buffer.getvalue())
    collator = Collator(input_transforms(backbone, switches), switches)
    model = BrewClip(backbone, switches)
    pictures = collator.pictures([world[0], long, world[1]])
    assert pictures.picture_index is not None
    # The world's are of 40 by 48.
    assert pictures.picture_index.tolist() == [0, 0, 1, 1, 1, 2, 2]
    found = model.encode_images(pictures)
    parts = []
    for left in (0, 24, 48):
        buffer = io.BytesIO()
        Image.fromarray(noise[:, left : left + 32]).save(buffer, "PNG")
        square = replace(long, image_id=f"at {left}", image=buffer.getvalue())
        parts.append(model.encode_images(collator.pictures([square]))[0])
    expected = torch.nn.functional.normalize(torch.stack(parts).mean(dim=0), dim=0)
    torch.testing.assert_close(found[1], expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[0], model.encode_images(collator.pictures(world))[0])
