"""Maps of what is attended to, against a slow computation of their own; and what a crop shows."""

import io
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from tiny_models import E2E, FULL, PROMPTED, STATE_WIDTH, ZERO_SHOT, make_world
from torch import Tensor

from brewline.analysis.attended import AttentionMaps
from brewline.analysis.attention_maps import attention_maps, join_tokens
from brewline.config.variants import VariantParams
from brewline.core.errors import BrewlineError
from brewline.models.attention import watch_attention
from brewline.models.backbones import ClipBackbone, make_backbone
from brewline.models.brewclip import BrewClip
from brewline.models.crop_box import CropBox, crop_box
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator

UTTERANCE = make_world(num_images=3)[4]
EPSILON = 1e-4
# What is added to the attention of the row that the embedding is read from: (tower, head, key, how
# much).
Bump = tuple[str, int, int, float] | None


def make_model(backbone: ClipBackbone, switches: VariantParams) -> BrewClip:
    torch.manual_seed(1)
    model = BrewClip(backbone, switches, STATE_WIDTH)
    if model.prompt_tokens is not None:
        torch.nn.init.normal_(model.prompt_tokens, std=0.5)
    return model


def collator(backbone: ClipBackbone, switches: VariantParams) -> Collator:
    return Collator(input_transforms(backbone, switches), switches, 0)


class SlowModel:
    """One utterance and its picture through the model, head by head, in double precision.

    It shares no code with the towers and the branch: nothing but their weights.
    """

    def __init__(self, backbone: ClipBackbone, model: BrewClip, given: Collator) -> None:
        self.clip, self.model = backbone.clip, model
        self.inputs = given.utterance_inputs([UTTERANCE])
        pixels = given.pixels([UTTERANCE]).double() / 255
        self.pixels = (pixels - model.pixel_mean.double()) / model.pixel_std.double()
        # What the row in question attends to, by tower: a list of (L,), one for each head.
        self.weights: dict[str, list[Tensor]] = {}

    def similarity(self, bump: Bump = None) -> float:
        parts = []
        if self.inputs.token_ids is not None:
            parts.append(self.text(bump))
        if self.model.acoustic is not None:
            parts.append(self.acoustic(bump))
        spoken, seen = torch.stack(parts).sum(0), self.image(bump)
        return float(spoken @ seen / spoken.norm() / seen.norm())

    def text(self, bump: Bump) -> Tensor:
        ids = self.inputs.token_ids[0].tolist()
        rows = [self.clip.token_embedding.weight[one].double() for one in ids]
        if self.model.prompt_tokens is not None:
            prompts = list(self.model.prompt_tokens.double())
            rows[1 : 1 + len(prompts)] = prompts
        x = torch.stack(rows) + self.clip.positional_embedding[: len(ids)].double()
        end = ids.index(max(ids))
        blocks = list(self.clip.transformer.resblocks)
        for number, block in enumerate(blocks):
            is_watched = number == len(blocks) - 2
            x = self.block(x, block, end, "text" if is_watched else "", bump, causal=True)
        return norm(x[end], self.clip.ln_final) @ self.clip.text_projection.double()

    def image(self, bump: Bump) -> Tensor:
        visual = self.clip.visual
        size = visual.patch_size[0]
        rows = [visual.class_embedding.double()]
        kernel = visual.conv1.weight.double()
        for top in range(0, self.pixels.shape[2], size):
            for left in range(0, self.pixels.shape[3], size):
                patch = self.pixels[0, :, top : top + size, left : left + size]
                rows.append((kernel * patch).sum(dim=(1, 2, 3)))
        x = norm(torch.stack(rows) + visual.positional_embedding.double(), visual.ln_pre)
        if self.model.prompts_to_image is not None:
            prompts = linear(self.model.prompt_tokens.double(), self.model.prompts_to_image)
            x = torch.cat([x, norm(prompts, visual.ln_pre)])
        blocks = list(visual.transformer.resblocks)
        for number, block in enumerate(blocks):
            is_watched = number == len(blocks) - 2
            x = self.block(x, block, 0, "image" if is_watched else "", bump, causal=False)
        return norm(x[0], visual.ln_post) @ visual.proj.double()

    def acoustic(self, bump: Bump) -> Tensor:
        branch = self.model.acoustic
        lead = [branch.class_token.double()[None]]
        if self.model.prompt_tokens is not None:
            lead.append(self.model.prompt_tokens.double())
        frames = linear(self.inputs.states[0].double(), branch.project_in)
        x = torch.cat([*lead, frames])
        (layer,) = branch.layers
        x = norm(x + self.attend(x, layer.self_attn, 0, "sound", bump, False), layer.norm1)
        hidden = torch.nn.functional.gelu(linear(x, layer.linear1))
        x = norm(x + linear(hidden, layer.linear2), layer.norm2)
        return linear(norm(x[0], branch.norm), branch.project_out)

    def block(
        self, x: Tensor, block: Any, row: int, tower: str, bump: Bump, causal: bool
    ) -> Tensor:
        x = x + self.attend(norm(x, block.ln_1), block.attn, row, tower, bump, causal)
        hidden = linear(norm(x, block.ln_2), block.mlp.c_fc)
        return x + linear(torch.nn.functional.gelu(hidden), block.mlp.c_proj)

    def attend(
        self, x: Tensor, attention: Any, row: int, tower: str, bump: Bump, causal: bool
    ) -> Tensor:
        length, width = x.shape
        matrices = attention.in_proj_weight.double().chunk(3)
        biases = attention.in_proj_bias.double().chunk(3)
        queries, keys, values = (x @ m.T + b for m, b in zip(matrices, biases, strict=True))
        size = width // attention.num_heads
        heads, of_row = [], []
        for head in range(attention.num_heads):
            part = slice(head * size, (head + 1) * size)
            scores = queries[:, part] @ keys[:, part].T / math.sqrt(size)
            if causal:
                hidden = torch.ones(length, length).triu(1).bool()
                scores = scores.masked_fill(hidden, -torch.inf)
            weights = scores.softmax(dim=-1)
            of_row.append(weights[row].clone())
            if bump is not None and bump[:2] == (tower, head):
                weights[row, bump[2]] += bump[3]
            heads.append(weights @ values[:, part])
        if tower:
            self.weights.setdefault(tower, of_row)
        return linear(torch.cat(heads, dim=1), attention.out_proj)


def norm(x: Tensor, layer: Any) -> Tensor:
    deviation = (x.var(dim=-1, unbiased=False, keepdim=True) + layer.eps).sqrt()
    scaled = (x - x.mean(dim=-1, keepdim=True)) / deviation
    return scaled * layer.weight.double() + layer.bias.double()


def linear(x: Tensor, layer: Any) -> Tensor:
    return x @ layer.weight.double().T + layer.bias.double()


def slow_maps(slow: SlowModel) -> Mapping[str, NDArray[np.float64]]:
    """Attention times the central difference where it is positive, as the mean over heads."""
    with torch.no_grad():
        slow.similarity()
        found = {}
        for tower, heads in slow.weights.items():
            products = np.zeros((len(heads), len(heads[0])))
            for head, weights in enumerate(heads):
                for key, weight in enumerate(weights.tolist()):
                    above, below = (
                        slow.similarity((tower, head, key, amount))
                        for amount in (EPSILON, -EPSILON)
                    )
                    slope = (above - below) / (2 * EPSILON)
                    products[head, key] = max(0.0, weight * slope)
            found[tower] = products.mean(axis=0)
    return found


@pytest.mark.parametrize(
    "switches", [FULL, PROMPTED, E2E, ZERO_SHOT], ids=["full", "prompted", "e2e", "zero-shot"]
)
def test_maps_are_those_of_a_slow_computation(
    backbone: ClipBackbone, switches: VariantParams
) -> None:
    model, given = make_model(backbone, switches), collator(backbone, switches)
    found = attention_maps(model, backbone, given, UTTERANCE)
    slow = SlowModel(backbone, model, given)
    with torch.no_grad():
        assert found.similarity == pytest.approx(slow.similarity(), abs=1e-5)
    expected = slow_maps(slow)
    first = 1 + switches.prompts
    close: Callable[..., None] = lambda one, other: np.testing.assert_allclose(  # noqa: E731
        one, other, rtol=2e-3, atol=1e-7
    )
    # Class token, sixteen patches, prompts.
    close(found.patches, expected["image"][1:17].reshape(4, 4))
    assert found.patches.max() > 0
    if switches.text:
        # Start token, prompts, words, end token: of "a blue picture, take 0." seven parts.
        close(found.word_weights, expected["text"][first:-1])
        assert found.words == ["a", "blue", "picture", ",", "take", "0", "."]
    else:
        assert found.words is None and found.word_weights is None
    if switches.acoustic:
        close(found.frames, expected["sound"][first:])
        assert len(found.frames) == math.ceil(UTTERANCE.num_frames / 2)
        assert found.frame_s == pytest.approx(0.04)
    else:
        assert found.frames is None and found.frame_s is None


def maps(backbone: ClipBackbone, model: BrewClip) -> AttentionMaps:
    return attention_maps(model, backbone, collator(backbone, model.switches), UTTERANCE)


def test_each_map_is_of_its_own_tower(backbone: ClipBackbone) -> None:
    """Without what a tower gives, its map is nothing, and the others are not."""
    model = make_model(backbone, FULL)
    before = maps(backbone, model)
    assert all(one.max() > 0 for one in (before.patches, before.word_weights, before.frames))
    assert model.acoustic is not None
    with torch.no_grad():
        # What the branch gives no longer depends on what it hears.
        model.acoustic.project_out.weight.zero_()
    after = maps(backbone, model)
    assert not after.frames.any()
    assert after.patches.any() and after.word_weights.any()


def test_watching_changes_nothing_that_comes_out(backbone: ClipBackbone) -> None:
    model, given = make_model(backbone, FULL), collator(backbone, FULL)
    utterances = make_world(num_images=3)
    inputs, pixels = given.utterance_inputs(utterances), given.pixels(utterances)
    with torch.no_grad():
        before = model.encode_utterances(inputs), model.encode_images(pixels)
    with watch_attention() as watched:
        during = model.encode_utterances(inputs), model.encode_images(pixels)
    # Two blocks of each tower, and the branch.
    assert len(watched) == 5
    torch.testing.assert_close(during[0].embeddings, before[0].embeddings)
    torch.testing.assert_close(during[0].acoustic, before[0].acoustic)
    torch.testing.assert_close(during[1], before[1])
    for weights in watched.values():
        sums = weights.sum(dim=-1)
        torch.testing.assert_close(sums, torch.ones_like(sums))
    # Padding is not attended to.
    last = model.acoustic.layers[-1].self_attn
    hidden = ~inputs.frame_mask[:, None, None].expand(-1, watched[last].shape[1], 1, -1)
    assert hidden.any() and not watched[last][..., 1 + FULL.prompts :][hidden].any()
    with torch.no_grad():
        model.encode_images(pixels)
    assert len(watched) == 5, "nobody watches any more"


def test_parts_of_a_word_are_joined(backbone: ClipBackbone) -> None:
    ids = backbone.tokenizer(["a skateboarder's unbelievability"])[0]
    inner = ids[1 : int(ids.argmax())].tolist()
    assert len(inner) > 4
    words, weights = join_tokens(backbone.tokenizer, inner, np.arange(1.0, 1 + len(inner)))
    assert words[0] == "a" and "".join(words) == "askateboarder'sunbelievability"
    assert weights.sum() == np.arange(1.0, 1 + len(inner)).sum()
    assert words[-1] == "unbelievability"
    parts = len(backbone.tokenizer.encode("unbelievability"))
    assert parts > 1
    assert weights[-1] == sum(range(len(inner) - parts + 1, len(inner) + 1))


@pytest.mark.parametrize("size", [(90, 60), (61, 97), (64, 64), (400, 37)])
@pytest.mark.parametrize("side", [32, 112])
def test_a_square_in_the_crop_lies_where_it_was_in_the_picture(
    side: int, size: tuple[int, int]
) -> None:
    """A white square in a black picture goes through CLIP's own crop, and is sent back."""
    preprocess = image_transform_v2(PreprocessCfg(size=side), is_train=False)
    backbone = make_backbone(
        open_clip.CLIP(8, {"image_size": side, "layers": 1, "width": 8, "patch_size": 16,
                           "head_width": 8},
                       {"context_length": 8, "vocab_size": 16, "width": 8, "heads": 1,
                        "layers": 1}),
        open_clip.SimpleTokenizer(context_length=8), preprocess,
    )  # fmt: skip
    width, height = size
    short = min(size)
    left, top = (width - short) // 2 + short // 4, (height - short) // 2 + short // 3
    square = short // 4
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[top : top + square, left : left + square] = 255
    cropped = np.asarray(input_transforms(backbone, ZERO_SHOT).crop(Image.fromarray(pixels)))
    seen = cropped[..., 0].astype(float) / 255
    box = crop_box(backbone, width, height)
    # The middle and the area of the square, in pixels of the picture.
    rows, columns = (seen.sum(axis=axis) / seen.sum() for axis in (1, 0))
    places = np.arange(side) + 0.5
    middle = (
        (box.left + box.width * (columns @ places) / side) * width,
        (box.top + box.height * (rows @ places) / side) * height,
    )
    expected = left + square / 2, top + square / 2
    # Half a pixel of the crop, and what rounding costs.
    room = 0.75 * short / side + 0.5
    assert middle == pytest.approx(expected, abs=room)
    area = seen.sum() * (box.width * width / side) * (box.height * height / side)
    assert area == pytest.approx(square**2, rel=0.15)
    assert box.lost == pytest.approx(1 - short / max(size), abs=2 / side)


def test_a_picture_of_three_to_two_loses_its_sides(backbone: ClipBackbone) -> None:
    # Scaled to 48 by 32, of which 32 by 32 remain.
    assert crop_box(backbone, 96, 64) == CropBox(8 / 48, 0, 32 / 48, 1)
    assert crop_box(backbone, 64, 96) == CropBox(0, 8 / 48, 1, 32 / 48)
    assert crop_box(backbone, 50, 50) == CropBox(0, 0, 1, 1)


def test_other_ways_to_prepare_a_picture(backbone: ClipBackbone) -> None:
    for mode in ("squash", "longest"):
        preprocess = image_transform_v2(PreprocessCfg(size=32, resize_mode=mode), is_train=False)
        other = make_backbone(backbone.clip, backbone.tokenizer, preprocess)
        if mode == "squash":
            assert crop_box(other, 96, 64) == CropBox(0, 0, 1, 1)
        else:
            with pytest.raises(BrewlineError, match=r"resize_mode .* is shortest or squash"):
                crop_box(other, 96, 64)


def test_the_pictures_of_the_world_are_no_squares() -> None:
    assert UTTERANCE.image is not None
    assert Image.open(io.BytesIO(UTTERANCE.image)).size == (40, 48)
