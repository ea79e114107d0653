"""Section `shard`."""

from typing import Annotated

from pydantic import Field

from brewline.config.types import PositiveInt, Section


class ShardParams(Section):
    """Layout of the WebDataset shards."""

    utterances_per_shard: PositiveInt
    image_short_side_px: PositiveInt
    jpeg_quality: Annotated[int, Field(ge=1, le=100)]
    # Of a video: in the middles of so many equal parts of it.
    frames_per_clip: PositiveInt
