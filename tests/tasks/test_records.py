"""The error of data, and what makes network inputs of stored images."""

import jax
import numpy as np
import pytest

from elenas_jax.tasks.records import DataError, Scaling, as_inputs


def test_messages_are_one_line():
    error = DataError("a header\r\nwith a break")
    assert str(error) == "a header with a break" and isinstance(error, ValueError)


@pytest.mark.parametrize("shape, padding", [((3, 4, 5), 0), ((3, 4, 5), 2), ((3, 6), 1)])
def test_images_are_standardised_and_padded(shape, padding):
    images = np.random.default_rng(0).integers(256, size=(7, *shape)).astype(np.uint8)
    scaling = Scaling(np.float32([10, 20, 30]), np.float32([1, 2, 4]), padding)
    inputs = jax.jit(lambda images: as_inputs(images, scaling))(images)
    assert inputs.dtype == np.float32
    column = (3, *(1,) * (len(shape) - 1))
    standard = (images.astype(float) - scaling.mean.reshape(column)) / scaling.deviation.reshape(column)
    inside = (slice(None), slice(None), *(slice(padding, padding + size) for size in shape[1:]))
    assert inputs.shape == (7, 3, *(size + 2 * padding for size in shape[1:]))
    np.testing.assert_allclose(inputs[inside], standard, rtol=1e-5, atol=1e-6)
    outside = np.array(inputs)
    outside[inside] = 0
    assert not outside.any()  # zeros around what is standardised: the mean, not black
