"""Networks as serialised StableHLO, which runs wherever JAX does and needs nothing of this package.

The program is known here, so its instructions are written out one after the other, in true shapes
and without branches: by `jax.lax.scan` over time steps where it is recurrent.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from elenas_jax.graphs import local_rules
from elenas_jax.graphs.instructions import Form
from elenas_jax.graphs.parameters import HEAD_BIAS, HEAD_KERNEL, unpack_params
from elenas_jax.graphs.program import Program
from elenas_jax.graphs.schedule import Instruction, make_schedule
from elenas_jax.ops import Extent

PLATFORMS = ("cpu", "cuda", "tpu")


def stablehlo(program: Program, params: dict) -> bytes:
    """Serialises a network with its weights.

    `jax.export.deserialize(data).call(inputs)` maps `[N, T, in]` float32 to `[N, T, out]` of a
    recurrent program, else to `[N, rows, out]`, as `interpret` does, for any N and T; only a program
    that was constructed for fixed time steps and is not recurrent has its T. It is lowered for
    `PLATFORMS` and has no gradients.

    Args:
      program: valid, unbatched, on the host.
      params: packed parameters.

    Raises:
      ValueError: for a program that is not valid, with the reason.
    """
    program = jax.tree.map(np.asarray, program)
    unpacked = unpack_params(program, params)
    num, time = export.symbolic_shape("N, T")
    if not program.recurrent and program.time_steps is not None:
        time = program.time_steps
    exported = export.export(jax.jit(_make_apply(program, unpacked, time)), platforms=PLATFORMS)
    return bytes(exported(jax.ShapeDtypeStruct((num, time, program.in_features), np.float32)).serialize())


def _make_apply(program: Program, params: dict, time: Any) -> Callable[[jax.Array], jax.Array]:
    """Returns the function of inputs `[N, T, in]`; `time` is a number or a symbol."""
    # Values of a step have the same shapes whatever the length.
    schedule = make_schedule(program, 2 if program.recurrent else time)
    instructions = (*schedule.before, *schedule.inside, *schedule.after)
    shapes = {0: (1, program.in_features)} | {each.out: each.shape for each in instructions}
    remembered = sorted({slot for each in instructions for slot, delay in each.operands if delay})

    def apply(inputs: jax.Array) -> jax.Array:
        num = inputs.shape[0]
        constants: dict[int, jax.Array] = {}

        def compute(each: Instruction, operands: list[jax.Array]) -> jax.Array:
            fixed = params[2 * each.parameter + 1] if each.parameter >= 0 else constants.get(each.constant)
            return _compute(each, operands, fixed)

        def step(last, value):  # values are [1, N, R, C]
            now = {0: value}
            for each in instructions:
                result = compute(each, [(last if delay else now)[slot] for slot, delay in each.operands])
                now[each.out] = jnp.broadcast_to(result, (1, num, *each.shape))
            return {slot: now[slot] for slot in remembered}, now[schedule.output][0]

        for each in schedule.constants:
            result = compute(each, [constants[slot] for slot, _ in each.operands])
            constants[each.out] = jnp.reshape(result, each.shape)
        if program.recurrent:
            start = {slot: jnp.zeros((1, num, *shapes[slot])) for slot in remembered}
            steps = jnp.swapaxes(inputs, 0, 1)[:, None, :, None]  # [T, 1, N, 1, in]
            _, values = jax.lax.scan(step, start, steps)
            final = jnp.swapaxes(values[:, :, 0], 0, 1)
        else:
            _, final = step({}, inputs[None])
        return final @ params[HEAD_KERNEL] + params[HEAD_BIAS] if HEAD_KERNEL in params else final

    return apply


def _compute(each: Instruction, operands: list[jax.Array], fixed: Any) -> jax.Array:
    """As `local_rules.compute`, for values with axes of any length."""
    if each.form != Form.UNARY:
        return local_rules.compute(each, operands, fixed)
    value = operands[0]
    everything = Extent(jnp.ones((value.shape[-2], 1), bool), jnp.ones((1, value.shape[-1]), bool))
    result = each.row.fn(value, everything)
    return result[..., :1, :] if each.row.shape_rule == "one_row" else result
