"""The operations of einspace once more, in NumPy and float64, as loops over what they are defined by.

Values have an axis of examples in front. Weights are a dict of arrays with the names of
`spaces.einspace_layers`; none for operations without.
"""

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np

EPSILON = 1e-5


def windows(values: np.ndarray, kernel: int, stride: int, padding: int, fill: float = 0.0):
    """Yields (row, column, `[N, C, kernel, kernel]` window) of images."""
    padded = np.pad(values, ((0, 0), (0, 0), (padding,) * 2, (padding,) * 2), constant_values=fill)
    rows, columns = ((side - kernel) // stride + 1 for side in padded.shape[2:])
    for row, column in itertools.product(range(rows), range(columns)):
        top, left = row * stride, column * stride
        yield row, column, padded[:, :, top : top + kernel, left : left + kernel]


def im2col(values: np.ndarray, kernel: int, stride: int, padding: int) -> np.ndarray:
    patches = [window.reshape(len(values), -1) for *_, window in windows(values, kernel, stride, padding)]
    return np.stack(patches, axis=1)


def col2im(values: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    image = np.empty((len(values), values.shape[2], *grid))
    for token, (row, column) in enumerate(itertools.product(*map(range, grid))):
        image[:, :, row, column] = values[:, token]
    return image


def convolution(values: np.ndarray, weights: Mapping, kernel: int, stride: int, padding: int) -> np.ndarray:
    """Convolves images; the kernel's rows are channels first, then rows and columns of the window."""
    every = list(windows(values, kernel, stride, padding))
    rows, columns = every[-1][0] + 1, every[-1][1] + 1
    shaped = weights["kernel"].reshape(values.shape[1], kernel, kernel, -1)
    image = np.empty((len(values), shaped.shape[-1], rows, columns))
    for row, column, window in every:
        image[:, :, row, column] = np.einsum("nchw,chwd->nd", window, shaped) + weights["bias"]
    return image


def conv1d(values: np.ndarray, weights: Mapping, kernel: int, _width: int) -> np.ndarray:
    # Half a kernel of zeros on both sides; one of eight has one more behind.
    sides = {1: (0, 0), 3: (1, 1), 5: (2, 2), 8: (3, 4)}[kernel]
    padded = np.pad(values, ((0, 0), (0, 0), sides))
    shaped = weights["kernel"].reshape(values.shape[1], kernel, -1)
    places = [
        np.einsum("nck,ckd->nd", padded[:, :, place : place + kernel], shaped)
        for place in range(values.shape[2])
    ]
    return np.stack(places, axis=2) + weights["bias"][:, None]


def linear(values: np.ndarray, weights: Mapping, *_numbers: int) -> np.ndarray:
    return values @ weights["kernel"] + weights["bias"]


def norm(values: np.ndarray, weights: Mapping) -> np.ndarray:
    """Normalises channels of images over examples and places, tokens over their features."""
    is_image = values.ndim == 4
    axes = (0, 2, 3) if is_image else (2,)
    mean, variance = values.mean(axes, keepdims=True), values.var(axes, keepdims=True)
    scale, bias = (weights[name] for name in ("scale", "bias"))
    if is_image:
        scale, bias = scale[:, None, None], bias[:, None, None]
    return (values - mean) / np.sqrt(variance + EPSILON) * scale + bias


def batch_statistics(values: np.ndarray, old: Mapping) -> dict[str, np.ndarray]:
    """Returns running statistics after a batch of images; the variance is the unbiased one."""
    return {
        "mean": 0.9 * old["mean"] + 0.1 * values.mean((0, 2, 3)),
        "variance": 0.9 * old["variance"] + 0.1 * values.var((0, 2, 3), ddof=1),
    }


def softmax(values: np.ndarray) -> np.ndarray:
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def max_pool(values: np.ndarray, kernel: int, stride: int, padding: int) -> np.ndarray:
    every = list(windows(values, kernel, stride, padding, -np.inf))
    image = np.empty((*values.shape[:2], every[-1][0] + 1, every[-1][1] + 1))
    for row, column, window in every:
        image[:, :, row, column] = window.max((2, 3))
    return image


def operate(
    kind: str,
    numbers: Sequence[int],
    values: np.ndarray,
    weights: Mapping,
    grid: tuple[int, int] | None = None,
) -> np.ndarray:
    """Returns what an operation with one input makes of it; the norm is that of training."""
    if kind in ("linear", "relative_linear"):
        return linear(values, weights)
    if kind == "conv1d":
        return conv1d(values, weights, *numbers)
    if kind == "norm":
        return norm(values, weights)
    if kind == "positional_encoding":
        return values + weights["encoding"]
    if kind == "permute":
        return values.transpose(0, *numbers)
    if kind == "im2col":
        return im2col(values, *numbers)
    if kind == "col2im":
        return col2im(values, grid)
    if kind == "leaky_relu":
        return np.where(values > 0, values, 0.01 * values)
    if kind == "softmax":
        return softmax(values)
    if kind == "max_pool":
        return max_pool(values, *numbers)
    assert kind == "identity"
    return values


def branch(kind: str, numbers: Sequence[int], values: np.ndarray) -> list[np.ndarray]:
    """Returns the inputs of branches."""
    if kind == "clone":
        return [values for _ in range(numbers[0])]
    axis, parts = numbers
    width = values.shape[axis] // parts
    return [values.take(range(part * width, (part + 1) * width), axis) for part in range(parts)]


def join(kind: str, numbers: Sequence[int], branches: Sequence[np.ndarray]) -> np.ndarray:
    """Returns what an aggregation makes of the outputs of branches."""
    if kind == "add":
        total = np.zeros_like(branches[0])
        for values in branches:
            total = total + values
        return total
    if kind == "concat":
        return np.concatenate(branches, axis=numbers[0])
    left, right = branches
    product = np.einsum("...ij,...jk->...ik", left, right)
    return product / math.sqrt(left.shape[-1]) if kind == "scaled_matmul" else product
