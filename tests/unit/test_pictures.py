"""A picture is what a person sees, wherever it goes: shard, search, served model, page."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from brewline.config.shard import ShardParams
from brewline.config.validate import ValidateParams
from brewline.core.errors import BrewlineError
from brewline.media.pictures import PictureError, is_picture, open_picture, shrink_jpeg
from brewline.pages.album import thumbnail
from brewline.quality.queries import check_image

PROJECT = Path(__file__).parents[2]
VALUES = yaml.safe_load((PROJECT / "params.yaml").read_text())
LIMITS = ValidateParams(**VALUES["validate"])
SHARD = ShardParams(**VALUES["shard"])
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# How a camera stores an upright picture under each orientation: the turn that undoes it is EXIF's.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def corners(width: int = 120, height: int = 80) -> Image.Image:
    """Four quarters: red, green, blue and white, from the left and from the top."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    image.paste(WHITE, (width // 2, height // 2, width, height))
    return image


def turned(orientation: int, format: str, size: tuple[int, int] = (120, 80)) -> bytes:
    image = corners(*size)
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[274] = orientation
    return encode(image if turn is None else image.transpose(turn), format, exif=exif)


def assert_upright(image: Image.Image) -> None:
    width, height = image.size
    assert width > height
    for (x, y), colour in {(0.2, 0.2): RED, (0.8, 0.2): GREEN, (0.2, 0.8): BLUE,
                           (0.8, 0.8): WHITE}.items():  # fmt: skip
        found = image.convert("RGB").getpixel((round(x * width), round(y * height)))
        np.testing.assert_allclose(found, colour, atol=30)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_picture_stands_upright_everywhere(format: str, orientation: int) -> None:
    content = turned(orientation, format)
    opened = open_picture(content)
    assert (opened.width_px, opened.height_px) == opened.pixels.size == (120, 80)
    assert (opened.format, opened.mode, opened.orientation) == (format, "RGB", orientation)
    assert_upright(opened.pixels)
    # In a shard and in front of a model, and in the pages.
    assert_upright(Image.open(io.BytesIO(shrink_jpeg(content, SHARD))))
    assert_upright(Image.open(io.BytesIO(thumbnail(content, "x")[0])))
    large = Image.open(io.BytesIO(shrink_jpeg(turned(orientation, format, (900, 600)), SHARD)))
    assert large.size == (432, 288)
    assert_upright(large)
    # Not turned once more by whoever looks at the shard.
    assert large.getexif().get(274, 1) == 1


def test_a_phone_photo_and_its_upright_copy_are_one_picture() -> None:
    photo = np.asarray(open_picture(turned(6, "JPEG")).pixels, np.float64)
    copy = np.asarray(open_picture(turned(1, "JPEG")).pixels, np.float64)
    assert np.abs(photo - copy).mean() < 3


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_makes_no_sense_is_none(value: int) -> None:
    exif = Image.Exif()
    exif[274] = value
    opened = open_picture(encode(corners(), "JPEG", exif=exif))
    assert opened.orientation == 1
    assert_upright(opened.pixels)


def test_a_damaged_exif_block_costs_no_picture() -> None:
    jpeg = encode(corners(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(range(40)))
    assert_upright(open_picture(jpeg).pixels)
    assert check_image(jpeg, LIMITS).fault is None


def test_a_small_upright_jpeg_is_kept_to_the_byte_and_no_other() -> None:
    plain = encode(corners(), "JPEG")
    assert shrink_jpeg(plain, SHARD) is plain
    assert shrink_jpeg(turned(1, "JPEG"), SHARD) == turned(1, "JPEG")
    for other in (turned(6, "JPEG"), encode(corners()), encode(corners().convert("L"), "JPEG"),
                  encode(corners(400, 300), "JPEG")):  # fmt: skip
        packed = shrink_jpeg(other, SHARD)
        assert packed != other
        with Image.open(io.BytesIO(packed)) as image:
            assert (image.format, image.mode) == ("JPEG", "RGB")
            assert min(image.size) <= SHARD.image_short_side_px


def grey_png_16(values: np.ndarray) -> bytes:
    """A PNG of 16-bit greys, written by hand."""

    def chunk(name: bytes, body: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + body))
        return struct.pack(">I", len(body)) + name + body + checksum

    height, width = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    )


SLOPE = np.linspace(0, 1, 64 * 48).reshape(48, 64)


@pytest.mark.parametrize(
    ("content", "mode"),
    [
        (grey_png_16(SLOPE * 65_535), "I;16"),
        (encode(Image.fromarray((SLOPE * 65_535).astype(np.uint16)), "TIFF"), "I;16"),
        (encode(Image.fromarray((SLOPE * 65_535).astype(np.int32)), "TIFF"), "I"),
        (encode(Image.fromarray((SLOPE * 255).astype(np.int32)), "TIFF"), "I"),
        (encode(Image.fromarray(SLOPE.astype(np.float32)), "TIFF"), "F"),
        (encode(Image.fromarray((SLOPE * 255).astype(np.float32)), "TIFF"), "F"),
        (encode(Image.fromarray((SLOPE * 65_535).astype(np.float32)), "TIFF"), "F"),
        (encode(Image.fromarray((SLOPE * 9e6 - 4e6).astype(np.float32)), "TIFF"), "F"),
    ],
)
def test_greys_of_many_bits_are_scaled_and_not_clipped_to_white(content: bytes, mode: str) -> None:
    opened = open_picture(content)
    assert opened.mode == mode
    np.testing.assert_allclose(np.asarray(opened.pixels)[..., 1], SLOPE * 255, atol=1.01)
    assert check_image(content, LIMITS).fault is None


def test_a_dark_picture_of_16_bits_stays_dark() -> None:
    opened = open_picture(grey_png_16(SLOPE * 1000))
    assert np.asarray(opened.pixels).max() == 4


def test_a_negative_of_16_bits_is_turned_and_what_is_no_number_is_black() -> None:
    values = (SLOPE * 65_535).astype(np.uint16)
    negative = encode(Image.fromarray(values), "TIFF", tiffinfo={262: 0})
    np.testing.assert_allclose(
        np.asarray(open_picture(negative).pixels)[..., 0], 255 - SLOPE * 255, atol=1.01
    )
    floats = SLOPE.astype(np.float32)
    floats[0, 0], floats[0, 1] = np.nan, np.inf
    pixels = np.asarray(open_picture(encode(Image.fromarray(floats), "TIFF")).pixels)
    assert pixels[0, :2].max() == 0
    assert pixels[-1, -1].min() == 255
    same = np.full((40, 40), 7.5, np.float32) - 100
    assert np.asarray(open_picture(encode(Image.fromarray(same), "TIFF")).pixels).std() == 0


def test_what_lies_hidden_under_transparency_is_not_seen() -> None:
    hidden = np.zeros((40, 60, 4), np.uint8)
    hidden[..., 0] = 255
    hidden[:, 30:, 3] = 255
    rgba = Image.fromarray(hidden)
    palette = Image.new("P", (60, 40), 0)
    palette.putpalette([*RED, *GREEN])
    palette.paste(1, (30, 0, 60, 40))
    contents = {
        "PNG": encode(rgba),
        "WEBP": encode(rgba, "WEBP", lossless=True, exact=True),
        "TIFF": encode(rgba, "TIFF"),
        "palette": encode(palette, transparency=0),
        "GIF": encode(palette, "GIF", transparency=0),
        "grey and alpha": encode(rgba.convert("LA")),
        "a colour": encode(corners(60, 40), transparency=RED),
        "a grey": encode(Image.new("L", (60, 40), 9), transparency=9),
    }
    for name, content in contents.items():
        for pixels in (
            open_picture(content).pixels,
            Image.open(io.BytesIO(shrink_jpeg(content, SHARD))),
            Image.open(io.BytesIO(thumbnail(content, "x")[0])),
        ):
            found = pixels.getpixel((5, 5))
            np.testing.assert_allclose(found, WHITE, atol=4, err_msg=name)


def test_half_of_a_colour_lets_half_of_the_white_through() -> None:
    content = encode(Image.new("RGBA", (40, 40), (*RED, 128)))
    np.testing.assert_allclose(open_picture(content).pixels.getpixel((1, 1)), (255, 127, 127))


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr", "LAB"])
def test_other_modes_are_as_pillow_converts_them(mode: str) -> None:
    image = corners().convert("L").convert("RGB").convert("RGB")
    if mode == "LAB":
        from PIL import ImageCms

        image = ImageCms.profileToProfile(
            image, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    format = "TIFF" if mode in ("LAB", "YCbCr", "CMYK") else "PNG"
    content = encode(image.convert(mode) if mode != "LAB" else image, format)
    expected = Image.open(io.BytesIO(content)).convert("RGB")
    np.testing.assert_array_equal(np.asarray(open_picture(content).pixels), np.asarray(expected))


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose head claims a size."""
    content = bytearray(encode(Image.new("1", (8, 8))))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def test_the_limit_of_pixels_is_a_setting() -> None:
    photo = encode(Image.new("L", (2000, 1000), 90), "JPEG")
    assert check_image(photo, LIMITS).fault is None
    strict = LIMITS.model_copy(update={"max_image_megapixels": 1.9})
    assert check_image(photo, strict).fault == (
        "large_image",
        "it has more than 1.9 million pixels",
    )


@pytest.mark.slow
@pytest.mark.parametrize("size", [(11_000, 8_200), (16_320, 12_240)])
def test_photos_of_90_and_200_megapixels_are_photos(size: tuple[int, int]) -> None:
    small = corners(size[0] // 16 * 2, size[1] // 16 * 2)
    photo = encode(small.resize(size, Image.Resampling.NEAREST), "JPEG", quality=60)
    finding = check_image(photo, LIMITS)
    assert finding.fault is None
    assert (finding.facts.width_px, finding.facts.height_px) == size
    with Image.open(io.BytesIO(shrink_jpeg(photo, SHARD))) as shrunk:
        assert min(shrunk.size) == SHARD.image_short_side_px
        assert_upright(shrunk)
    with Image.open(io.BytesIO(thumbnail(photo, "x")[0])) as shrunk:
        assert_upright(shrunk)


@pytest.mark.parametrize("size", [(16_000, 16_000), (65_535, 65_535), (2**31 - 1, 2**31 - 1)])
def test_a_few_bytes_that_claim_to_be_huge_are_refused_before_they_are_decoded(
    size: tuple[int, int],
) -> None:
    fault = check_image(png_that_claims(*size), LIMITS).fault
    assert fault
    assert fault.reason in ("large_image", "bad_image")
    assert Image.MAX_IMAGE_PIXELS is not None


@pytest.mark.parametrize(
    ("size", "reason"),
    [((10_000, 3), "small_image"), ((3, 10_000), "small_image"), ((1_000, 40), "extreme_shape"),
     ((40, 1_000), "extreme_shape"), ((800, 40), None)],
)  # fmt: skip
def test_extreme_shapes_are_refused(size: tuple[int, int], reason: str | None) -> None:
    fault = check_image(encode(Image.new("RGB", size)), LIMITS).fault
    assert (fault and fault.reason) == reason


def test_what_fits_in_no_jpeg_is_refused() -> None:
    long = encode(Image.new("L", (66_000, 3)))
    with pytest.raises(PictureError, match="66000 x 3 pixels fit in no JPEG"):
        shrink_jpeg(long, SHARD)


def test_a_thin_picture_keeps_a_pixel_in_the_pages() -> None:
    _, width, height = thumbnail(encode(Image.new("RGB", (10_000, 3))), "x")
    assert (width, height) == (260, 1)


@pytest.mark.parametrize("format", ["EPS", "PDF", "PPM", "TGA", "ICO"])
def test_formats_that_start_programs_or_are_no_photos_are_opened_nowhere(
    format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import subprocess

    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    content = encode(Image.new("RGB", (64, 64)), format)
    monkeypatch.setattr(subprocess, "check_call", started)
    monkeypatch.setattr(subprocess, "Popen", started)
    assert not is_picture(content)
    for use in (open_picture, lambda one: shrink_jpeg(one, SHARD)):
        with pytest.raises(PictureError, match="no known image format"):
            use(content)
    with pytest.raises(BrewlineError, match="picture 'x' cannot be read"):
        thumbnail(content, "x")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_cut_picture_is_no_picture(format: str) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (80, 96, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noise), format)
    with pytest.raises(PictureError) as error:
        open_picture(content[: len(content) // 2])
    assert error.value.reason == "bad_image"
