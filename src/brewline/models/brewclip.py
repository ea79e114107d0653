"""BrewCLIP: two channels of one utterance, fused, against one image (BrewCLIP, section 3).

One class for every row of the results: `VariantParams` says which channels and how many prompts it
has. Shapes: B utterances, I images, E embedding size.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brewline.config.variants import VariantParams
from brewline.models.acoustic import AcousticBranch
from brewline.models.backbones import ClipBackbone
from brewline.models.inputs import UtteranceInputs
from brewline.models.towers import encode_image, encode_text
from brewline.models.trained import TrainedModule

# As in CLIP: a larger scale makes training unstable.
MAX_LOG_LOGIT_SCALE = math.log(100)
_PROMPT_STD = 0.02
_TEMPERATURE = 0.07


@dataclass(frozen=True)
class UtteranceFeatures:
    """The features of an utterance's channels and their unit-length sum, (B, E) each."""

    text: Tensor | None
    acoustic: Tensor | None
    embeddings: Tensor


class BrewClip(TrainedModule):
    """A frozen CLIP with prompts, an acoustic branch, both or neither.

    The new parameters are drawn from torch's generator, the prompts first.

    Args:
        backbone: The frozen CLIP.
        switches: Which channels, how they are laid out, and how many prompts.
        state_width: Width of Whisper's states; needed with an acoustic channel.
        temperature: Start (or, if it is not learned, value) of the losses' temperature.
        learn_temperature: Whether the temperature is trained.
    """

    def __init__(
        self,
        backbone: ClipBackbone,
        switches: VariantParams,
        state_width: int | None = None,
        temperature: float = _TEMPERATURE,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.switches = switches
        self.clip = backbone.clip
        mean, std = _normalisation(backbone)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)
        width = backbone.text_width
        self.prompt_tokens: nn.Parameter | None = None
        self.prompts_to_image: nn.Linear | None = None
        if switches.prompts:
            self.prompt_tokens = nn.Parameter(torch.randn(switches.prompts, width) * _PROMPT_STD)
            self.prompts_to_image = nn.Linear(width, backbone.vision_width)
        self.acoustic: AcousticBranch | None = None
        if switches.acoustic:
            if state_width is None:
                raise ValueError("an acoustic channel needs the width of its states")
            self.acoustic = AcousticBranch(
                state_width, width, backbone.embedding_size, switches.acoustic
            )
        self.log_logit_scale = nn.Parameter(
            torch.tensor(-math.log(temperature)), requires_grad=learn_temperature
        )
        self.eval()

    def train(self, mode: bool = True) -> "BrewClip":
        """Switches the trained parts; the frozen towers stay in evaluation mode."""
        super().train(mode)
        self.clip.eval()
        return self

    @property
    def num_trained_parameters(self) -> int:
        """How many numbers are trained, the temperature not counted (as the paper counts)."""
        parameters = self.trained_parameters()
        return sum(p.numel() for name, p in parameters.items() if name != "log_logit_scale")

    @property
    def logit_scale(self) -> Tensor:
        """What cosines are multiplied by in the losses."""
        return self.log_logit_scale.exp()

    @torch.no_grad()
    def after_update(self) -> None:
        """Keeps the scale at 100 at most."""
        self.log_logit_scale.clamp_(max=MAX_LOG_LOGIT_SCALE)

    def encode_images(self, pixels_ICHW: Tensor) -> Tensor:
        """Embeds images.

        Args:
            pixels_ICHW: Resized and cropped images, uint8.

        Returns:
            Unit embeddings (I, E) in fp32.
        """
        prompts = None
        if self.prompt_tokens is not None and self.prompts_to_image is not None:
            prompts = self.prompts_to_image(self.prompt_tokens)
        pixels = pixels_ICHW.float().div_(255).sub_(self.pixel_mean).div_(self.pixel_std)
        return F.normalize(encode_image(self.clip, pixels, prompts).float(), dim=-1)

    def encode_text(self, token_ids_BL: Tensor) -> Tensor:
        """Text features (B, E) of token ids that are laid out for the prompts, not normalised."""
        return encode_text(self.clip, token_ids_BL, self.prompt_tokens).float()

    def encode_utterances(self, inputs: UtteranceInputs) -> UtteranceFeatures:
        """Embeds utterances by the channels that the switches name.

        The channels are summed as they are, so that their lengths decide which one speaks louder;
        only the sum is normalised (the authors' code; the paper does not say).

        Args:
            inputs: Tokens or text features for the text channel, states for the acoustic one.
        """
        text = acoustic = None
        if self.switches.text:
            text = inputs.text_features
            if text is None:
                assert inputs.token_ids is not None
                text = self.encode_text(inputs.token_ids)
        if self.acoustic is not None:
            assert inputs.states is not None and inputs.frame_mask is not None
            acoustic = self.acoustic(inputs.states, inputs.frame_mask, self.prompt_tokens).float()
        channels = [features for features in (text, acoustic) if features is not None]
        return UtteranceFeatures(text, acoustic, F.normalize(torch.stack(channels).sum(0), dim=-1))


def _normalisation(backbone: ClipBackbone) -> tuple[Tensor, Tensor]:
    """Mean and deviation of pixels, (3, 1, 1) each, from the last step of CLIP's own transform."""
    normalise = backbone.preprocess.transforms[-1]  # type: ignore[attr-defined]
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (normalise.mean, normalise.std))
    return mean, std
