"""The interpreter against the reference: outputs, gradients, carries, padding, batches.

Compiling is what takes the time here, so a function is compiled once for all programs of a
padding and layout (`Runner`) and without XLA's more costly optimisations.
"""

import dataclasses
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elenas_jax.graphs import (
    from_edges,
    init_params,
    initial_carry,
    interpret,
    pack_params,
    pad_graph,
    specialise,
    unpack_params,
)
from elenas_jax.ops import COMBINING, TRANSFORMING
from tests import reference
from tests.graphs.comparison import (
    KINK,
    NUM_EXAMPLES,
    Runner,
    _zero_carry,
    by_layout,
    check,
    check_population,
    close,
    data,
    error,
    layout_of,
    runner,
    unbatch,
)
from tests.graphs.random_graphs import (
    QUICK_TO_COMPILE,
    SETTINGS,
    construct_all,
    constructor,
    dead_edges,
    population,
)

EXTENDED = next(setting.widths for setting in SETTINGS if setting.name == "extended")
XW = [(0, 2, "matmul"), (1, 2, "matmul")]  # final node 2 starts as x W1
OTHER = [(0, 4, "matmul"), (3, 4, "matmul")]  # node 4 is x W3
PAST = [(2, 6, "recursion"), (6, 2, "add")]  # y(t-1) is added: runs step by step


def one_operation_graphs(name: str) -> list[list[tuple[int, int, str]]]:
    """Returns small graphs around one operation; not all of them fit for each."""
    if name == "none":
        return [XW, [*XW, (4, 2, "none")]]
    if name in {row.name for row in COMBINING}:
        graphs = [
            [*XW, (5, 2, name)],  # with a parameter
            [*XW, *OTHER, (4, 2, name)],  # with a value
            [*XW, (0, 4, name), (3, 4, "add"), (4, 2, "matmul")],  # first operand x
            [*OTHER, (4, 2, name), (5, 2, name)],  # several operands, nothing to the left
            [*XW, *OTHER, (4, 2, name), (5, 2, name), (7, 2, name)],
            [*XW, (5, 4, name), (4, 2, "add")],  # a lone parameter, as a value
            [*XW, (5, 4, name), (4, 2, "hadamard")],
            [*XW, (5, 4, name), (7, 4, name), (4, 4, "tanh"), (4, 2, "add")],
            [(0, 2, name)],  # x alone, where it fits
            [*XW, (0, 4, name), (5, 4, "add"), (4, 4, "transpose"), (4, 2, "matmul")],
            [(0, 2, "matmul"), *OTHER, (4, 4, "transpose"), (4, 2, "matmul"), (1, 2, "matmul"), (7, 2, name)],
            [*XW, (5, 4, "matmul"), (4, 2, name)],  # a constant
            [*XW, (5, 4, "matmul"), (7, 4, name), (4, 2, "matmul")],  # a constant with a parameter
            [*XW, (5, 4, "add"), (7, 6, "add"), (4, 8, "add"), (6, 8, name), (8, 2, "add")],  # of constants
        ]
        return graphs
    return [
        [*XW, (5, 2, "add"), (2, 2, name)],  # of the final node
        [*XW, *OTHER, (5, 4, "add"), (4, 4, name), (4, 2, "add")],
        [*XW, *OTHER, (5, 4, "add"), (4, 4, name), (4, 2, "matmul")],
        [(0, 2, "matmul"), (1, 2, "matmul"), *OTHER, (4, 4, name), (4, 2, "matmul")],
        [*OTHER, (4, 4, name), (4, 2, "matmul"), (5, 2, "matmul")],
        [*XW, (5, 4, "matmul"), (4, 4, name), (4, 2, "matmul")],  # of a constant matrix
        [*XW, (5, 4, "add"), (4, 4, name), (4, 2, "add")],  # of a constant row
        [*XW, (0, 4, "recursion"), (4, 4, name), (4, 2, "matmul")],
        [(0, 4, "add"), (4, 4, name), *XW, (4, 2, "matmul")],
    ]


@pytest.mark.parametrize("row", [*COMBINING, *TRANSFORMING], ids=lambda row: row.name)
def test_every_operation(row):
    """On rows and on whole sequences, with values, parameters and constants, first and further ones."""
    ran = dict.fromkeys(("row", "matrix", "sequence"), 0)
    for edges in one_operation_graphs(row.name):
        for extra in ([], PAST):
            if len({edge[:2] for edge in edges + extra}) < len(edges + extra):
                continue
            graph = pad_graph(from_edges(9, edges + extra), 12)
            network = reference.analyse(graph.edges, **EXTENDED._asdict())
            if network.reason != 0:
                continue
            program = constructor(EXTENDED)(graph.edges)
            assert int(program.status) == 0, edges + extra
            layout = layout_of(program)
            try:
                check(network, program, EXTENDED, runner(layout))
            except AssertionError as disagreement:
                pytest.fail(f"{disagreement}: {edges + extra}")
            ran[layout] += 1
    assert ran["row"] + ran["matrix"] >= 2 and ran["sequence"] >= (row.name != "recursion"), ran


draw_params = jax.jit(init_params)


# --- padding, batches, compilations ---


def test_another_graph_does_not_compile_again():
    run = runner("row")
    places = by_layout("extended")["row"]
    check_population("extended", places[:1], run)
    before = run.num_compilations
    check_population("extended", places[1:4], run)
    assert run.num_compilations == before == 1


def test_room_changes_nothing():
    """Programs cut to 16 instructions against the same in room for any graph of their size."""
    widths = population("extended").setting.widths
    places = by_layout("extended")["row"]
    roomy, tight = runner("row"), Runner("row", with_gradients=False)
    num_compared = 0
    for place, program in zip(places, unbatch(construct_all("extended"), places), strict=True):
        cut = specialise(program)
        if cut.max_instructions == 16:
            assert program.max_instructions > 16
            params, inputs, cotangent = data(population("extended").drawn[place].network, widths, place)
            expected = roomy(program, params, inputs, cotangent).outputs
            outputs = tight(cut, params, inputs, cotangent).outputs
            np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)
            num_compared += 1
    assert num_compared >= 20 and tight.num_compilations == 1


@settings(max_examples=60, deadline=None)
@given(drawn=st.data(), seed=st.integers(0, 2**32 - 1))
def test_dead_parts_and_padding_change_nothing(drawn, seed):
    """Four more nodes, and edges anywhere that are no part of the network."""
    place = drawn.draw(st.sampled_from(by_layout("extended")["row"]))
    (program,) = unbatch(construct_all("extended"), [place])
    edges, network = population("extended").drawn[place]
    params, inputs, cotangent = data(network, EXTENDED, place)
    expected = runner("row")(program, params, inputs, cotangent).outputs
    larger = dead_edges(np.pad(edges, (0, 4)), EXTENDED._asdict(), np.random.default_rng(seed))
    program = jax.device_get(constructor(EXTENDED)(larger))
    outputs = larger_runner()(program, params, inputs, cotangent).outputs
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


@cache
def larger_runner() -> Runner:
    return Runner("row", with_gradients=False)


def test_a_vmapped_population_is_its_members():
    places = by_layout("extended")["row"][:8]
    drawn, programs = (
        population("extended"),
        unbatch(construct_all("extended"), by_layout("extended")["row"][:8]),
    )
    _, inputs, cotangent = data(drawn.drawn[places[0]].network, EXTENDED, 0)
    params = [data(drawn.drawn[place].network, EXTENDED, place)[0] for place in places]
    singles = [runner("row")(*pair, inputs, cotangent).outputs for pair in zip(programs, params, strict=True)]
    batch = jax.tree.map(lambda *leaves: np.stack(leaves), *programs)
    packed = [pack_params(*pair) for pair in zip(programs, params, strict=True)]
    packed = jax.tree.map(lambda *leaves: np.stack(leaves), *packed)
    run = jax.jit(jax.vmap(interpret, in_axes=(0, 0, None)), compiler_options=QUICK_TO_COMPILE)
    outputs = run(dataclasses.replace(batch, layout="row"), packed, inputs.astype(np.float32))
    np.testing.assert_allclose(outputs, np.stack(singles), rtol=1e-5, atol=1e-6)


# --- carry ---


def carry_cases() -> list[int]:
    """Returns a graph of rows and one of matrices whose outputs depend on the past."""
    chosen = []
    for layout in ("row", "matrix"):
        for place in by_layout("extended")[layout]:
            network = population("extended").drawn[place].network
            if len(reference.recursion_sources(network)) > 1 and network.final in network.depends_on_input:
                params, inputs, _ = data(network, EXTENDED, place)
                whole, _ = reference.evaluate(network, params, inputs)
                first, _ = reference.evaluate(network, params, inputs[:, 2:])
                if error(first, whole[:, 2:]) > 0.05:
                    chosen.append(place)
                    break
    assert len(chosen) == 2
    return chosen


def test_two_halves_with_carry_are_the_whole():
    """On the host, as `interpret` is called by hand."""
    drawn = population("extended")
    for place in carry_cases():
        network = drawn.drawn[place].network
        (program,) = unbatch(construct_all("extended"), [place])
        params, inputs, _ = data(network, EXTENDED, place)
        expected, _ = reference.evaluate(network, params, inputs[:, :4])
        packed, inputs = pack_params(program, params), inputs.astype(np.float32)
        start = carry = initial_carry(program, NUM_EXAMPLES)
        halves = []
        for half in (inputs[:, :2], inputs[:, 2:4]):
            outputs, carry = interpret(program, packed, half, carry=carry, return_carry=True)
            halves.append(outputs)
        close("output", np.concatenate(halves, axis=1), expected)
        forgetful, _ = interpret(program, packed, inputs[:, 2:4], carry=start, return_carry=True)
        assert error(forgetful, expected[:, 2:]) > 0.01


def test_gradients_flow_through_the_carry():
    """Halves differentiated one after another, the second's gradient of the carry handed to the first."""
    drawn = population("extended")
    num_steps = 2 * 5  # a recurrent program is not bound to the length
    for place, layout in zip(carry_cases(), ("row", "matrix"), strict=True):
        network = drawn.drawn[place].network
        (program,) = unbatch(construct_all("extended"), [place])
        params, inputs, cotangent = data(network, EXTENDED._replace(time_steps=num_steps), place)
        expected, expected_of_inputs, kink = reference.gradients(network, params, inputs, cotangent)
        assert kink > KINK
        first, second = zip(np.split(inputs, 2, axis=1), np.split(cotangent, 2, axis=1), strict=True)
        run = runner(layout)
        carry = run(program, params, *first).carry
        late = run(program, params, *second, carry=carry)
        early = run(program, params, *first, of_carry=late.carry_grads)
        scale = 0.01 * max(np.max(np.abs(grad)) for grad in expected.values())
        for name, grad in expected.items():
            close(f"gradient of {name}", early.grads[name] + late.grads[name], grad, scale)
        of_inputs = np.concatenate([early.input_grads, late.input_grads], axis=1)
        close("gradient of the inputs", of_inputs, expected_of_inputs, scale)
        assert run.num_compilations == 1


# --- what is refused ---


def test_an_invalid_program_is_refused_with_its_reason():
    program = constructor(EXTENDED)(pad_graph(from_edges(5, [(1, 2, "matmul")]), 12).edges)
    params = draw_params(jax.random.key(0), program)
    inputs = jnp.zeros((NUM_EXAMPLES, 5, 3))
    with pytest.raises(ValueError, match="no path from input"):
        interpret(program, params, inputs)
    with pytest.raises(ValueError, match="no path from input"):
        initial_carry(program, 2)
    with pytest.raises(ValueError, match="no path from input"):
        unpack_params(program, params)


def test_inside_jit_an_invalid_program_gives_nan():
    program = constructor(EXTENDED)(pad_graph(from_edges(5, [(1, 2, "matmul")]), 12).edges)
    packed = draw_params(jax.random.key(0), program)
    program = dataclasses.replace(program, layout="row")
    inputs, cotangent = np.zeros((NUM_EXAMPLES, 5, 3), np.float32), np.zeros((NUM_EXAMPLES, 5, 2), np.float32)
    nothing = _zero_carry(program, packed, inputs)
    (outputs, _), _ = runner("row").compiled(program, packed, inputs, nothing, cotangent, nothing)
    assert np.all(np.isnan(outputs))


@pytest.mark.parametrize("shape", [(3, 5, 4), (5, 3)])
def test_inputs_of_another_shape_are_refused(shape):
    program = constructor(EXTENDED)(pad_graph(from_edges(5, XW), 12).edges)
    with pytest.raises(ValueError, match="inputs have shape"):
        interpret(program, draw_params(jax.random.key(0), program), jnp.zeros(shape))


def test_a_fixed_length_is_held():
    program = constructor(EXTENDED)(pad_graph(from_edges(5, XW), 12).edges)
    with pytest.raises(ValueError, match=r"5 time steps.* 6"):
        interpret(program, draw_params(jax.random.key(0), program), jnp.zeros((2, 6, 3)))


def test_packing_is_undone_by_unpacking_and_checked():
    place = by_layout("extended")["matrix"][0]
    network = population("extended").drawn[place].network
    (program,) = unbatch(construct_all("extended"), [place])
    params, _, _ = data(network, EXTENDED, 0)
    unpacked = unpack_params(program, pack_params(program, params))
    assert set(unpacked) == set(params) == {*network.parameters, "head/kernel", "head/bias"}
    for name, value in params.items():
        np.testing.assert_array_equal(unpacked[name], np.float32(value))
    node = next(iter(network.parameters))
    with pytest.raises(ValueError, match=rf"missing \['{node}'\]"):
        pack_params(program, {name: value for name, value in params.items() if name != node})
    with pytest.raises(ValueError, match=r"surplus \['99'\]"):
        pack_params(program, params | {99: np.zeros((1, 1))})
    with pytest.raises(ValueError, match=rf"{node}.*\(9, 9\)"):
        pack_params(program, params | {node: np.zeros((9, 9))})


def test_parameters_are_drawn_as_in_the_paper():
    """N(0, 0.1^2) for initial nodes and the head's kernel, zero for its bias; shapes are the reference's."""
    values = []
    places = range(0, population("extended").num_valid, 10)
    for place, program in zip(places, unbatch(construct_all("extended"), places), strict=True):
        network = population("extended").drawn[place].network
        unpacked = unpack_params(program, draw_params(jax.random.key(place), program))
        assert {node: x.shape for node, x in unpacked.items() if isinstance(node, int)} == network.parameters
        assert unpacked["head/kernel"].shape == network.head_shape
        np.testing.assert_array_equal(unpacked["head/bias"], 0.0)
        values += [x.ravel() for name, x in unpacked.items() if name != "head/bias"]
    pooled = np.concatenate(values)
    assert (
        abs(pooled.std() - 0.1) < 0.01
        and abs(pooled.mean()) < 0.01
        and len(np.unique(pooled)) > 0.99 * len(pooled)
    )
