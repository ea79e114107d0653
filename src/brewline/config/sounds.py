"""What belongs to variants that hear sounds: `variants.*.sound`."""

from typing import Annotated, Literal

from pydantic import Field

from brewline.config.types import PositiveFloat, PositiveInt, Section

# Those of the second kind are published for sounds, as models of transformers.
SoundEncoderName = Literal["clip", "whisper", "ast", "clap"]
PublishedEncoderName = Literal["ast", "clap"]
PUBLISHED_ENCODERS: tuple[PublishedEncoderName, ...] = ("ast", "clap")
Pair = Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]


class PairingParams(Section):
    """How a clip is paired with its frames (Tsubaki et al., 2024; the defaults are ours).

    Or a recording with the squares of its picture, which takes its frames' place; it has no
    segments.
    """

    # random_frame: one frame, drawn at each step. nearest: the own clip's frame that is most like
    # the sound. multiframe_segment: each part of the sound with the frame of its time.
    # multiframe_clip: the whole sound with each of its frames.
    rule: Literal["random_frame", "nearest", "multiframe_segment", "multiframe_clip"]
    # Of `nearest`: for how long frames are drawn first, in steps (an integer) or as a share of
    # them (a fraction): what has learned nothing would choose by accident, and keep to it.
    warm_phase: Annotated[int | float, Field(ge=0)] | None = None
    # Of `multiframe_segment`, what the other frames of the clip are to a segment. mask: neither
    # right nor wrong. negative: wrong. soft: right, by half as much for every step away.
    same_clip: Literal["mask", "negative", "soft"] | None = None

    def warm_steps(self, steps: int) -> int:
        """For how many of `steps` frames are drawn."""
        warm = self.warm_phase or 0
        return warm if isinstance(warm, int) else round(warm * steps)


class SoundParams(Section):
    """The encoder of sounds, and how it learns from videos."""

    # clip: a transformer over patches of a spectrogram, which begins as CLIP's own image tower.
    # whisper: the encoder of `backbones.whisper`. ast, clap: the Audio Spectrogram Transformer, and
    # CLAP's HTSAT, as `backbones` name them. All of them are trained.
    encoder: SoundEncoderName
    # Of `clip`: bins of the spectrogram (of 128) and frames of 10 ms that are a patch, and from one
    # to the next: the weights of CLIP's patches are scaled to that.
    patch: Pair | None = None
    stride: Pair | None = None
    # What is longer is cut off.
    max_duration_s: PositiveFloat
    # SpecAugment: the most bins and frames that are masked in training.
    frequency_mask: Annotated[int, Field(ge=0)]
    time_mask: Annotated[int, Field(ge=0)]
    # Equal parts of a clip that has no frames, where parts are asked for.
    segments: PositiveInt
    pairing: PairingParams
    # Of task `audio_text`: a trained one learns at a tenth of the rate.
    text_tower: Literal["frozen", "trained"] = "frozen"
