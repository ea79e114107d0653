"""Section `recipes`: how models are trained."""

from typing import Annotated, Literal

from pydantic import Field

from brewline.config.types import PositiveFloat, PositiveInt, Section, Seed
from brewline.core.compute import Precision

# The recipe of experiments that train nothing, the states of variants that hear none, and the
# start of models that start from no other one. In `dvc.yaml` it names an empty folder.
NONE = "none"

# What another row of a batch with the same picture is. mask: neither right nor wrong, as in the
# authors' code. multi_positive: right too. contrast: wrong, as in the paper.
SameImage = Literal["mask", "multi_positive", "contrast"]


class RecipeParams(Section):
    """The training loop (BrewCLIP, section 4; learning-rate schedule from the authors' code)."""

    seeds: Annotated[list[Seed], Field(min_length=1)]
    steps: PositiveInt
    batch_size: PositiveInt
    # Adam is the paper's; AdamW takes weight decay apart from the gradients.
    optimiser: Literal["adam", "adamw"]
    learning_rate: PositiveFloat
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_steps: Annotated[int, Field(ge=0)]
    # From the peak down to almost nothing: along a line (the authors' code), or half a cosine.
    schedule: Literal["linear", "cosine"]
    grad_clip: PositiveFloat
    temperature: PositiveFloat
    learn_temperature: bool
    # info_nce: the right one among all of the batch (the paper's). sigmoid: each pair by itself,
    # with a bias that is learned (SigLIP's, which starts with a temperature of 0.1).
    loss: Literal["info_nce", "sigmoid"]
    same_image: SameImage
    precision: Precision
    evaluate_every: PositiveInt
