"""The passes that train, which compute what the last step needs and no more, against the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.graphs import execution, pack_params, specialise, unpack_params, unrolled
from elenas_jax.graphs.machine import Layout, known_machine
from elenas_jax.graphs.program import trim
from elenas_jax.graphs.schedule import make_schedule
from tests import reference
from tests.graphs.comparison import KINK, by_layout, close, data, unbatch
from tests.graphs.random_graphs import (
    QUICK_TO_COMPILE,
    construct_all,
    golden,
    population,
)

INSTRUCTIONS, STEPS, DIRT = 64, 7, 3.5


def expected_of(place, drawn, num_steps):
    """Parameters, inputs, and of the last row of the last step output, cotangent and gradients."""
    network, widths = drawn.drawn[place].network, drawn.setting.widths
    params, inputs, cotangent = data(network, widths, place, num_steps)
    outputs, _ = reference.evaluate(network, params, inputs)
    whole = np.zeros_like(outputs)
    whole[:, -1] = cotangent[:, -1]
    grads, _, kink = reference.gradients(network, params, inputs, whole)
    return params, inputs, outputs[:, -1], cotangent[:, -1], grads, kink


def through_head(params, final, cotangent):
    """Output `[N, O]` and cotangent of `[N, W]` values of the final node."""
    if "head/kernel" not in params:
        return final[:, : cotangent.shape[1]], np.pad(
            cotangent, ((0, 0), (0, final.shape[1] - cotangent.shape[1]))
        )
    kernel = params["head/kernel"]
    output = final[:, : len(kernel)] @ kernel + params["head/bias"]
    return output, np.pad(cotangent @ kernel.T, ((0, 0), (0, final.shape[1] - len(kernel))))


def check(what, found, found_grads, output, grads, kink):
    close(f"output of {what}", np.asarray(found, np.float64), output, scale=0.01)
    if kink < KINK:
        return False
    of_nodes = {node: grad for node, grad in grads.items() if isinstance(node, int)}
    scale = 0.01 * max(np.max(np.abs(grad)) for grad in grads.values())
    for node, grad in of_nodes.items():
        close(f"gradient of {node} of {what}", np.asarray(found_grads[node], np.float64), grad, scale)
    return True


@functools.cache
def interpreted(layout, scratch):
    """Both passes in buffers full of dirt, compiled once for all programs of a layout."""

    @functools.partial(jax.jit, compiler_options=QUICK_TO_COMPILE)
    def run(code, rows, inputs, kernel, cotangent):
        params = execution.with_scratch(rows, scratch)
        params = execution.compute_constants(code, params, layout.operations)
        shape = (INSTRUCTIONS + 1, layout.steps + 1, len(inputs), layout.rows, layout.width)
        tape = jnp.full(shape, DIRT).at[:, 0].set(0.0)
        # Slot 0 has no rows but the first where values are rows; padding is zero in a tape that was used.
        tape = tape.at[0].set(0.0)
        tape = execution.write_input(tape, inputs, layout, code.first_step)
        tape = execution.forward(code, params, tape, layout)
        final = tape[code.output, -1, :, code.output_rows - 1]
        of_final = cotangent @ kernel
        buffer = execution.clear_cotangents(code, jnp.full(shape, DIRT), layout)
        buffer = buffer.at[code.output, -1, :, code.output_rows - 1].set(of_final)
        _, gradient = execution.backward(code, params, tape, buffer, jnp.zeros_like(params), layout)
        return final, gradient[: rows.shape[0]]

    return run


def head_matrix(params, width, num_outputs):
    """`[O, W]`: hands a cotangent of the outputs on to the final node."""
    kernel = params["head/kernel"].T if "head/kernel" in params else np.eye(num_outputs)
    return np.pad(kernel, ((0, 0), (0, width - kernel.shape[1]))).astype(np.float32)


@pytest.mark.parametrize("name", ["extended", "paper"])
@pytest.mark.parametrize("kind", ["row", "matrix", "sequence"])
def test_interpreted_passes_equal_the_reference(name, kind):
    drawn, places = population(name), by_layout(name)[kind][::4]
    compared = 0
    for place, program in zip(places, unbatch(construct_all(name), places), strict=True):
        params, inputs, output, cotangent, grads, kink = expected_of(place, drawn, STEPS)
        time = inputs.shape[1]
        width = max(program.width, time) if kind == "sequence" else program.width
        layout = Layout(kind, width, time, last_only=True, operations=name)
        program = trim(program, INSTRUCTIONS)
        code = known_machine(program, make_schedule(program, time), layout)
        packed = pack_params(program, params)
        rows = np.pad(packed["rows"], ((0, 0), (0, width - packed["rows"].shape[1])))
        run = interpreted(layout, INSTRUCTIONS * width)
        final, gradient = run(
            code,
            rows,
            inputs.astype(np.float32),
            head_matrix(params, width, cotangent.shape[1]),
            cotangent.astype(np.float32),
        )
        found, _ = through_head(params, np.float64(final), cotangent)
        found_grads = unpack_params(program, packed | {"rows": gradient})
        compared += check(f"graph {place}", found, found_grads, output, grads, kink)
    assert len(places) >= 12 and compared > 0.8 * len(places)


@pytest.mark.parametrize("name", ["extended", "paper"])
def test_unrolled_passes_equal_the_reference(name):
    drawn = population(name)
    places = [place for group in by_layout(name).values() for place in group[::8]]
    compared = 0
    with jax.disable_jit():  # a compilation a program would take minutes
        for place, program in zip(places, unbatch(construct_all(name), places), strict=True):
            params, inputs, output, cotangent, grads, kink = expected_of(place, drawn, STEPS)
            schedule = make_schedule(program, inputs.shape[1])
            of_block = {p: jnp.float32(params[2 * p + 1]) for p, _, _ in schedule.parameters}
            steps_first = jnp.swapaxes(jnp.float32(inputs), 0, 1)
            final, values = unrolled.forward(schedule, of_block, steps_first)
            found, of_final = through_head(params, np.float64(final[:, -1]), cotangent)
            whole = np.zeros(final.shape, np.float32)
            whole[:, -1] = of_final
            found_grads = unrolled.backward(schedule, of_block, values, jnp.asarray(whole))
            found_grads = {2 * p + 1: grad for p, grad in found_grads.items()}
            compared += check(f"graph {place}", found, found_grads, output, grads, kink)
    assert len(places) >= 30 and compared > 0.8 * len(places)


def test_half_of_the_golden_graphs_need_a_few_steps_only():
    """Recursions without a cycle look a few steps back: nothing is computed before."""
    _, edges = golden()
    from elenas_jax.graphs import ComputationGraph
    from elenas_jax.graphs.constructor import construct_batch

    programs = jax.device_get(
        construct_batch(
            ComputationGraph(edges),
            in_features=7,
            out_features=1,
            hidden_features=64,
            head="linear",
            time_steps=32,
        )
    )
    schedules = [make_schedule(program, 32) for program in unbatch(programs, range(len(edges)))]
    acyclic = [schedule for schedule in schedules if not schedule.inside]
    assert len(acyclic) == 33
    assert max(max(schedule.window) for schedule in acyclic) <= 4
    with pytest.raises(ValueError, match="not a valid network"):
        make_schedule(specialise(unbatch(construct_all("paper"), [population("paper").num_valid])[0]), 4)
