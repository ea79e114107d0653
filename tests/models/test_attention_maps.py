"""Maps of what is attended to, against a slow computation of their own; and what a crop shows."""

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from slow_model import SlowModel
from tiny_models import E2E, FULL, PROMPTED, STATE_WIDTH, ZERO_SHOT, make_world, variant

from brewline.analysis.attended import AttentionMaps
from brewline.analysis.attention_maps import attention_maps, join_tokens
from brewline.config.variants import VariantParams
from brewline.models.attention import watch_attention
from brewline.models.backbones import ClipBackbone
from brewline.models.brewclip import BrewClip
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator

UTTERANCE = make_world(num_images=3)[4]
EPSILON = 1e-4


def make_model(backbone: ClipBackbone, switches: VariantParams) -> BrewClip:
    torch.manual_seed(1)
    model = BrewClip(backbone, switches, (STATE_WIDTH,))
    if model.prompt_tokens is not None:
        torch.nn.init.normal_(model.prompt_tokens, std=0.5)
    return model


def collator(backbone: ClipBackbone, switches: VariantParams) -> Collator:
    return Collator(input_transforms(backbone, switches), switches)


def slow_maps(slow: SlowModel) -> Mapping[str, NDArray[np.float64]]:
    """Attention times the central difference where it is positive, as the mean over heads."""
    with torch.no_grad():
        slow.similarity(UTTERANCE)
        found = {}
        for tower, heads in slow.weights.items():
            products = np.zeros((len(heads), len(heads[0])))
            for head, weights in enumerate(heads):
                for key, weight in enumerate(weights.tolist()):
                    above, below = (
                        slow.similarity(UTTERANCE, (tower, head, key, amount))
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
    slow = SlowModel(backbone, model)
    with torch.no_grad():
        assert found.similarity == pytest.approx(slow.similarity(UTTERANCE), abs=1e-5)
    expected = slow_maps(slow)
    first = 1 + switches.prompts
    close: Callable[..., None] = lambda one, other: np.testing.assert_allclose(  # noqa: E731
        one, other, rtol=2e-3, atol=1e-7
    )
    # Class token, sixteen patches, prompts.
    (patches,) = found.patches
    close(patches, expected["image"][1:17].reshape(4, 4))
    assert patches.max() > 0
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
    assert all(one.max() > 0 for one in (before.patches[0], before.word_weights, before.frames))
    assert model.acoustic is not None
    with torch.no_grad():
        # What the branch gives no longer depends on what it hears.
        model.acoustic.project_out.weight.zero_()
    after = maps(backbone, model)
    assert not after.frames.any()
    assert after.patches[0].any() and after.word_weights.any()


def test_watching_changes_nothing_that_comes_out(backbone: ClipBackbone) -> None:
    model, given = make_model(backbone, FULL), collator(backbone, FULL)
    utterances = make_world(num_images=3)
    inputs, pictures = given.utterance_inputs(utterances), given.pictures(utterances)
    with torch.no_grad():
        before = model.encode_utterances(inputs), model.encode_images(pictures)
    with watch_attention() as watched:
        during = model.encode_utterances(inputs), model.encode_images(pictures)
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
        model.encode_images(pictures)
    assert len(watched) == 5, "nobody watches any more"


def test_a_long_text_and_a_long_picture_are_looked_at_whole(backbone: ClipBackbone) -> None:
    """Every word has its place, wherever the windows are cut, and every square its own map."""
    switches = variant(acoustic=None, long_texts="chunk", pictures="multicrop")
    text = "one two three four five six seven eight nine ten eleven twelve thirteen dog"
    buffer = io.BytesIO()
    Image.open(io.BytesIO(UTTERANCE.image or b"")).resize((100, 40)).save(buffer, "PNG")
    long = replace(UTTERANCE, transcript=text, image=buffer.getvalue())
    model = make_model(backbone, switches)
    found = attention_maps(model, backbone, collator(backbone, switches), long)
    assert found.words == text.split()
    assert found.word_weights is not None and found.word_weights[[0, -1]].min() > 0
    assert [patches.shape for patches in found.patches] == [(4, 4)] * 3
    cut = variant(acoustic=None)
    short = attention_maps(make_model(backbone, cut), backbone, collator(backbone, cut), long)
    assert short.words == text.split()[:12]
    assert len(short.patches) == 1


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


def test_the_pictures_of_the_world_are_no_squares() -> None:
    assert UTTERANCE.image is not None
    assert Image.open(io.BytesIO(UTTERANCE.image)).size == (40, 48)
