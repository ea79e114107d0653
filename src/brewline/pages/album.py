"""The pictures of a page: thumbnails, each in it once."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from brewline.core.errors import BrewlineError
from brewline.media.pictures import PictureError, encode_jpeg, open_picture
from brewline.pages.render import data_uri

_THUMBNAIL_PX = (260, 220)
_THUMBNAIL_QUALITY = 82


@dataclass(frozen=True)
class Picture:
    """A thumbnail that is in the page once, under `anchor`; no `uri`: there was no room for it."""

    anchor: str
    image_id: str
    width: int
    height: int
    uri: str


@dataclass
class Album:
    """The pictures of a page: each is opened, made small and numbered once.

    Of those that come when the page has `most_bytes` of them, a place is kept and no more.
    """

    prefix: str
    read: Callable[[str], bytes]
    most_bytes: float = math.inf
    pictures: dict[str, Picture] = field(default_factory=dict)

    def picture(self, image_id: str) -> Picture:
        """The thumbnail of an image.

        Raises:
            BrewlineError: the image cannot be read.
        """
        if image_id not in self.pictures:
            content, width, height = thumbnail(self.read(image_id), image_id)
            has_room = len(content) <= self.most_bytes
            self.most_bytes -= len(content) * has_room
            self.pictures[image_id] = Picture(
                anchor=f"{self.prefix}{len(self.pictures)}",
                image_id=image_id,
                width=width,
                height=height,
                uri=data_uri("image/jpeg", content) if has_room else "",
            )
        return self.pictures[image_id]


def thumbnail(content: bytes, name: str) -> tuple[bytes, int, int]:
    """Makes a picture small.

    Returns:
        A JPEG, its width and its height in pixels.

    Raises:
        BrewlineError: the content is no picture.
    """
    try:
        pixels = open_picture(content, needed_px=max(_THUMBNAIL_PX)).pixels
    except PictureError as error:
        raise BrewlineError(f"picture {name!r} cannot be read: {error.detail}") from None
    pixels.thumbnail(_THUMBNAIL_PX)
    small = encode_jpeg(pixels, _THUMBNAIL_QUALITY, optimize=True)
    return small, pixels.width, pixels.height
