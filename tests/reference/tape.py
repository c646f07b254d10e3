"""Exact gradients for plain NumPy code: a tape of the few functions the reference needs.

`Traced` arrays pass through NumPy arithmetic and remember it; `backward` walks the record back.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

# ufunc -> (cotangent, result, *arguments) -> cotangents of the arguments, before undoing broadcasts.
VJPS: dict[np.ufunc, Callable[..., tuple]] = {
    np.add: lambda g, y, a, b: (g, g),
    np.subtract: lambda g, y, a, b: (g, -g),
    np.multiply: lambda g, y, a, b: (g * b, g * a),
    np.true_divide: lambda g, y, a, b: (g / b, -g * y / b),
    np.matmul: lambda g, y, a, b: (g @ np.swapaxes(b, -1, -2), np.swapaxes(a, -1, -2) @ g),
    np.negative: lambda g, y, a: (-g,),
    np.exp: lambda g, y, a: (g * y,),
    np.tanh: lambda g, y, a: (g * (1 - y * y),),
    np.sqrt: lambda g, y, a: (g / (2 * y),),
    np.maximum: lambda g, y, a, b: (g * (a > b), g * (a < b)),  # a tie has no gradient here; see `kink`
}


class Traced(NDArrayOperatorsMixin):
    """An array and how it was made.

    Attributes:
      value: the plain array.
      kink: the smallest distance of any `maximum` that led here from a tie; infinite without one.
        Ties at exactly zero against the constant zero (relu of nothing) do not count: the slope
        there is zero by convention.
    """

    def __init__(
        self, value: Any, parents: tuple = (), vjp: Callable | None = None, kink: float = np.inf
    ) -> None:
        self.value = np.asarray(value)
        self.parents = parents
        self.vjp = vjp
        self.kink = kink

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> "Traced":
        if method != "__call__" or kwargs or ufunc not in VJPS:
            return NotImplemented
        parents = tuple(x if isinstance(x, Traced) else Traced(x) for x in inputs)
        values = [parent.value for parent in parents]
        result = ufunc(*values)
        kink = min(parent.kink for parent in parents)
        if ufunc is np.maximum:
            gap = np.abs(values[0] - values[1])
            if values[1].ndim == 0:  # relu
                gap = gap[gap > 0]
            kink = min(kink, float(np.min(gap, initial=np.inf)))

        def vjp(g: np.ndarray) -> list[np.ndarray]:
            grads = VJPS[ufunc](g, result, *values)
            return [_undo_broadcast(grad, value.shape) for grad, value in zip(grads, values, strict=True)]

        return Traced(result, parents, vjp, kink)

    def mean(self, axis: int, keepdims: bool) -> "Traced":
        assert keepdims
        result = self.value.mean(axis=axis, keepdims=True)
        num = self.value.shape[axis]
        return Traced(result, (self,), lambda g: [np.broadcast_to(g / num, self.shape)], self.kink)

    def sum(self, axis: int, keepdims: bool) -> "Traced":
        return self.mean(axis, keepdims) * self.shape[axis]

    def swapaxes(self, first: int, second: int) -> "Traced":
        return Traced(
            self.value.swapaxes(first, second), (self,), lambda g: [np.swapaxes(g, first, second)], self.kink
        )

    def __getitem__(self, index: Any) -> "Traced":
        def vjp(g: np.ndarray) -> list[np.ndarray]:
            grad = np.zeros_like(self.value)
            grad[index] += g
            return [grad]

        return Traced(self.value[index], (self,), vjp, self.kink)


def _undo_broadcast(grad: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sums `grad` over the axes along which an array of `shape` was repeated."""
    grad = grad.sum(axis=tuple(range(grad.ndim - len(shape))))
    repeated = tuple(axis for axis, size in enumerate(shape) if size == 1 and grad.shape[axis] != 1)
    return grad.sum(axis=repeated, keepdims=True) if repeated else grad


def backward(outputs: list[tuple[Traced, np.ndarray]]) -> Callable[[Traced], np.ndarray]:
    """Differentiates the sum of `output * cotangent` over the given pairs.

    Returns:
      A function from a `Traced` array to the gradient with respect to it.
    """
    order: list[Traced] = []
    seen: set[int] = set()
    stack = [(output, False) for output, _ in outputs]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack += [(parent, False) for parent in node.parents]

    grads: dict[int, np.ndarray] = {}
    for output, cotangent in outputs:
        grads[id(output)] = grads.get(id(output), 0.0) + cotangent
    for node in reversed(order):
        if node.vjp is None or id(node) not in grads:
            continue
        for parent, grad in zip(node.parents, node.vjp(grads[id(node)]), strict=True):
            grads[id(parent)] = grads.get(id(parent), 0.0) + grad
    return lambda traced: np.asarray(grads.get(id(traced), np.zeros_like(traced.value)))
