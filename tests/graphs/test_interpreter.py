"""The interpreter against the reference: outputs, gradients, carries, padding, batches.

Compiling is what takes the time here, so a function is compiled once for all programs of a
padding and layout (`Runner`) and without XLA's more costly optimisations.
"""

import dataclasses
from collections.abc import Iterable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elenas_jax.graphs import (
    ComputationGraph,
    Program,
    from_edges,
    init_params,
    initial_carry,
    interpret,
    pack_params,
    pad_graph,
    specialise,
    to_edges,
    unpack_params,
)
from elenas_jax.ops import COMBINING, TRANSFORMING
from tests import reference
from tests.graphs.random_graphs import (
    QUICK_TO_COMPILE,
    SETTINGS,
    Widths,
    construct_all,
    constructor,
    dead_edges,
    golden,
    population,
)

TOLERANCE = 2e-4  # relative to the largest number of an array
KINK = 1e-5  # gradients are not compared where a relu or max is as near as this to its kink
NUM_EXAMPLES = 3


class Run(NamedTuple):
    """What came of a call; gradients in true shapes, by node, and none if they were not asked for."""

    outputs: np.ndarray
    carry: Any
    grads: dict[Any, np.ndarray]
    input_grads: np.ndarray | None
    carry_grads: Any


class Runner:
    """Runs programs of one padding in one layout (None: any layout), all by one compiled function."""

    def __init__(self, layout: str | None, with_gradients: bool) -> None:
        self.layout = layout
        self.with_gradients = with_gradients
        self.num_compilations = 0
        self.compiled = jax.jit(self._run, compiler_options=QUICK_TO_COMPILE)

    def _run(
        self, program: Program, params: dict, inputs: jax.Array, carry: Any, of_outputs: Any, of_carry: Any
    ):
        self.num_compilations += 1

        def run(params, inputs, carry):
            outputs, last = interpret(program, params, inputs, carry=carry, return_carry=True)
            return outputs, (None if carry is None else last)

        if not self.with_gradients:
            return run(params, inputs, carry), None
        results, pull = jax.vjp(run, params, inputs, carry)
        return results, pull((of_outputs, of_carry))

    def __call__(
        self,
        program: Program,
        params: dict,
        inputs: np.ndarray,
        cotangent: np.ndarray,
        carry: Any = None,
        of_carry: Any = None,
    ) -> Run:
        """Runs an unbatched program; a layout for recurrent programs alone takes and returns a carry."""
        padded = dataclasses.replace(program, layout=self.layout)
        packed = pack_params(program, params)
        inputs, cotangent = inputs.astype(np.float32), cotangent.astype(np.float32)
        if self.layout in ("row", "matrix"):
            nothing = _zero_carry(padded, packed, inputs)
            carry, of_carry = (nothing if given is None else given for given in (carry, of_carry))
        (outputs, carry), grads = jax.device_get(
            self.compiled(padded, packed, inputs, carry, cotangent, of_carry)
        )
        if grads is None:
            return Run(outputs, carry, {}, None, None)
        return Run(outputs, carry, unpack_params(program, grads[0]), *grads[1:])


def _zero_carry(program: Program, packed: dict, inputs: np.ndarray) -> Any:
    """Returns zeros in the shape of a program's carry, in its padding and layout as they are."""
    key = (program.layout, program.max_instructions, inputs.shape)
    if key not in _ZERO_CARRIES:
        shapes = jax.eval_shape(lambda *args: interpret(*args, return_carry=True)[1], program, packed, inputs)
        _ZERO_CARRIES[key] = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return _ZERO_CARRIES[key]


_ZERO_CARRIES: dict[tuple, Any] = {}


@cache
def runner(layout: str | None, with_gradients: bool = True) -> Runner:
    return Runner(layout, with_gradients)


def layout_of(program: Program) -> str:
    return str(specialise(program).layout)


def unbatch(programs: Program, places: Iterable[int]) -> list[Program]:
    return [jax.tree.map(lambda leaf, p=place: leaf[p], programs) for place in places]


def data(network: reference.Network, widths: Widths, seed: int, num_steps: int = 4):
    """Draws parameters, `[N, T, in]` inputs and `[N, T, out]` cotangents, in numbers that float32 holds."""
    rng = np.random.default_rng(seed)
    params = {name: np.float64(np.float32(x)) for name, x in reference.draw_params(network, rng).items()}
    num_steps = widths.time_steps or num_steps
    inputs = rng.normal(size=(NUM_EXAMPLES, num_steps, widths.in_features)).astype(np.float32)
    cotangent = rng.normal(size=(NUM_EXAMPLES, num_steps, widths.out_features)).astype(np.float32)
    return params, np.float64(inputs), np.float64(cotangent)


def error(found: np.ndarray, expected: np.ndarray, scale: float = 0.0) -> float:
    """Returns the largest difference, relative to the largest expected number (or `scale` if larger).

    What cancels out to nothing has no relative error: `scale` is 1% of the size of what cancels.
    """
    assert found.shape == expected.shape
    return float(np.max(np.abs(found - expected)) / max(np.max(np.abs(expected)), scale, 1e-30))


def close(what: object, found: np.ndarray, expected: np.ndarray, scale: float = 0.0) -> None:
    off = error(found, expected, scale)
    assert off < TOLERANCE, f"{what} differs by {off:.2g}"


def check(network, program: Program, widths: Widths, run: Runner, seed: int = 0) -> bool:
    """Asserts that the outputs and gradients of a program are the reference's.

    Returns:
      Whether gradients were compared.
    """
    __tracebackhide__ = True
    params, inputs, cotangent = data(network, widths, seed)
    outputs, _ = reference.evaluate(network, params, inputs)
    found = run(program, params, inputs, cotangent)
    # Shapes are fixed under jit: a single row is repeated.
    close("output", found.outputs, np.broadcast_to(outputs, found.outputs.shape), scale=0.01)
    if not run.with_gradients:
        return False
    if outputs.shape[1] != cotangent.shape[1]:
        cotangent = cotangent.sum(axis=1, keepdims=True)
    grads, input_grads, kink = reference.gradients(network, params, inputs, cotangent)
    if kink < KINK:
        return False
    assert set(found.grads) == set(grads)
    scale = 0.01 * max(np.max(np.abs(grad)) for grad in grads.values())
    for name, grad in grads.items():
        close(f"gradient of {name}", found.grads[name], grad, scale)
    assert found.input_grads is not None
    close("gradient of the inputs", found.input_grads, input_grads, scale)
    return True


# --- populations ---


@cache
def by_layout(name: str) -> dict[str, list[int]]:
    """Returns the places of the valid graphs of a population by the layout of their programs."""
    groups: dict[str, list[int]] = {"row": [], "matrix": [], "sequence": []}
    valid = range(population(name).num_valid)
    for place, program in zip(valid, unbatch(construct_all(name), valid), strict=True):
        groups[layout_of(program)].append(place)
    return groups


def check_population(name: str, places: list[int], run: Runner) -> int:
    """Checks programs of a population; returns for how many gradients were compared."""
    drawn = population(name)
    compared, wrong = 0, []
    for place, program in zip(places, unbatch(construct_all(name), places), strict=True):
        edges, network = drawn.drawn[place]
        try:
            compared += check(network, program, drawn.setting.widths, run, seed=place)
        except AssertionError as disagreement:
            wrong.append(f"{disagreement}: graph {place} of {name!r}, {to_edges(ComputationGraph(edges))}")
    assert not wrong, f"{len(wrong)} of {len(places)} disagree, the first are\n" + "\n".join(wrong[:3])
    return compared


@pytest.mark.parametrize("layout", ["row", "matrix", "sequence"])
def test_equals_the_reference(layout):
    places = by_layout("extended")[layout]
    compared = check_population("extended", places, runner(layout))
    assert len(places) >= 50 and compared > 0.9 * len(places)
    used = {row.name for row in COMBINING[:1]}
    for place in places:
        for node in population("extended").drawn[place].network.nodes.values():
            used |= {node.transform} | {row.name for row in COMBINING[1:] if getattr(node, row.name)}
    missing = {row.name for row in (*COMBINING, *TRANSFORMING)} - used
    # A row has no use for a transpose, and nothing is remembered of a sequence.
    assert missing <= {"row": {"transpose"}, "matrix": set(), "sequence": {"recursion"}}[layout]


def test_equals_the_reference_without_knowing_the_layout():
    """One compiled function for recurrent programs and others, of rows and matrices, without a head."""
    places = [place for group in by_layout("paper").values() for place in group]
    assert len(places) >= 250
    assert check_population("paper", places, runner(None)) > 0.9 * len(places)


@pytest.mark.parametrize("name", ["ones", "hidden_is_time"])
def test_equals_the_reference_where_widths_coincide(name):
    check_population(name, list(range(population(name).num_valid)), runner(None, with_gradients=False))


def test_golden_graphs():
    widths = Widths(7, 1, 64, "linear", None)
    _, edges = golden()
    programs = jax.device_get(constructor(widths, batched=True)(edges))
    run = runner("matrix", with_gradients=False)  # some remember matrices of parameters
    for place, program in enumerate(unbatch(programs, range(len(edges)))):
        network = reference.analyse(edges[place], **widths._asdict())
        assert layout_of(program) in ("row", "matrix")
        rng = np.random.default_rng(place)
        params = {n: 0.2 * x for n, x in reference.draw_params(network, rng).items()}  # as networks start
        _, inputs, cotangent = data(network, widths, place)
        expected, _ = reference.evaluate(network, params, inputs)
        close(f"output of graph {place}", run(program, params, inputs, cotangent).outputs, expected)


# --- every operation ---

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
