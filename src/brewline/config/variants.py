"""Section `variants`: what models are made of."""

from typing import Annotated, Literal

from pydantic import Field

from brewline.config.sounds import SoundParams
from brewline.config.types import Fraction, PositiveInt, Section

# How the features of two channels become one. sum: as they are, so that their lengths decide which
# speaks louder (the authors' code). unit_sum: each at unit length. gate: each at unit length, and
# how much the text counts is learned as a function of the recogniser's confidence in it.
FusionName = Literal["sum", "unit_sum", "gate"]
# What is seen of a picture that is no square. own: what the CLIP was trained with. crop: its middle
# square. letterbox: all of it, with bars. squash: all of it, out of shape. multicrop: as many
# squares side by side as cover it, whose embeddings are averaged.
PictureViews = Literal["own", "crop", "letterbox", "squash", "multicrop"]
# What is read of a text that is longer than the text tower's context. truncate: its beginning.
# chunk: all of it, in windows that overlap, whose features are averaged.
LongTexts = Literal["truncate", "chunk"]


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
    # The encoder of sounds that are no speech; it stands alone.
    sound: SoundParams | None = None
    prompts: Annotated[int, Field(ge=0)]
    # In how many of the first layers of CLIP's towers prompts are put in, each time others; 1: at
    # the input alone, as the paper has it.
    prompt_depth: PositiveInt = 1
    # Weight of the inner loss, between the two channels; for variants that have both.
    alpha: Fraction | None = None
    fusion: FusionName = "sum"
    long_texts: LongTexts = "truncate"
    pictures: PictureViews = "own"

    @property
    def is_trainable(self) -> bool:
        """Whether it has parameters of its own, beside the frozen towers."""
        return self.prompts > 0 or self.acoustic is not None or self.sound is not None

    @property
    def hears(self) -> bool:
        """Whether it takes recordings; what reads captions alone does not, and is a ceiling."""
        return self.text != "caption"
