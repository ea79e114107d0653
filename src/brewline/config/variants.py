"""Section `variants`: what models are made of."""

from typing import Annotated, Literal

from pydantic import Field

from brewline.config.sounds import PairingParams, SoundParams
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
# What hears the recordings. whisper: the last layer of Whisper's encoder, which `transcribe` keeps.
# The others give all of their layers, which stage `encode` keeps: Whisper's encoder, or HuBERT.
LayeredEncoderName = Literal["whisper_layers", "hubert"]
EncoderName = Literal["whisper", "whisper_layers", "hubert"]
# What makes one vector of the frames. brewclip: a class token and the prompts among frames that are
# projected to the width of the text tower. parallel: a class token among frames as wide as the
# encoder gives them (SpeechCLIP-P). cascaded: frames become keywords out of the vocabulary of CLIP,
# which its text tower reads (SpeechCLIP-C).
BranchName = Literal["brewclip", "parallel", "cascaded"]


class AcousticParams(Section):
    """The acoustic branch (BrewCLIP, section 3.2, layout from the authors' code; or SpeechCLIP)."""

    encoder: EncoderName = "whisper"
    branch: BranchName = "brewclip"
    layers: PositiveInt
    heads: PositiveInt
    # Of the cascaded branch, which attends and does no more: none.
    feedforward_width: PositiveInt | None = None
    dropout: Fraction
    # Encoder frames averaged into one before the branch; 1 keeps the encoder's 50 frames a second.
    # Of an encoder of layers they are averaged when they are stored.
    pool_frames: PositiveInt
    # Which frames are attended to: those of the recording, or also those of the padding.
    padding_mask: Literal["valid", "none"]
    # How many words the cascaded branch may say.
    keywords: PositiveInt | None = None
    # Of an encoder of layers: whether each is normalised before they are summed, and whether their
    # weights are learned; else each counts alike.
    normalise_layers: bool = True
    learn_layers: bool = True
    # In training, each recording is heard from a random moment on for so many seconds; null: whole.
    crop_s: Annotated[float, Field(gt=0)] | None = None

    @property
    def hears_layers(self) -> bool:
        """Whether the encoder gives all of its layers."""
        return self.encoder != "whisper"


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
    # Of recordings and `multicrop`: with which of a picture's squares a recording is paired in
    # training; without it, with their average. Where it is not asked for, no card names it.
    pairing: PairingParams | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def is_trainable(self) -> bool:
        """Whether it has parameters of its own, beside the frozen towers."""
        return self.prompts > 0 or self.acoustic is not None or self.sound is not None

    @property
    def hears(self) -> bool:
        """Whether it takes recordings; what reads captions alone does not, and is a ceiling."""
        return self.text != "caption"
