"""Sounds in CLIP's space: a trained encoder beside a frozen CLIP (Tsubaki et al., 2024).

A sound becomes one vector, and one for each of its frames, from the states nearer to that frame's
time than to another's. Shapes: B clips, L frames of a clip, N states, T frames of a spectrogram,
W width of the states, E embedding size.
"""

import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brewline.config.sounds import SoundParams
from brewline.config.variants import VariantParams
from brewline.models.backbones import ClipBackbone
from brewline.models.brewclip import BrewClip
from brewline.models.hearing import find_hearing
from brewline.models.inputs import OnDevice, PictureInputs, UtteranceInputs
from brewline.models.sound_encoders import SoundStates
from brewline.models.trained import TrainedModule

# Of the rate of a recipe, what a trained text tower learns at (spec: ten times less).
_TEXT_RATE = 0.1
_CLIP = "brewclip.clip."
# Of a CLIP that holds its text tower itself, what is none of it.
_NO_TEXT = ("visual.", "logit_scale", "logit_bias")


@dataclass(frozen=True)
class SoundInputs(OnDevice):
    """Sounds as spectrograms (B, T, bins), padded, with the number of their own frames (B,).

    `times_s` (B, L) are those of a clip's frames (or of the middles of equal parts, where it has
    none), rising; `frame_mask` (B, L) is True for those that are there, which come first.
    """

    spectrograms: Tensor
    num_frames: Tensor
    times_s: Tensor
    frame_mask: Tensor


@dataclass(frozen=True)
class ClipBatch(OnDevice):
    """Clips with their sounds, and what they are paired with in training.

    `clip_ids` (B,) are equal for equal clips, in every process. `frames` (B, L, E) are unit vectors
    of frames, as in `SoundInputs`; `token_ids` (B, C, K) are those of captions, of which each clip
    has the first `num_captions` (B,).
    """

    sounds: SoundInputs
    clip_ids: Tensor
    frames: Tensor | None = None
    token_ids: Tensor | None = None
    num_captions: Tensor | None = None


@dataclass(frozen=True)
class SoundFeatures:
    """Unit vectors of sounds, (B, E), and of their parts at the times of frames, (B, L, E)."""

    clips: Tensor
    segments: Tensor


class SoundModel(TrainedModule):
    """A trained encoder of sounds, beside the frozen towers for pictures and texts.

    Args:
        backbone: The frozen CLIP, which stays as it is: a trained text tower is a copy.
        switches: A variant with `sound`.
        temperature: Start (or, if it is not learned, value) of the loss's temperature.
        learn_temperature: Whether the temperature is trained.
        train_text: Whether the text tower is.

    Raises:
        BrewlineError: the CLIP does not fit the encoder, or its weights are missing.
    """

    def __init__(
        self,
        backbone: ClipBackbone,
        switches: VariantParams,
        temperature: float,
        learn_temperature: bool,
        train_text: bool = False,
    ) -> None:
        super().__init__()
        assert switches.sound is not None
        self.params: SoundParams = switches.sound
        if train_text:
            backbone = replace(backbone, clip=copy.deepcopy(backbone.clip))
        frozen = VariantParams(text="caption", prompts=0, pictures=switches.pictures)
        self.brewclip = BrewClip(
            backbone, frozen, temperature=temperature, learn_temperature=learn_temperature
        )
        if train_text:
            for name, parameter in self.brewclip.clip.named_parameters():
                parameter.requires_grad_(not name.startswith(_NO_TEXT))
        self.encoder = find_hearing(self.params).encoder(backbone)
        self.embedding_size = backbone.embedding_size
        self.eval()

    @property
    def logit_scale(self) -> Tensor:
        """What cosines are multiplied by in the loss."""
        return self.brewclip.logit_scale

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.brewclip.log_logit_scale.device

    def after_update(self) -> None:
        """Keeps the scale within its bounds."""
        self.brewclip.after_update()

    def rate_of(self, name: str) -> float:
        """A trained text tower learns slower than the new parts; see `TrainedModule`."""
        return _TEXT_RATE if name.startswith(_CLIP) else 1.0

    def start_from(self, tensors: dict[str, Tensor]) -> None:
        """Takes over a model of sounds; a text tower that it did not train starts as CLIP's."""
        own = self.trained_tensors()
        kept = {name: tensor for name, tensor in own.items() if name.startswith(_CLIP)}
        self.load_trained_tensors(kept | tensors)

    def encode_pictures(self, pictures: PictureInputs) -> Tensor:
        """Unit vectors of I pictures, (I, E), by the frozen tower."""
        with torch.no_grad():
            return self.brewclip.encode_images(pictures)

    def encode_texts(self, token_ids: Tensor) -> Tensor:
        """Unit vectors of texts, (B, E)."""
        features = self.brewclip.encode_text(UtteranceInputs(len(token_ids), token_ids))
        return F.normalize(features, dim=-1)

    def encode_sounds(self, inputs: SoundInputs) -> SoundFeatures:
        """Embeds sounds whole and in segments.

        Of a model that is paired in segments a whole sound is the mean of these, of unit length.
        """
        spectrograms = inputs.spectrograms
        if self.training:
            mean = self.encoder.mean
            spectrograms = masked(spectrograms, inputs.num_frames, self.params, mean)
        states = self.encoder(spectrograms, inputs.num_frames)
        weights_BLN = segment_weights(states, inputs.times_s, inputs.frame_mask)
        segments_BLE = self._embed(weights_BLN @ states.states.float())
        mask_BL1 = inputs.frame_mask[..., None]
        segments_BLE = segments_BLE.masked_fill(~mask_BL1, 0)
        if self.params.pairing.rule == "multiframe_segment":
            means_BE = segments_BLE.sum(dim=1) / mask_BL1.sum(dim=1)
            return SoundFeatures(F.normalize(means_BE, dim=-1), segments_BLE)
        own_BN1 = states.mask[..., None]
        whole_BW = (states.states.float() * own_BN1).sum(dim=1) / own_BN1.sum(dim=1)
        return SoundFeatures(self._embed(whole_BW), segments_BLE)

    def _embed(self, pooled: Tensor) -> Tensor:
        return F.normalize(self.encoder.embed(pooled).float(), dim=-1)


def trains_text(task: str, params: SoundParams) -> bool:
    """Whether models of a task train the text tower: what learns from frames never reads."""
    return task == "audio_text" and params.text_tower == "trained"


def segment_weights(states: SoundStates, times_s_BL: Tensor, frame_mask_BL: Tensor) -> Tensor:
    """How much each state counts in the mean that is a frame's segment, (B, L, N).

    A state belongs to the frame whose time is nearest, the earlier one of two; with frames in the
    middles of equal parts, segments are these parts. A frame that gets no state has the one that is
    nearest to it. States of padding, and frames that are not there, get nothing.
    """
    far_BLN = (times_s_BL[..., None] - states.times_s).abs()
    far_BLN = far_BLN.masked_fill(~frame_mask_BL[..., None], torch.inf)
    nearest_BN = far_BLN.argmin(dim=1)
    frames_L = torch.arange(times_s_BL.shape[1], device=times_s_BL.device)
    member_BLN = (nearest_BN[:, None] == frames_L[:, None]) & states.mask[:, None]
    to_states_BLN = far_BLN.masked_fill(~states.mask[:, None], torch.inf)
    closest_BL = to_states_BLN.argmin(dim=2)
    alone_BLN = nn.functional.one_hot(closest_BL, far_BLN.shape[2]).bool()
    has_BL1 = member_BLN.any(dim=2, keepdim=True)
    member_BLN = torch.where(has_BL1, member_BLN, alone_BLN) & frame_mask_BL[..., None]
    return member_BLN / member_BLN.sum(dim=2, keepdim=True).clamp(min=1)


def masked(
    spectrograms_BTF: Tensor, num_frames_B: Tensor, params: SoundParams, mean: float = 0.0
) -> Tensor:
    """SpecAugment (Park et al., 2019): a band and a stretch of each sound become the mean.

    Where and how wide is drawn from torch's generator for each sound; of time at most half of it.
    """
    num_clips, _, num_bins = spectrograms_BTF.shape
    device = spectrograms_BTF.device
    # On the processor, where torch's generator is seeded alike for every device.
    width_B, place_B, length_B, start_B = torch.rand(4, num_clips).to(device)
    width_B = (width_B * (params.frequency_mask + 1)).floor()
    low_B = (place_B * (num_bins - width_B + 1)).floor()
    most_B = (num_frames_B // 2).clamp(max=params.time_mask)
    length_B = (length_B * (most_B + 1)).floor()
    first_B = (start_B * (num_frames_B - length_B + 1)).floor()
    bins = torch.arange(num_bins, device=device)
    frames = torch.arange(spectrograms_BTF.shape[1], device=device)
    in_band = (bins >= low_B[:, None]) & (bins < (low_B + width_B)[:, None])
    in_time = (frames >= first_B[:, None]) & (frames < (first_B + length_B)[:, None])
    return spectrograms_BTF.masked_fill(in_band[:, None] | in_time[..., None], mean)
