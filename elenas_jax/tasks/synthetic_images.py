"""Stand-ins for image data sets: generated, of any layout, learnable, for tests without data files.

An image is noise plus patterns: that of its class, those of its labels, or, of numbers to predict, each
pattern as strong as one of the numbers. The patterns are drawn once for all splits. With a target for each
pixel an image is noise plus a pattern of its own, whose values, or their signs, are the targets.
"""

import math

import numpy as np

from elenas_jax.tasks.image_sets import SPLITS, Layout, Pair

_COARSE = 4  # values of a pattern are constant over squares of this side
_STRENGTH, _NOISE = 40.0, 30.0  # deviations, in grey levels


def synthetic_pair(layout: Layout, split: str, count: int, seed: int) -> Pair:
    """Returns `[count, *layout.shape]` uint8 images and their targets.

    Args:
      layout: of the data set that is stood in for.
      split: the patterns are the same in all splits, the examples are not.
      count: N.
      seed: of patterns and examples.
    """
    if layout.is_dense:
        return _dense_pair(layout, np.random.default_rng((seed, SPLITS.index(split))), count)
    patterns = _patterns(layout.num_outputs, layout.shape, np.random.default_rng((seed, len(SPLITS))))
    rng = np.random.default_rng((seed, SPLITS.index(split)))
    targets: np.ndarray
    if layout.kind == "classes":
        targets = rng.permutation(np.arange(count) % layout.num_outputs)
        signal = patterns[targets]
    elif layout.kind == "labels":
        targets = rng.integers(2, size=(count, layout.num_outputs))
        signal = np.tensordot(targets - 0.5, patterns, axes=1) * math.sqrt(4 / layout.num_outputs)
    else:
        weights = rng.normal(size=(count, layout.num_outputs))
        targets = weights.astype(np.float32)
        signal = np.tensordot(weights, patterns, axes=1) / math.sqrt(layout.num_outputs)
    return _images(signal, rng), targets


def _dense_pair(layout: Layout, rng: np.random.Generator, count: int) -> Pair:
    signal = _patterns(count, (1, *layout.shape[1:]), rng)
    targets = signal[:, 0] > 0 if layout.kind == "labels" else signal[:, 0]
    images = _images(np.broadcast_to(signal, (count, *layout.shape)), rng)
    return images, targets.astype(np.uint8 if layout.kind == "labels" else np.float32)


def _images(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    images = np.empty(signal.shape, np.uint8)
    for image, own in zip(images, signal, strict=True):  # one by one: all noise at once may take gigabytes
        image[:] = np.clip(128 + _STRENGTH * own + rng.normal(scale=_NOISE, size=own.shape), 0, 255)
    return images


def _patterns(count: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Returns `[count, *shape]` of deviation about 1, constant over squares."""
    coarse = rng.normal(size=(count, shape[0], *(math.ceil(size / _COARSE) for size in shape[1:])))
    for axis, size in enumerate(shape[1:], start=2):
        coarse = np.repeat(coarse, _COARSE, axis=axis).take(np.arange(size), axis=axis)
    return coarse
