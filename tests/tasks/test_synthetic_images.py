"""Stand-ins for images: shapes, determinism, and that they can be learned."""

import numpy as np
import pytest

from elenas_jax.tasks.image_sets import Layout
from elenas_jax.tasks.image_table import IMAGE_SETS
from elenas_jax.tasks.synthetic_images import synthetic_pair


@pytest.mark.parametrize("name", IMAGE_SETS)
def test_shapes_are_those_of_the_set(name):
    layout = IMAGE_SETS[name].layout
    images, targets = synthetic_pair(layout, "train", 7, seed=0)
    assert images.shape == (7, *layout.shape) and images.dtype == np.uint8
    if layout.is_dense:
        assert targets.shape == (7, *layout.shape[1:])
    else:
        assert targets.shape == ((7,) if layout.kind == "classes" else (7, layout.num_outputs))


def fit(layout, seed=0):
    """Returns outputs of a linear model of least squares on test examples, and their targets."""
    features, goals = [], []
    for split, count in (("train", 400), ("test", 100)):
        images, targets = synthetic_pair(layout, split, count, seed)
        features.append(np.c_[images.reshape(count, -1) / 128 - 1, np.ones(count)])
        goals.append(np.eye(layout.num_outputs)[targets] if layout.kind == "classes" else targets)
    train, test = features
    gram = train.T @ train + 10 * np.eye(train.shape[1])
    return test @ np.linalg.solve(gram, train.T @ goals[0]), goals[1]


def test_classes_labels_and_numbers_can_be_learned():
    outputs, targets = fit(Layout((1, 12, 12), 5))
    assert (outputs.argmax(axis=1) == targets.argmax(axis=1)).mean() > 0.9
    outputs, targets = fit(Layout((1, 12, 12), 4, "labels"))
    assert ((outputs > 0.5) == targets).mean() > 0.8
    outputs, targets = fit(Layout((2, 40), 3, "numbers"))
    assert np.square(outputs - targets).mean() < 0.5 * np.square(targets).mean()


@pytest.mark.parametrize("kind", ["labels", "numbers"])
def test_pixels_can_be_learned(kind):
    images, targets = synthetic_pair(Layout((1, 12, 8), 96, kind), "train", 30, 0)
    assert targets.shape == (30, 12, 8)
    # Every pixel tells its own target, but for the noise.
    grey, wanted = images[:, 0] / 128.0 - 1, targets.astype(float)
    assert np.corrcoef(grey.ravel(), wanted.ravel())[0, 1] > 0.5
    assert kind == "numbers" or set(np.unique(targets)) == {0, 1}


def test_seed_and_split_decide():
    layout = Layout((1, 8, 8), 4)
    first = synthetic_pair(layout, "train", 20, 0)
    for same, other in zip(first, synthetic_pair(layout, "train", 20, 0)):
        np.testing.assert_array_equal(same, other)
    for split, seed in (("valid", 0), ("train", 1)):
        assert (synthetic_pair(layout, split, 20, seed)[0] != first[0]).any()
    assert np.bincount(first[1]).tolist() == [5] * 4
