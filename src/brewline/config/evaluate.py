"""Section `evaluate`."""

from typing import Annotated

from pydantic import Field

from brewline.config.types import PositiveInt, Section, Seed


class EvaluateParams(Section):
    """What is measured on dev and test."""

    recall_at: Annotated[list[PositiveInt], Field(min_length=1)]
    # Of recordings of one length, noise, speaker and so on.
    bucket_recall_at: PositiveInt
    # Of fewer, no recall is given: its interval would be too narrow.
    min_bucket_images: PositiveInt
    bootstrap_samples: PositiveInt
    bootstrap_seed: Seed
    confidence: Annotated[float, Field(gt=0, lt=1)]
    num_examples: PositiveInt
