"""SpeechCLIP: a mixture of layers, a stretch of a recording, and words that a recording becomes."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from tiny_models import (
    CASCADED,
    COLOURS,
    NUM_LAYERS,
    PARALLEL,
    SPEECHCLIP_C,
    SPEECHCLIP_P,
    STATE_WIDTH,
    in_layers,
    make_world,
    variant,
)
from torch import Tensor

from brewline.analysis.keywords import _word
from brewline.config.variants import AcousticParams, VariantParams
from brewline.core.errors import BrewlineError
from brewline.models.backbones import ClipBackbone
from brewline.models.brewclip import BrewClip, state_shape_of
from brewline.models.inputs import UtteranceInputs
from brewline.models.layer_mix import LayerMix, random_crop
from brewline.models.transforms import input_transforms
from brewline.samples.collator import Collator
from brewline.samples.utterance import Utterance

SHAPE = (NUM_LAYERS, STATE_WIDTH)


def inputs_of(
    backbone: ClipBackbone, switches: VariantParams, world: list[Utterance]
) -> UtteranceInputs:
    collator = Collator(input_transforms(backbone, switches), switches)
    return collator.utterance_inputs(world)


def hearing(acoustic: AcousticParams) -> VariantParams:
    return variant(text=None, acoustic=acoustic, prompts=0)


def test_layers_are_weighed_by_what_is_learned() -> None:
    states = torch.randn(2, 5, 3, 4)
    mix = LayerMix(3, normalise=False, learn=True)
    torch.testing.assert_close(mix(states), states.mean(dim=2))
    assert mix.weights is not None
    with torch.no_grad():
        mix.weights.copy_(torch.tensor([0.2, 0.3, 0.5]).log() + 7)
    expected = 0.2 * states[:, :, 0] + 0.3 * states[:, :, 1] + 0.5 * states[:, :, 2]
    torch.testing.assert_close(mix(states), expected)
    # A layer that is a hundred times as large counts no more than the others.
    large = states * torch.tensor([1.0, 100.0, 1.0])[:, None]
    normal = LayerMix(3, normalise=True, learn=False)
    torch.testing.assert_close(normal(large), normal(states), atol=1e-3, rtol=1e-3)
    assert not list(normal.parameters())


def test_a_stretch_of_a_recording_is_left_wherever_it_is_drawn() -> None:
    lengths = torch.tensor([9, 4, 3, 1])
    mask = torch.arange(9) < lengths[:, None]
    seen = set()
    for _ in range(200):
        left = random_crop(mask, 4)
        assert left.sum(dim=1).tolist() == [4, 4, 3, 1]
        assert not (left & ~mask).any()
        first = left.int().argmax(dim=1)
        assert torch.equal(left, (torch.arange(9) >= first[:, None]) & left)
        places = left[0].nonzero()[:, 0]
        assert torch.equal(places, places[0] + torch.arange(4))
        seen.add(int(first[0]))
    assert seen == {0, 1, 2, 3, 4, 5}


def test_training_hears_a_stretch_and_measuring_hears_all(backbone: ClipBackbone) -> None:
    cropped = hearing(PARALLEL.model_copy(update={"crop_s": 0.06, "dropout": 0.0}))
    world = in_layers(make_world(4))
    inputs = inputs_of(backbone, cropped, world)
    model = BrewClip(backbone, cropped, SHAPE)
    _, in_training = model.train().frames(inputs)
    _, measured = model.eval().frames(inputs)
    # Of 50 frames a second.
    assert in_training.sum(dim=1).tolist() == [3] * len(world)
    assert inputs.frame_mask is not None and torch.equal(measured, inputs.frame_mask)


@pytest.mark.parametrize("switches", [SPEECHCLIP_P, SPEECHCLIP_C], ids=["p", "c"])
def test_what_a_recording_becomes_depends_on_no_other(
    backbone: ClipBackbone, switches: VariantParams
) -> None:
    """Neither on who shares its batch, nor on the padding up to the longest of it."""
    torch.manual_seed(0)
    model = BrewClip(backbone, switches, SHAPE)
    if switches is SPEECHCLIP_C:
        model.acoustic.set_vocabulary(COLOURS)  # type: ignore[union-attr, operator]
    world = in_layers(make_world(4))
    together = model.encode_utterances(inputs_of(backbone, switches, world)).embeddings
    alone = [
        model.encode_utterances(inputs_of(backbone, switches, [one])).embeddings for one in world
    ]
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-5)
    # In training too, but for what is dropped.
    assert not [name for name, _ in model.named_buffers() if "running" in name]


def test_a_cascaded_branch_learns_the_words_that_are_said(backbone: ClipBackbone) -> None:
    """Towards the features of texts of one word it finds that word, and in new recordings too."""
    switches = hearing(CASCADED.model_copy(update={"keywords": 2}))
    torch.manual_seed(0)
    model = BrewClip(backbone, switches, SHAPE)
    branch = model.acoustic
    branch.set_vocabulary([f"a {colour} picture, take" for colour in COLOURS])  # type: ignore[union-attr, operator]
    world, new = in_layers(make_world(8)), in_layers(make_world(8, first=80))
    texts = backbone.tokenizer([f"{colour} {colour}" for colour in COLOURS])
    with torch.no_grad():
        targets = F.normalize(backbone.clip.encode_text(texts), dim=-1)
    inputs, colours = inputs_of(backbone, switches, world), colours_of(world)
    optimiser = torch.optim.Adam(model.trained_parameters().values(), lr=3e-3)
    model.train()
    for _ in range(250):
        optimiser.zero_grad()
        said = model.encode_utterances(inputs).embeddings
        F.cross_entropy(said @ targets.T / 0.07, colours).backward()
        optimiser.step()
    model.eval()
    tokens = branch.keywords(*model.frames(inputs_of(backbone, switches, new)))  # type: ignore[union-attr, operator]
    words = [[_word(backbone, token) for token in row] for row in tokens.tolist()]
    truth = [COLOURS[colour] for colour in colours_of(new).tolist()]
    right = sum(colour in row for colour, row in zip(truth, words, strict=True))
    # Two of twelve words: by chance it would be a sixth.
    assert right >= 0.6 * len(truth), list(zip(truth, words, strict=True))


def colours_of(world: list[Utterance]) -> Tensor:
    return torch.tensor([int(str(one.image_id)[1:]) % len(COLOURS) for one in world])


@pytest.mark.parametrize(
    "switches",
    [
        SPEECHCLIP_P,
        SPEECHCLIP_C,
        hearing(PARALLEL.model_copy(update={"learn_layers": False})),
        variant(acoustic=PARALLEL.model_copy(update={"branch": "brewclip"})),
    ],
    ids=["p", "c", "uniform", "brewclip"],
)
def test_trained_tensors_say_all_that_a_model_is(
    backbone: ClipBackbone, switches: VariantParams, tmp_path: Path
) -> None:
    """Its states, and the words that it may say; as the folder of a model does."""
    torch.manual_seed(0)
    model = BrewClip(backbone, switches, SHAPE)
    if switches is SPEECHCLIP_C:
        model.acoustic.set_vocabulary(["red blue", "green"])  # type: ignore[union-attr, operator]
    tensors = model.trained_tensors()
    assert switches.acoustic is not None
    again = BrewClip(backbone, switches, state_shape_of(tensors, switches.acoustic))
    again.load_trained_tensors(tensors)
    world = in_layers(make_world(3))
    ours, theirs = (
        one.encode_utterances(inputs_of(backbone, switches, world)).embeddings
        for one in (model, again)
    )
    assert torch.equal(ours, theirs)
    if switches is SPEECHCLIP_C:
        assert len(tensors["acoustic.vocabulary"]) == 3
        with pytest.raises(ValueError, match="expected"):
            again.load_trained_tensors({n: t for n, t in tensors.items() if "vocab" not in n})


def test_a_layered_encoder_needs_no_whisper_frames(backbone: ClipBackbone) -> None:
    """How many frames Whisper counted says nothing of the frames of another encoder."""
    (one, *_) = in_layers(make_world(1))
    assert one.states is not None
    inputs = inputs_of(backbone, SPEECHCLIP_P, [replace(one, num_frames=1)])
    assert inputs.states is not None
    assert inputs.states.shape[1] == len(one.states)


def test_heads_that_do_not_divide_the_states_are_refused(backbone: ClipBackbone) -> None:
    switches = hearing(PARALLEL.model_copy(update={"heads": 5}))
    with pytest.raises(BrewlineError, match=r"5 heads .* do not divide the width 12"):
        BrewClip(backbone, switches, SHAPE)
