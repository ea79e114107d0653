"""The model that every task begins with."""

from brewline.config.recipes import RecipeParams
from brewline.config.variants import VariantParams
from brewline.core.errors import BrewlineError
from brewline.models.backbones import ClipBackbone
from brewline.models.brewclip import BrewClip
from brewline.samples.utterance import Utterance


def new_brewclip(
    backbone: ClipBackbone, switches: VariantParams, recipe: RecipeParams, sample: Utterance
) -> BrewClip:
    """A new model for a recipe.

    Args:
        backbone: The frozen CLIP.
        switches: The variant.
        recipe: Its loss and temperature.
        sample: An utterance, whose states tell their shape.

    Raises:
        BrewlineError: it has no states, and the variant needs them.
    """
    state_shape = None
    if switches.acoustic:
        if sample.states is None:
            raise BrewlineError("a variant with an acoustic channel needs encoder states")
        state_shape = sample.states.shape[1:]
    return BrewClip(
        backbone,
        switches,
        state_shape,
        recipe.temperature,
        recipe.learn_temperature,
        with_bias=recipe.loss == "sigmoid",
    )
