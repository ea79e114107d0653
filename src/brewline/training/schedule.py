"""What the number of a step determines: learning rate and seed."""

import math

import numpy as np
import torch

from brewline.config.recipes import RecipeParams

# The schedule ends at this fraction of its peak: 1e-8 after 1e-4 in the authors' code.
_FINAL_FRACTION = 1e-4
# No step has this number.
INITIAL = 1 << 32


def learning_rate(step: int, recipe: RecipeParams) -> float:
    """The learning rate of update number `step`, from 0: up linearly, then down to almost 0.

    Down linearly (the authors' code), or along half a cosine.
    """
    peak = recipe.learning_rate
    if step < recipe.warmup_steps:
        return peak * (step + 1) / recipe.warmup_steps
    done = (step + 1 - recipe.warmup_steps) / (recipe.steps - recipe.warmup_steps)
    if recipe.schedule == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return peak * (1 - done * (1 - _FINAL_FRACTION))


def seed_step(seed: int, step: int, part: int = 0) -> None:
    """Seeds torch for one step, so that dropout needs no state to be resumed.

    The initial parameters take the number `INITIAL`, whatever the number of steps: a longer
    training begins like a shorter one.

    Args:
        seed: Of the training.
        step: From 0.
        part: Of the batch, from 0, where it is computed in parts: each drops something else.
    """
    numbers = [seed, step, part] if part else [seed, step]
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)
    torch.manual_seed(int(state[0] >> np.uint64(1)))
