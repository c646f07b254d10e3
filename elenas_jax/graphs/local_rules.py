"""What one instruction of a known program computes, and how it hands cotangents on.

Values have true shapes `[S, N, R, C]`; S and N of an operand may be 1 where the other's are not.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs.instructions import Form
from elenas_jax.graphs.schedule import Instruction
from elenas_jax.ops import Extent


def _is_product(each: Instruction) -> bool:
    return each.row is not None and each.row.shape_rule == "matmul"


def _unary(row, value):
    everything = Extent(np.ones((value.shape[-2], 1), bool), np.ones((1, value.shape[-1]), bool))
    result = row.fn(value, everything)
    return result[..., :1, :] if row.shape_rule == "one_row" else result


def _times_matrix(value, matrix):
    product = jnp.reshape(value, (-1, value.shape[-1])) @ matrix
    return jnp.reshape(product, (*value.shape[:-1], matrix.shape[-1]))


def _pair_product(a, b):
    if a.shape[-1] == 1:
        return a * b
    if b.shape[1] == 1 and a.shape[1] > 1:  # a factor that all examples share
        folded = jnp.reshape(a, (a.shape[0], -1, a.shape[-1])) @ b[:, 0]
        return jnp.reshape(folded, (*a.shape[:-1], b.shape[-1]))
    return a @ b


def _sum_to(value, shape):
    """Sums over the axes along which `shape` was broadcast."""
    surplus = value.ndim - len(shape)
    axes = [*range(surplus)]
    axes += [surplus + axis for axis, size in enumerate(shape) if size != value.shape[surplus + axis]]
    return jnp.reshape(jnp.sum(value, axis=tuple(axes)), shape) if axes else value


def compute(each: Instruction, operands, fixed) -> jax.Array:
    """The value of an instruction from those of its operands and what it reads that is fixed."""
    if each.form == Form.UNARY:
        return _unary(each.row, operands[0])
    if each.form == Form.DATA:
        return _pair_product(*operands) if _is_product(each) else each.row.fn(*operands)
    if each.form in (Form.PARAMETER, Form.CONSTANT):
        return (_times_matrix if _is_product(each) else each.row.fn)(operands[0], fixed)
    return jnp.broadcast_to(fixed, (1, 1, *each.shape))


def pull(each: Instruction, which: int, operands, fixed, result, g) -> jax.Array:
    """The cotangent of operand `which`; values that `values_read` does not name may be anything."""
    value = operands[which]
    if each.form == Form.UNARY:
        if each.row.grad is not None:
            return each.row.grad(value, value if result is None else result, g)
        return jax.vjp(functools.partial(_unary, each.row), value)[1](g)[0]
    if each.form == Form.DATA:
        fn = _pair_product if _is_product(each) else each.row.fn
        if fn is jnp.add:
            return _sum_to(g, value.shape)

        def of_one(moved):
            return fn(*(moved if k == which else other for k, other in enumerate(operands)))

        return jax.vjp(of_one, value)[1](g)[0]
    if _is_product(each):
        return _times_matrix(g, fixed.T)
    return g if each.row.fn is jnp.add else jax.vjp(lambda moved: each.row.fn(moved, fixed), value)[1](g)[0]


def pull_fixed(each: Instruction, operands, fixed, g) -> jax.Array:
    """The cotangent of the parameter or constant that an instruction reads."""
    if each.form in (Form.LOAD_ROW, Form.LOAD_MATRIX):
        return _sum_to(g, fixed.shape)
    if _is_product(each):
        value = operands[0]
        return jnp.reshape(value, (-1, value.shape[-1])).T @ jnp.reshape(g, (-1, g.shape[-1]))
    if each.row.fn is jnp.add:
        return _sum_to(g, fixed.shape)
    return jax.vjp(lambda moved: each.row.fn(operands[0], moved), fixed)[1](g)[0]


def values_read(each: Instruction) -> tuple[tuple[bool, ...], bool]:
    """Which operands, and whether the result, the two functions above read the values of."""
    if each.form in (Form.LOAD_ROW, Form.LOAD_MATRIX):
        return (), False
    if each.form == Form.UNARY:
        if each.row.grad is None:
            return (True,), False
        reads = _arguments_read(each.row.grad, 3)
        return (reads[0],), reads[1]
    if _is_product(each):
        return (True,) * len(each.operands), False
    reads = _arguments_read(_elementwise_pull(each.row.fn), 3)
    return tuple(reads[: len(each.operands)]), False


@functools.cache
def _elementwise_pull(fn):
    return lambda a, b, g: jax.vjp(fn, a, b)[1](g)


@functools.cache
def _arguments_read(fn, number: int) -> tuple[bool, ...]:
    """Which of its arguments an elementwise function uses."""
    jaxpr = jax.make_jaxpr(fn)(*(np.zeros((1, 1, 2, 3), np.float32) for _ in range(number))).jaxpr
    used = {id(var) for equation in jaxpr.eqns for var in equation.invars}
    used |= {id(var) for var in jaxpr.outvars}
    return tuple(id(var) in used for var in jaxpr.invars)
