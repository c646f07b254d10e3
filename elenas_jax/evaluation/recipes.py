"""Recipes: how one network is trained, whatever it is and whatever it is trained on.

The defaults are those of einspace (Ericsson et al., 2024) for the Unseen NAS data sets: SGD with momentum,
a cosine over epochs, no augmentation, and the score of the last epoch counts.
"""

from typing import NamedTuple

import numpy as np
import optax

OPTIMISERS = ("sgd", "adam")
SCHEDULES = ("cosine", "constant")


class Recipe(NamedTuple):
    """How a network is trained."""

    optimiser: str = "sgd"  # of `OPTIMISERS`
    learning_rate: float = 0.04  # of the first epoch
    momentum: float = 0.9  # of SGD
    weight_decay: float = 3e-4  # coupled L2, of every parameter, as PyTorch's optimisers have it
    schedule: str = "cosine"  # of `SCHEDULES`
    batch_size: int = 256
    epochs: int = 8
    patience: int = 0  # epochs without a better validation metric that end a training; 0 is never


class Course(NamedTuple):
    """How long a training takes."""

    epochs: int
    steps: int  # of an epoch


def check_recipe(recipe: Recipe) -> None:
    """Raises ValueError for the first setting out of range."""
    for name, allowed in (("optimiser", OPTIMISERS), ("schedule", SCHEDULES)):
        if getattr(recipe, name) not in allowed:
            raise ValueError(
                f"{name} is {getattr(recipe, name)!r}; allowed are {', '.join(map(repr, allowed))}."
            )
    for name in ("batch_size", "epochs"):
        if getattr(recipe, name) < 1:
            raise ValueError(f"{name} is {getattr(recipe, name)}; it must be at least 1.")
    if recipe.learning_rate <= 0:
        raise ValueError(f"learning_rate is {recipe.learning_rate}; it must be above 0.")
    if not 0 <= recipe.momentum < 1:
        raise ValueError(f"momentum is {recipe.momentum}; it must be at least 0 and below 1.")
    if recipe.weight_decay < 0 or recipe.patience < 0:
        raise ValueError(
            f"weight_decay ({recipe.weight_decay}) and patience ({recipe.patience}) must be at least 0."
        )


def learning_rates(recipe: Recipe, epochs: int) -> np.ndarray:
    """Returns `[epochs]` float32, the learning rate of each epoch.

    The cosine (Loshchilov and Hutter, 2017) falls from the first epoch on and would reach 0 after the
    last: PyTorch's `CosineAnnealingLR` with T_max = epochs, stepped once an epoch.
    """
    place = np.arange(epochs) / epochs
    share = 0.5 * (1 + np.cos(np.pi * place)) if recipe.schedule == "cosine" else np.ones(epochs)
    return (recipe.learning_rate * share).astype(np.float32)


def make_direction(recipe: Recipe) -> optax.GradientTransformation:
    """Returns what turns gradients into a direction; a step is minus learning rate times it.

    The learning rate stays outside, so that one compiled program serves all of them, and outside the
    momentum, as in PyTorch: a smaller rate acts on old gradients at once.
    """
    parts = [optax.add_decayed_weights(recipe.weight_decay)] if recipe.weight_decay else []
    if recipe.optimiser == "adam":
        return optax.chain(*parts, optax.scale_by_adam())
    return optax.chain(*parts, *([optax.trace(recipe.momentum)] if recipe.momentum else []))


def make_course(recipe: Recipe, budget: float, steps_per_epoch: int) -> Course:
    """Returns how long a training takes at a budget.

    Args:
      recipe: whose epochs are a budget of 1.
      budget: a multiple of them, rounded to whole epochs; less than one epoch is a part of one.
      steps_per_epoch: of a whole epoch.
    """
    epochs = recipe.epochs * budget
    if epochs < 1:
        return Course(1, max(1, round(steps_per_epoch * epochs)))
    return Course(round(epochs), steps_per_epoch)
