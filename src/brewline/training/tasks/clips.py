"""What the tasks about clips of videos have in common: their model, and its inputs."""

from brewline.config.recipes import RecipeParams
from brewline.config.variants import VariantParams
from brewline.models.backbones import ClipBackbone
from brewline.models.sounds import SoundModel
from brewline.models.trained import TrainedModule

# Selection reads recall@1; the others are followed.
RECALL_AT = (1, 5, 10)


def new_sound_model(
    backbone: ClipBackbone, switches: VariantParams, recipe: RecipeParams, train_text: bool
) -> SoundModel:
    """A new model for a recipe; see `SoundModel`."""
    return SoundModel(backbone, switches, recipe.temperature, recipe.learn_temperature, train_text)


def sound_model(model: TrainedModule) -> SoundModel:
    """The model that `make_model` gave, as what it is."""
    assert isinstance(model, SoundModel)
    return model
