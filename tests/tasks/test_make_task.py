"""The table of tasks: defaults, keys, transformations and mistakes."""

import jax
import numpy as np
import pytest

from elenas_jax.tasks import LOSSES, TASKS, make_sequence_task, make_task
from elenas_jax.tasks.images import IMAGE_TASKS
from elenas_jax.types import DataTask

# The ELENAS specification, section 4; memory is this project's.
DEFAULTS = {
    "reber": ("binary", 0.80, 0.50, 0.1, 32, 20_000, 2_000),
    "embedded_reber": ("binary", 0.70, 0.50, 0.1, 32, 50_000, 5_000),
    "adding": ("squared", 0.40, 0.15, 1.0, 32, 90_000, 9_000),
    "memory": ("categorical", 0.90, 1 / 7, 1.0, 20, 200_000, 20_000),
}


def test_the_table():
    assert {*TASKS} == {*DEFAULTS, *IMAGE_TASKS}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults(name):
    task = make_task(name)
    assert task.name == name and task.loss in LOSSES
    assert DEFAULTS[name] == (
        task.loss,
        task.threshold,
        task.untrained,
        task.weight,
        task.time_steps,
        task.train_samples,
        task.valid_samples,
    )


@pytest.fixture(scope="module", params=DEFAULTS)
def short_task(request):
    settings = {"negatives": "near_miss"} if "reber" in request.param else {}
    return make_task(request.param, length=12, **settings)


def test_the_same_settings_give_the_same_generator(short_task):
    settings = {"negatives": "near_miss"} if "reber" in short_task.name else {}
    assert make_task(short_task.name, length=12, weight=3.0, **settings).sample is short_task.sample


def test_examples_follow_from_the_key(short_task):
    first, again, other = (short_task.sample(jax.random.key(seed), 33) for seed in (7, 7, 8))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert (np.asarray(first.inputs) != other.inputs).any()


def test_vmap_over_keys_is_a_loop_over_keys(short_task):
    keys = jax.random.split(jax.random.key(0), 3)
    batched = jax.jit(jax.vmap(lambda key: short_task.sample(key, 33)))(keys)
    assert batched.inputs.dtype == batched.targets.dtype == np.float32
    for inputs, targets, key in zip(batched.inputs, batched.targets, keys):
        one = short_task.sample(key, 33)
        np.testing.assert_array_equal(inputs, one.inputs)
        np.testing.assert_array_equal(targets, one.targets)


def test_overrides():
    task = make_task("reber", negatives="near_miss", length=20, threshold=0.9, train_samples=64)
    assert (task.time_steps, task.threshold, task.train_samples, task.valid_samples) == (20, 0.9, 64, 2_000)


def test_tasks_on_images():
    task = make_task("addnist", source="synthetic", seed=3, threshold=0.5, weight=2.0)
    assert isinstance(task, DataTask) and (task.threshold, task.weight) == (0.5, 2.0)
    assert "seed 3" in task.variant
    assert make_sequence_task("adding", length=8).time_steps == 8


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, "Unknown task 'rebber'; known are reber, embedded_reber, adding", {"name": "rebber"}),
        (
            ValueError,
            "negatives is 'hard'; known are random, near_miss",
            {"name": "reber", "negatives": "hard"},
        ),
        (ValueError, "adding has no negatives", {"name": "adding", "negatives": "random"}),
        (ValueError, "unknown setting 'treshold'; allowed are", {"name": "adding", "treshold": 0.5}),
        (ValueError, "unknown setting 'sample'", {"name": "adding", "sample": None}),
        (ValueError, "train_samples is 0; it must be at least 1", {"name": "adding", "train_samples": 0}),
        (ValueError, r"addnist has no length \(got 3\)\.", {"name": "addnist", "length": 3}),
        (ValueError, "addnist has no negatives", {"name": "addnist", "negatives": "random"}),
        (
            ValueError,
            "addnist: unknown setting 'train_samples'; allowed are source, num_train, num_valid,",
            {"name": "addnist", "train_samples": 3},
        ),
        (TypeError, "length is '32'; it must be int", {"name": "reber", "length": "32"}),
        (TypeError, "length is 32.0; it must be int", {"name": "reber", "length": 32.0}),
        (TypeError, "train_samples is True; it must be int", {"name": "reber", "train_samples": True}),
        (TypeError, "threshold is '0.5'; it must be int or float", {"name": "reber", "threshold": "0.5"}),
        (TypeError, "threshold is None; it must be int or float", {"name": "addnist", "threshold": None}),
        (TypeError, "npy: untrained is '0'; it must be int or float", {"name": "npy", "untrained": "0"}),
        (ValueError, r"seed, threshold, untrained, weight\.$", {"name": "npy", "treshold": 0.5}),
    ],
)
def test_mistakes_are_named(error, message, arguments):
    with pytest.raises(error, match=message):
        make_task(**arguments)


def test_tasks_on_images_are_none_on_sequences():
    with pytest.raises(
        ValueError, match=r"addnist is a task on images; tasks on sequences are reber, .*memory\."
    ):
        make_sequence_task("addnist")
