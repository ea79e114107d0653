"""Section `analyse`."""

from typing import Annotated

from pydantic import Field

from brewline.config.types import PositiveInt, Section


class AnalyseParams(Section):
    """What stage `analyse` looks at, on test; how intervals are estimated stands in `evaluate`."""

    # How many ranks are a hit.
    hit_at: PositiveInt
    # Recordings of each kind that are shown.
    num_shown: Annotated[int, Field(ge=1, le=20)]
    # Of a picture outside of the crop: from there on it is one that the crop may lose.
    min_lost: Annotated[float, Field(gt=0, lt=1)]
    # Recordings with maps of what is attended to.
    attention_queries: Annotated[int, Field(ge=0, le=20)]
