"""Section `variants`: what models are made of."""

from typing import Annotated, Literal

from pydantic import Field

from brewline.config.types import Fraction, PositiveInt, Section


class AcousticParams(Section):
    """The acoustic branch (BrewCLIP, section 3.2; layout from the authors' code)."""

    layers: PositiveInt
    heads: PositiveInt
    feedforward_width: PositiveInt
    dropout: Fraction
    # Encoder frames averaged into one before the branch; 1 keeps Whisper's 50 frames a second.
    pool_frames: PositiveInt
    # Which frames are attended to: those of the recording, or also those of the padding.
    padding_mask: Literal["valid", "none"]


class VariantParams(Section):
    """What a model is made of: switches of the one model class (BrewCLIP, Table 2).

    A channel that is not named is not there. How long and on what a model is trained stands in its
    experiment.
    """

    # What the text channel reads: what Whisper heard, or what people wrote.
    text: Literal["asr", "caption"] | None = None
    acoustic: AcousticParams | None = None
    prompts: Annotated[int, Field(ge=0)]
    # Weight of the inner loss, between the two channels; for variants that have both.
    alpha: Fraction | None = None

    @property
    def is_trainable(self) -> bool:
        """Whether it has parameters of its own, beside the frozen towers."""
        return self.prompts > 0 or self.acoustic is not None

    @property
    def hears(self) -> bool:
        """Whether it takes recordings; what reads captions alone does not, and is a ceiling."""
        return self.text != "caption"
