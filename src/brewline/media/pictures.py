"""A picture as it goes into a shard, and as a served model sees it."""

import io

from PIL import Image

from brewline.config.shard import ShardParams


def shrink_jpeg(content: bytes, settings: ShardParams) -> bytes:
    """Returns a JPEG whose short side is at most `image_short_side_px`.

    A JPEG that is small enough already is kept to the byte: encoding it again would only lose.
    """
    with Image.open(io.BytesIO(content)) as image:
        scale = settings.image_short_side_px / min(image.size)
        if scale >= 1 and image.format == "JPEG" and image.mode == "RGB":
            return content
        rgb = image.convert("RGB")
    if scale < 1:
        size = (round(rgb.width * scale), round(rgb.height * scale))
        rgb = rgb.resize(size, Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=settings.jpeg_quality)
    return buffer.getvalue()
