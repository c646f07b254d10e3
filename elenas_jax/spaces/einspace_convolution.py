"""Convolutions over the last axes, and the patches that they are products with.

XLA's CPU kernels for convolutions are fast, but for two cases, in which the gradients of a product with
patches are much faster (scripts/benchmark_cpu_kernels.py): a kernel of more places than the output has
(45 times; operands are exchanged, and what comes of it has no fast kernel), and one convolution for each
copy of a shared branch (7 times; `vmap` makes groups of channels). Where windows do not overlap, patches are
nothing but a transpose. Inside a loop a convolution takes up to 30 times as long, so that none is put there.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from elenas_jax.types import Array

Padding = Sequence[tuple[int, int]]  # before and behind, for each axis


def multiplies_patches(kernel: Sequence[int], stride: int, output: Sequence[int], stacked: bool) -> bool:
    """Whether a convolution is faster as a product with patches.

    Args:
      kernel: its sizes.
      stride: of all axes.
      output: sizes of the output's axes.
      stacked: whether there is one for each copy of a branch.
    """
    return stacked or max(kernel) <= stride or math.prod(kernel) > math.prod(output)


def output_sizes(sizes: Sequence[int], kernel: Sequence[int], stride: int, padding: Padding) -> list[int]:
    """Returns the sizes of a convolution's output."""
    return [
        (size + sum(padded) - width) // stride + 1
        for size, width, padded in zip(sizes, kernel, padding, strict=True)
    ]


def unfold(inputs: Array, kernel: Sequence[int], stride: int, padding: Padding) -> Array:
    """Returns the patches under a kernel.

    Args:
      inputs: `[N, C, *sizes]`.
      kernel: its sizes.
      stride: of all axes.
      padding: with zeros.

    Returns:
      `[N, *output sizes, *reversed kernel, C]`.
    """
    output = output_sizes(inputs.shape[2:], kernel, stride, padding)
    values = jnp.moveaxis(inputs, 1, -1)
    if any(sum(padded) for padded in padding):
        values = jnp.pad(values, ((0, 0), *padding, (0, 0)))
    # What stands behind the last axis grows from C numbers to those of a patch.
    for axis, (width, size) in enumerate(zip(kernel, output, strict=True), start=1):
        if width == stride:
            whole = jax.lax.slice_in_dim(values, 0, size * stride, axis=axis)
            split = jnp.reshape(whole, (*values.shape[:axis], size, width, *values.shape[axis + 1 :]))
            values = jnp.moveaxis(split, axis + 1, -2)
        else:
            last = stride * (size - 1) + 1
            places = [
                jax.lax.slice_in_dim(values, place, place + last, stride, axis=axis) for place in range(width)
            ]
            values = jnp.stack(places, axis=-2)
        values = jnp.reshape(values, (*values.shape[:-2], -1))
    return jnp.reshape(values, (inputs.shape[0], *output, *reversed(kernel), inputs.shape[1]))


def convolve(
    inputs: Array, weights: Array, kernel: Sequence[int], stride: int, padding: Padding, stacked: bool = False
) -> Array:
    """Convolves over all axes behind the channels.

    Args:
      inputs: `[N, C, *sizes]`.
      weights: `[C * product of the kernel's sizes, D]`, channels first.
      kernel, stride, padding: of the windows.
      stacked: whether there is one for each copy of a branch.

    Returns:
      `[N, D, *output sizes]`.
    """
    rank, channels = len(kernel), inputs.shape[1]
    output = output_sizes(inputs.shape[2:], kernel, stride, padding)
    shaped = jnp.reshape(weights, (channels, *kernel, -1))
    if multiplies_patches(kernel, stride, output, stacked):
        patches = unfold(inputs, kernel, stride, padding)
        patches = jnp.reshape(patches, (inputs.shape[0], *output, -1))
        # The patches' order of the kernel's axes and the channels.
        ordered = jnp.transpose(shaped, (*range(rank, -1, -1), rank + 1))
        product = jnp.dot(patches, jnp.reshape(ordered, (patches.shape[-1], -1)))
        return jnp.moveaxis(product, -1, 1)
    axes = "HW"[-rank:]
    return jax.lax.conv_general_dilated(
        inputs, shaped, (stride,) * rank, padding, dimension_numbers=(f"NC{axes}", f"I{axes}O", f"NC{axes}")
    )
