"""Recipes: published learning rates, and steps as PyTorch takes them."""

import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.evaluation.recipes import (
    Course,
    Recipe,
    check_recipe,
    learning_rates,
    make_course,
    make_direction,
)


def test_the_published_cosine():
    golden = [0.040000, 0.038478, 0.034142, 0.027654, 0.020000, 0.012346, 0.005858, 0.001522]
    np.testing.assert_allclose(learning_rates(Recipe(), 8), golden, atol=5e-7)
    assert learning_rates(Recipe(schedule="constant"), 3).tolist() == [np.float32(0.04)] * 3
    assert learning_rates(Recipe(), 1).tolist() == [np.float32(0.04)]


@pytest.mark.parametrize("momentum", (0.9, 0.0))
def test_sgd_with_coupled_weight_decay(momentum):
    """As torch.optim.SGD: g += decay * p; v = momentum * v + g; p -= rate * v."""
    recipe = Recipe(weight_decay=0.1, momentum=momentum)
    direction = make_direction(recipe)
    params, velocity = np.array([1.0, -2.0]), np.zeros(2)
    ours, state = jnp.array(params), direction.init(jnp.array(params))
    for rate, gradient in ((0.5, [1.0, 2.0]), (0.25, [-1.0, 0.5]), (0.1, [0.0, 0.0])):
        velocity = momentum * velocity + np.array(gradient) + 0.1 * params
        params = params - rate * velocity
        step, state = direction.update(jnp.array(gradient), state, ours)
        ours = ours - rate * step
        np.testing.assert_allclose(ours, params, rtol=1e-6)


def test_adam_with_coupled_weight_decay():
    """As torch.optim.Adam: the decay goes through the moments."""
    direction = make_direction(Recipe(optimiser="adam", weight_decay=0.1))
    params = np.array([1.0, -2.0])
    first, second, state = np.zeros(2), np.zeros(2), direction.init(jnp.array(params))
    ours = jnp.array(params)
    for count, gradient in enumerate(([1.0, 2.0], [-1.0, 0.5]), start=1):
        decayed = np.array(gradient) + 0.1 * params
        first, second = 0.9 * first + 0.1 * decayed, 0.999 * second + 0.001 * decayed**2
        params = params - 0.01 * (first / (1 - 0.9**count)) / (np.sqrt(second / (1 - 0.999**count)) + 1e-8)
        step, state = direction.update(jnp.array(gradient), state, ours)
        ours = ours - 0.01 * step
        np.testing.assert_allclose(ours, params, rtol=1e-4)


def test_budgets_are_epochs_or_a_part_of_one():
    recipe = Recipe(epochs=9)
    assert make_course(recipe, 1.0, 20) == Course(9, 20)
    assert make_course(recipe, 1 / 3, 20) == Course(3, 20)
    assert make_course(recipe, 1 / 18, 20) == Course(1, 10)
    assert make_course(recipe, 1e-6, 20) == Course(1, 1)


MISTAKES = {
    "optimiser": ("adamw", "optimiser is 'adamw'; allowed are 'sgd', 'adam'"),
    "schedule": ("linear", "schedule is 'linear'; allowed are 'cosine', 'constant'"),
    "batch_size": (0, "batch_size is 0; it must be at least 1"),
    "epochs": (0, "epochs is 0"),
    "learning_rate": (0.0, "learning_rate is 0.0; it must be above 0"),
    "momentum": (1.0, "momentum is 1.0; it must be at least 0 and below 1"),
    "weight_decay": (-1.0, "weight_decay"),
    "patience": (-1, "patience"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_settings_out_of_range(name):
    value, words = MISTAKES[name]
    with pytest.raises(ValueError, match=words):
        check_recipe(Recipe()._replace(**{name: value}))
    check_recipe(Recipe())
