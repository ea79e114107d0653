"""Section `validate`."""

from typing import Annotated, Literal

from pydantic import Field

from brewline.config.types import Bounds, Fraction, PositiveFloat, PositiveInt, Section


class ValidateParams(Section):
    """Thresholds of the checks on every utterance, and of the expectations on a corpus."""

    min_duration_s: PositiveFloat
    max_duration_s: PositiveFloat
    min_sample_rate_hz: PositiveInt
    max_channels: PositiveInt
    max_non_finite_fraction: Fraction
    silence_dbfs: Annotated[float, Field(lt=0)]
    max_clipped_fraction: Fraction
    max_dc_offset: Fraction
    max_duration_mismatch_s: PositiveFloat
    require_stream_end: bool
    min_image_side_px: PositiveInt
    # The long side of a picture over the short one.
    max_image_aspect: Annotated[float, Field(ge=1)]
    # A larger picture is refused before it is decoded.
    max_image_megapixels: PositiveFloat
    # Recordings that are equal to the byte under several ids: named, or dropped but for the first.
    duplicate_audio: Literal["report", "quarantine"]
    max_quarantine_rate: Fraction
    # Bounds of a corpus' medians: [at least, at most].
    median_duration_s: Bounds
    median_caption_words: Bounds
    # Great Expectations' own pages beside ours; unlike ours they load scripts from the network.
    data_docs: bool
