"""Sections `variants`, `acoustic` and `models`: what models are made of, and which are made."""

from typing import Annotated, Literal

from pydantic import Field

from brewline.config.types import Fraction, PositiveInt, Section

# The variant that the others are compared with: CLIP as it is, on what was recognised.
UNTRAINED = "zero-shot"


class VariantParams(Section):
    """One row of the results table: switches of the one model class (BrewCLIP, Table 2)."""

    text: bool
    acoustic: bool
    prompts: Annotated[int, Field(ge=0)]
    transcript: Literal["asr", "caption"]
    trained: bool

    @property
    def group(self) -> str:
        """The list of `models` that this variant belongs to, by the parameters it depends on."""
        if not self.trained:
            return "untrained"
        return {(True, False): "text", (False, True): "acoustic", (True, True): "text_acoustic"}[
            self.text, self.acoustic
        ]


class ModelParams(Section):
    """One model to make: a variant on a corpus."""

    corpus: str
    variant: str


class ModelLists(Section):
    """The models that `dvc repro` makes, grouped by the parameters that they depend on."""

    untrained: dict[str, ModelParams]
    text: dict[str, ModelParams]
    acoustic: dict[str, ModelParams]
    text_acoustic: dict[str, ModelParams]

    def all(self) -> dict[str, ModelParams]:
        """Every model by name, in the order of the lists."""
        return {**self.untrained, **self.text, **self.acoustic, **self.text_acoustic}


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
