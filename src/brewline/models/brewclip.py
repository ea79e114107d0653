"""BrewCLIP: two channels of one utterance, fused, against one image (BrewCLIP, section 3).

One class for every row of the results: `VariantParams` says which channels and how many prompts it
has. Shapes: B utterances, I images, E embedding size.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brewline.config.variants import AcousticParams, VariantParams
from brewline.core.errors import BrewlineError
from brewline.models.acoustic import FRAMES_PER_SECOND, AcousticBranch
from brewline.models.attention import is_watched
from brewline.models.backbones import ClipBackbone, prompts_refused
from brewline.models.cascaded import CascadedBranch
from brewline.models.fusion import ConfidenceGate, add_at_unit_length
from brewline.models.inputs import PictureInputs, UtteranceInputs
from brewline.models.layer_mix import LayerMix, random_crop
from brewline.models.trained import TrainedModule

# As in CLIP: a larger scale makes training unstable.
MAX_LOG_LOGIT_SCALE = math.log(100)
_PROMPT_STD = 0.02
_TEMPERATURE = 0.07
# As in SigLIP: at the start nearly all pairs of a batch are wrong.
_LOGIT_BIAS = -10.0


@dataclass(frozen=True)
class UtteranceFeatures:
    """The features of an utterance's channels and what becomes of both, of unit length, (B, E)."""

    text: Tensor | None
    acoustic: Tensor | None
    embeddings: Tensor


class BrewClip(TrainedModule):
    """A frozen CLIP with prompts, an acoustic branch, both or neither.

    The new parameters are drawn from torch's generator, the prompts first.

    Args:
        backbone: The frozen CLIP.
        switches: Which channels, how they are laid out, and how many prompts.
        state_shape: Of a frame of the encoder's states, (S,), or (L, S) where it gives layers;
            needed with an acoustic channel.
        temperature: Start (or, if it is not learned, value) of the losses' temperature.
        learn_temperature: Whether the temperature is trained.
        with_bias: Whether logits get a bias, which is trained: for the sigmoid loss.

    Raises:
        BrewlineError: it is to have prompts, which the CLIP cannot carry.
    """

    def __init__(
        self,
        backbone: ClipBackbone,
        switches: VariantParams,
        state_shape: Sequence[int] | None = None,
        temperature: float = _TEMPERATURE,
        learn_temperature: bool = False,
        with_bias: bool = False,
    ) -> None:
        super().__init__()
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.switches = switches
        self.clip = backbone.clip
        self._backbone = backbone
        mean, std = _normalisation(backbone)
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)
        if switches.prompts and backbone.problem:
            raise BrewlineError(prompts_refused(backbone), "settings")
        width = backbone.text_width
        self.prompt_tokens: nn.Parameter | None = None
        self.prompts_to_image: nn.Linear | None = None
        # Those of the layers behind the first one.
        self.deep_prompt_tokens = nn.ParameterList()
        self.deep_prompts_to_image = nn.ModuleList()
        if switches.prompts:
            shape = (switches.prompts, width)
            self.prompt_tokens = nn.Parameter(torch.randn(shape) * _PROMPT_STD)
            self.prompts_to_image = nn.Linear(width, backbone.vision_width)
            for _ in range(1, switches.prompt_depth):
                self.deep_prompt_tokens.append(torch.randn(shape) * _PROMPT_STD)
                self.deep_prompts_to_image.append(nn.Linear(width, backbone.vision_width))
        self.layer_mix: LayerMix | None = None
        self.acoustic: AcousticBranch | CascadedBranch | None = None
        if switches.acoustic:
            self.layer_mix, self.acoustic = _make_acoustic(backbone, switches.acoustic, state_shape)
        self.gate = ConfidenceGate() if switches.fusion == "gate" else None
        self.log_logit_scale = nn.Parameter(
            torch.tensor(-math.log(temperature)), requires_grad=learn_temperature
        )
        self.logit_bias = nn.Parameter(torch.tensor(_LOGIT_BIAS)) if with_bias else None
        self.eval()

    def train(self, mode: bool = True) -> "BrewClip":
        """Switches the trained parts; the frozen towers stay in evaluation mode."""
        super().train(mode)
        self.clip.eval()
        return self

    @property
    def num_trained_parameters(self) -> int:
        """How many numbers are trained, those of the loss not counted (as the paper counts)."""
        parameters = self.trained_parameters()
        of_loss = ("log_logit_scale", "logit_bias")
        return sum(p.numel() for name, p in parameters.items() if name not in of_loss)

    @property
    def logit_scale(self) -> Tensor:
        """What cosines are multiplied by in the losses."""
        return self.log_logit_scale.exp()

    @torch.no_grad()
    def after_update(self) -> None:
        """Keeps the scale at 100 at most."""
        self.log_logit_scale.clamp_(max=MAX_LOG_LOGIT_SCALE)

    def encode_images(self, pictures: PictureInputs) -> Tensor:
        """Embeds images; of one that is seen in several squares, their mean.

        Args:
            pictures: What is seen of I pictures.

        Returns:
            Unit embeddings (I, E) in fp32.
        """
        embeddings = self.encode_squares(pictures)
        if pictures.picture_index is None:
            return embeddings
        means = mean_by(pictures.picture_index, embeddings, pictures.num_pictures)
        return F.normalize(means, dim=-1)

    def encode_squares(self, pictures: PictureInputs) -> Tensor:
        """Unit embeddings (R, E) in fp32 of all squares of pictures, one after the other."""
        pixels = pictures.pixels.float().div_(255).sub_(self.pixel_mean).div_(self.pixel_std)
        prompts = self._image_prompts()
        if prompts or is_watched():
            features = self._backbone.towers[1].encode(pixels, prompts)
        else:
            features = self.clip.encode_image(pixels, normalize=False)
        return F.normalize(features.float(), dim=-1)

    def encode_text(self, inputs: UtteranceInputs) -> Tensor:
        """Text features (B, E), not normalised; of a text in several rows, their mean."""
        assert inputs.token_ids is not None
        prompts = self._text_prompts()
        if prompts or is_watched():
            start = self._backbone.layout.num_before
            features = self._backbone.towers[0].encode(inputs.token_ids, prompts, start).float()
        else:
            features = self.clip.encode_text(inputs.token_ids, normalize=False).float()
        if inputs.text_index is None:
            return features
        return mean_by(inputs.text_index, features, inputs.num_utterances)

    def _text_prompts(self) -> list[Tensor]:
        """(M, W) for each of the first layers of the text tower."""
        return [] if self.prompt_tokens is None else [self.prompt_tokens, *self.deep_prompt_tokens]

    def _image_prompts(self) -> list[Tensor]:
        """Those of the text tower in the width of the image tower, each by a projection."""
        if self.prompts_to_image is None:
            return []
        projections = [self.prompts_to_image, *self.deep_prompts_to_image]
        pairs = zip(projections, self._text_prompts(), strict=True)
        return [project(prompts) for project, prompts in pairs]

    def encode_utterances(self, inputs: UtteranceInputs) -> UtteranceFeatures:
        """Embeds utterances by the channels that the switches name.

        Args:
            inputs: Tokens or text features for the text channel, states for the acoustic one.
        """
        text = acoustic = None
        if self.switches.text:
            text = inputs.text_features
            if text is None:
                text = self.encode_text(inputs)
        if self.acoustic is not None:
            acoustic = self.acoustic(*self.frames(inputs), self.prompt_tokens).float()
        fused = self._fuse(text, acoustic, inputs.confidence)
        return UtteranceFeatures(text, acoustic, F.normalize(fused, dim=-1))

    def frames(self, inputs: UtteranceInputs) -> tuple[Tensor, Tensor]:
        """What the acoustic branch takes: states (B, T, S), and which of them are attended to."""
        mask, acoustic = inputs.frame_mask, self.switches.acoustic
        assert inputs.states is not None and mask is not None and acoustic is not None
        states = inputs.states.padded()
        if self.layer_mix is not None:
            states = self.layer_mix(states)
        if self.training and acoustic.crop_s is not None:
            rate = FRAMES_PER_SECOND / acoustic.pool_frames
            mask = random_crop(mask, max(1, round(acoustic.crop_s * rate)))
        return states, mask

    def _fuse(
        self, text: Tensor | None, acoustic: Tensor | None, confidence: Tensor | None
    ) -> Tensor:
        if text is None or acoustic is None:
            (alone,) = (one for one in (text, acoustic) if one is not None)
            return alone
        if self.gate is not None:
            assert confidence is not None
            return self.gate(text, acoustic, confidence)  # type: ignore[no-any-return]
        if self.switches.fusion == "unit_sum":
            return add_at_unit_length(text, acoustic)
        return text + acoustic


def _make_acoustic(
    backbone: ClipBackbone, params: AcousticParams, state_shape: Sequence[int] | None
) -> tuple[LayerMix | None, AcousticBranch | CascadedBranch]:
    """What joins the layers of an encoder, if it gives several, and the branch behind it."""
    if state_shape is None:
        raise ValueError("an acoustic channel needs the shape of its states")
    *layers, width = state_shape
    if params.branch != "brewclip" and width % params.heads:
        raise BrewlineError(
            f"{params.heads} heads of a branch {params.branch!r} do not divide the width {width} "
            f"of the states of {params.encoder}; change the variant's heads",
            "settings",
        )
    mix = None
    if params.hears_layers:
        mix = LayerMix(layers[0], params.normalise_layers, params.learn_layers)
    if params.branch == "cascaded":
        return mix, CascadedBranch(width, backbone.towers[0], backbone.layout, params)
    return mix, AcousticBranch(width, backbone.text_width, backbone.embedding_size, params)


def state_shape_of(tensors: Mapping[str, Tensor], params: AcousticParams) -> tuple[int, ...]:
    """Of which states a model was trained, from its trained tensors; see `BrewClip`.

    Raises:
        ValueError: they are not of such a model.
    """
    name = {"brewclip": "project_in.weight", "parallel": "class_token"}.get(params.branch)
    of_width = tensors.get(f"acoustic.{name or 'class_tokens'}")
    if of_width is None:
        raise ValueError(f"there is no tensor {name or 'class_tokens'}")
    if not params.hears_layers:
        return (of_width.shape[-1],)
    # Without weights any number of layers will do.
    weights = tensors.get("layer_mix.weights")
    return (1 if weights is None else len(weights), of_width.shape[-1])


def mean_by(index_R: Tensor, rows_RE: Tensor, count: int) -> Tensor:
    """The mean of the rows with each number from 0 to `count` (exclusive): (N, E)."""
    sums_NE = rows_RE.new_zeros(count, rows_RE.shape[1]).index_add(0, index_R, rows_RE)
    # `torch.bincount` would have to wait for the device, to know how many there are.
    counts_N = rows_RE.new_zeros(count).index_add(0, index_R, rows_RE.new_ones(len(index_R)))
    return sums_NE / counts_N[:, None]


def _normalisation(backbone: ClipBackbone) -> tuple[Tensor, Tensor]:
    """Mean and deviation of pixels, (3, 1, 1) each, from the last step of CLIP's own transform."""
    normalise = backbone.preprocess.transforms[-1]  # type: ignore[attr-defined]
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (normalise.mean, normalise.std))
    return mean, std
