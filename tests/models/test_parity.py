"""The model that is trained against a slow one: features, loss and every gradient, to 1e-5."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from slow_model import SlowModel, unit
from tiny_models import ACOUSTIC, SPEECHCLIP_C, SPEECHCLIP_P, in_layers, make_world, variant
from torch import Tensor

from brewline.config.recipes import RecipeParams, SameImage
from brewline.config.variants import VariantParams
from brewline.core.ranks import ALONE
from brewline.models.backbones import ClipBackbone
from brewline.models.brewclip import BrewClip
from brewline.training.tasks.retrieval import Retrieval

TOLERANCE = 1e-5
# Dropout draws by torch's own rules, which no reference follows.
STEADY = ACOUSTIC.model_copy(update={"dropout": 0.0})


def steady(switches: VariantParams, **changes: Any) -> VariantParams:
    assert switches.acoustic is not None
    acoustic = switches.acoustic.model_copy(update={"dropout": 0.0, **changes})
    return switches.model_copy(update={"acoustic": acoustic})


VARIANTS = {
    "prompted": variant(acoustic=None),
    "prompted-captions": variant(text="caption", acoustic=None),
    "e2e": variant(text=None, acoustic=STEADY),
    "full": variant(acoustic=STEADY, alpha=0.1),
    "full-captions": variant(text="caption", acoustic=STEADY, alpha=0.25),
    "full-two-layers": variant(acoustic=STEADY.model_copy(update={"layers": 2}), alpha=0.5),
    "full-deep": variant(acoustic=STEADY, prompt_depth=2, alpha=0.1),
    "full-unit-sum": variant(acoustic=STEADY, fusion="unit_sum"),
    "full-gate": variant(acoustic=STEADY, fusion="gate"),
    "prompted-chunks": variant(acoustic=None, long_texts="chunk"),
    "full-without-prompts": variant(acoustic=STEADY, prompts=0),
    "full-of-layers": variant(acoustic=STEADY.model_copy(update={"encoder": "hubert"})),
    "speechclip-p": steady(SPEECHCLIP_P),
    "speechclip-p-rerun": steady(SPEECHCLIP_P, normalise_layers=False, learn_layers=False),
    "speechclip-c": steady(SPEECHCLIP_C),
}


def close(ours: Tensor, theirs: Tensor) -> None:
    """Alike to 1e-5 of the largest number of a tensor, or of 1."""
    assert ours.dtype == torch.float32 and theirs.dtype == torch.float64
    size = max(1.0, float(theirs.detach().abs().max()))
    torch.testing.assert_close(ours.double(), theirs, rtol=0, atol=TOLERANCE * size)


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS)
def switches(request: pytest.FixtureRequest) -> VariantParams:
    found: VariantParams = request.param
    return found


@pytest.mark.parametrize("same_image", ["mask", "multi_positive", "contrast"])
def test_a_step_of_training_is_that_of_a_slow_model(
    backbone: ClipBackbone,
    recipe: RecipeParams,
    switches: VariantParams,
    same_image: SameImage,
) -> None:
    """From bytes to gradients: of a batch with two takes of each picture, and one long text."""
    world = make_world(num_images=3, takes=2)
    world[3] = replace(world[3], transcript="one two three four " * 9)
    world = [replace(one, confidence=0.1 + 0.13 * n) for n, one in enumerate(world)]
    batch_of = [world[place] for place in (4, 0, 3, 1, 5, 2)]
    if switches.acoustic is not None and switches.acoustic.hears_layers:
        world, batch_of = in_layers(world), in_layers(batch_of)
    recipe = recipe.model_copy(update={"same_image": same_image})
    task = Retrieval(switches, recipe, backbone)
    torch.manual_seed(1)
    model = task.make_model(world[0]).train()
    with torch.no_grad():
        # Prompts as they are drawn hardly matter: here they do.
        for name, one in model.named_parameters():
            if "prompt_tokens" in name or "gate." in name or name == "layer_mix.weights":
                torch.nn.init.normal_(one, std=0.5)
    task.begin(model, lambda: world)
    slow = SlowModel(backbone, model)

    batch = task.collate(batch_of)
    rows = task.forward(model, batch)
    loss = task.loss(model, rows, ALONE, 0).total
    expected = slow.loss(batch_of, same_image)
    for place, utterance in enumerate(batch_of):
        channels = slow.channels(utterance)
        assert rows.keys() & {"text", "acoustic"} == channels.keys()
        for name, features in channels.items():
            close(rows[name][place], features)
        close(rows["utterances"][place], unit(slow.utterance(utterance)))
        close(rows["images"][place], unit(slow.image(utterance)))
    close(loss, expected)

    loss.backward()
    expected.backward()
    ours, theirs = gradients(model), {name: one.grad for name, one in slow.trained.items()}
    assert ours.keys() == theirs.keys()
    for name, gradient in theirs.items():
        assert gradient is not None and gradient.abs().max() > 0, name
        close(ours[name], gradient)


def gradients(model: BrewClip) -> Mapping[str, Tensor]:
    found = {name: one.grad for name, one in model.trained_parameters().items()}
    assert all(one is not None for one in found.values())
    return {name: one for name, one in found.items() if one is not None}
