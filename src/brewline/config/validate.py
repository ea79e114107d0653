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
    # The share of the energy that may fall into the loudest 60 ms: a click and nothing else.
    max_burst_share: Fraction
    # Between the levels that 10 % and 95 % of its frames of 20 ms stay below.
    min_level_range_db: Annotated[float, Field(ge=0)]
    # Judged where `inspect.speech_share` was asked for.
    min_speech_share: Fraction
    max_duration_mismatch_s: PositiveFloat
    require_stream_end: bool
    min_image_side_px: PositiveInt
    # The long side of a picture over the short one.
    max_image_aspect: Annotated[float, Field(ge=1)]
    # A larger picture is refused before it is decoded.
    max_image_megapixels: PositiveFloat
    # Of the pictures that are looked for in a video, how many it may lack.
    max_missing_frames: Annotated[int, Field(ge=0)]
    # Of any part of the picture over a video, from 0 to 255; less: a still picture.
    min_picture_change: Annotated[float, Field(ge=0)]
    # Recordings that are equal to the byte under several ids: named, or dropped but for the first.
    duplicate_audio: Literal["report", "quarantine"]
    max_quarantine_rate: Fraction
    # Shares of dev and test that are in an earlier split too: recordings with the same samples,
    # pictures that look alike.
    max_leaked_recordings: Fraction
    max_leaked_pictures: Fraction
    # Bounds of a corpus' medians: [at least, at most].
    median_duration_s: Bounds
    median_caption_words: Bounds
    # Great Expectations' own pages beside ours; unlike ours they load scripts from the network.
    data_docs: bool


class CorpusLimits(Section):
    """Limits of a single corpus, in place of those of `ValidateParams`; null: the same."""

    max_quarantine_rate: Fraction | None = None
    max_leaked_recordings: Fraction | None = None
    max_leaked_pictures: Fraction | None = None
    median_duration_s: Bounds | None = None
    median_caption_words: Bounds | None = None
