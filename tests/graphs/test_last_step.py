"""The passes that train, which compute what the last step needs and no more, against the reference."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.graphs import batched, execution, pack_params, specialise, unpack_params, unrolled
from elenas_jax.graphs.levels import make_population, measure
from elenas_jax.graphs.machine import Layout, known_machine
from elenas_jax.graphs.program import trim
from elenas_jax.graphs.schedule import has_loop, make_schedule
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
    places = [place for group in by_layout(name).values() for place in group[::11]]
    compared = 0
    with jax.disable_jit():  # a compilation a program would take minutes
        for place, program in zip(places, unbatch(construct_all(name), places), strict=True):
            params, inputs, output, cotangent, grads, kink = expected_of(place, drawn, STEPS)
            schedule = make_schedule(program, inputs.shape[1])
            of_block = {p: jnp.float32(params[2 * p + 1]) for p, _, _ in schedule.parameters}
            steps_first = jnp.swapaxes(jnp.float32(inputs), 0, 1)
            final, values = unrolled.forward(schedule, of_block, steps_first)
            found, of_final = through_head(params, np.float64(final[-1, :, -1]), cotangent)
            whole = np.zeros(final.shape, np.float32)
            whole[-1, :, -1] = of_final
            found_grads, _ = unrolled.backward(schedule, of_block, values, jnp.asarray(whole))
            found_grads = {2 * p + 1: grad for p, grad in found_grads.items()}
            compared += check(f"graph {place}", found, found_grads, output, grads, kink)
    assert len(places) >= 24 and compared > 0.8 * len(places)


@pytest.mark.parametrize("name", ["extended", "paper"])
@pytest.mark.parametrize("loops", [True, False])
def test_batched_passes_equal_the_reference(name, loops):
    """All programs at once, level by level; those without a loop over a window of the last steps."""
    drawn, time = population(name), 9
    everyone = by_layout(name)["row"][::4]
    pairs = zip(everyone, unbatch(construct_all(name), everyone), strict=True)
    chosen = [(place, program) for place, program in pairs if has_loop(program, time) == loops]
    places, programs = [place for place, _ in chosen], [trim(each, INSTRUCTIONS) for _, each in chosen]
    schedules = [make_schedule(program, time) for program in programs]
    layout = Layout("row", max(each.width for each in programs), time, last_only=True, operations=name)
    expected, rows, cotangents = [], [], []
    shared = expected_of(places[0], drawn, time)[1]
    for place, program in zip(places, programs, strict=True):
        network = drawn.drawn[place].network
        (
            params,
            _,
            cotangent,
        ) = data(network, drawn.setting.widths, place, time)
        outputs, _ = reference.evaluate(network, params, shared)
        whole = np.zeros_like(outputs)
        whole[:, -1] = cotangent[:, -1]
        grads, _, kink = reference.gradients(network, params, shared, whole)
        expected.append((params, outputs[:, -1], cotangent[:, -1], grads, kink))
        rows.append(pack_params(program, params)["rows"])
        cotangents.append(cotangent[:, -1] @ head_matrix(params, layout.width, cotangent.shape[-1]))
    scratch = (INSTRUCTIONS + 1) * layout.width
    longest = max(map(len, rows))
    padded = [np.pad(each, ((0, longest - len(each)), (0, layout.width - each.shape[1]))) for each in rows]
    sizes = measure(schedules)
    assert bool(sizes.inside) == loops and (loops or sizes.steps < time)
    laid_out = make_population(programs, schedules, sizes, layout)

    @functools.partial(jax.jit, compiler_options=QUICK_TO_COMPILE)
    def run(rows, cotangents):
        def final_of(rows):
            params = jax.vmap(lambda each: execution.with_scratch(each, scratch))(rows)
            return batched.forward(laid_out, params, jnp.float32(shared), sizes, layout)

        final, pull = jax.vjp(final_of, rows)
        return final, pull(cotangents)[0]

    finals, gradients = run(np.float32(padded), np.float32(cotangents))
    compared = 0
    for c, (program, place) in enumerate(zip(programs, places, strict=True)):
        params, output, cotangent, grads, kink = expected[c]
        found, _ = through_head(params, np.float64(finals[c]), cotangent)
        found_grads = unpack_params(program, pack_params(program, params) | {"rows": gradients[c]})
        compared += check(f"graph {place}", found, found_grads, output, grads, kink)
    assert len(places) >= 5 and compared > 0.8 * len(places)


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
