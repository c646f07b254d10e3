"""The constructor: which graphs become networks, for which reason others do not, and of which shapes."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elenas_jax.graphs import (
    REASONS,
    construct,
    explain,
    from_edges,
    is_recurrent,
    num_parameters,
    pad_graph,
)
from tests import reference
from tests.graphs.random_graphs import (
    SETTINGS,
    Widths,
    construct_all,
    constructor,
    dead_edges,
    golden,
    population,
)

SIZE = 12  # hand-written graphs are padded to this, and use few widths, so that little is compiled
PLAIN = Widths(3, 2, 4, "none", None)
SQUARE = Widths(3, 3, 4, "none", None)  # in is out
CUBE = Widths(3, 3, 4, "none", 3)  # ... is time
HEAD = Widths(3, 2, 3, "linear", None)  # in is hidden


def both(num_nodes, edges, widths, max_instructions=None):
    """Returns the program and what the reference says of a hand-written graph."""
    padded = np.asarray(pad_graph(from_edges(num_nodes, edges), SIZE).edges)
    return constructor(widths, max_instructions)(padded), reference.analyse(padded, **widths._asdict())


def parameter_shapes(program, place=...):
    """Returns {initial node: (rows, columns)} of a program on the host."""
    rows, cols = np.asarray(program.parameter_rows)[place], np.asarray(program.parameter_cols)[place]
    return {2 * p + 1: (int(rows[p]), int(cols[p])) for p in np.flatnonzero(rows)}


@pytest.mark.parametrize("name", [setting.name for setting in SETTINGS])
def test_equals_the_reference_on_random_graphs(name):
    drawn = population(name)
    program = construct_all(name)
    wrong = [
        f"{found.edges.tolist()}: {explain(status)}, expected {REASONS[found.network.reason]}"
        for found, status in zip(drawn.drawn, program.status, strict=True)
        if status != found.network.reason
    ]
    assert not wrong, wrong[:3]
    counts = num_parameters(program)
    for place, (edges, expected) in enumerate(drawn.drawn[: drawn.num_valid]):
        assert bool(program.recurrent[place]) == expected.recurrent, edges.tolist()
        assert parameter_shapes(program, place) == expected.parameters, edges.tolist()
        assert counts[place] == expected.num_parameters, edges.tolist()


def test_random_graphs_cover_every_reason_and_kind():
    reasons = np.concatenate([population(setting.name).reasons for setting in SETTINGS])
    assert len(reasons) >= 3000
    counts = np.bincount(reasons, minlength=len(REASONS))
    assert counts[0] >= 2000 and np.all(counts[1:8] >= 20), counts  # "too long" is made by hand


XW = [(0, 2, "matmul"), (1, 2, "matmul")]
XT = [(0, 2, "add"), (2, 2, "transpose")]
REASON_GRAPHS = {  # reason: (number of nodes, edges, widths)
    "no path from input": [
        (3, [], PLAIN),
        (3, [(1, 2, "matmul")], PLAIN),
        (5, [(1, 2, "matmul"), (2, 4, "add")], PLAIN),
    ],
    "no final node": [
        (5, [(0, 2, "add"), (2, 4, "add"), (4, 2, "add")], PLAIN),
        # the only node that feeds nothing has no path from the input
        (7, [(0, 2, "add"), (2, 4, "add"), (4, 2, "add"), (1, 6, "matmul")], PLAIN),
    ],
    "illegitimate recursion": [
        (7, [*XW, (2, 4, "add"), (4, 2, "add"), (4, 6, "add")], PLAIN),
        # a recursion edge beside the cycle does not make it legitimate
        (9, [*XW, (2, 4, "add"), (4, 2, "add"), (4, 6, "add"), (6, 8, "recursion"), (8, 2, "add")], PLAIN),
    ],
    "shapes do not fit": [
        (3, [(0, 2, "add")], PLAIN),  # in is not out
        (3, [(0, 2, "add"), (1, 2, "add")], PLAIN),
        (5, [*XW, (0, 4, "matmul"), (2, 4, "matmul")], PLAIN),  # time is not in
        # the parameter has one row in the add and as many rows as x has columns in the matmul
        (5, [*XW, (1, 4, "add"), (2, 4, "add")], PLAIN),
        # data of different rows do not broadcast: time and one, one row of parameters included
        (5, [*XW, (3, 4, "add"), (4, 2, "add")], PLAIN),
        (5, [*XW, (0, 4, "add"), (4, 4, "mean_rows"), (4, 2, "add")], SQUARE),
        # a parameter in a matmul does not broadcast
        (5, [*XW, (2, 4, "add"), (3, 4, "matmul"), (1, 4, "add")], PLAIN),
        (5, [*XT, (0, 4, "matmul"), (2, 4, "add")], SQUARE),  # in rows, time rows
    ],
    "output rows": [
        (3, [*XW, (2, 2, "transpose")], CUBE),  # nothing ties the rows down: hidden
        (5, [(0, 2, "recursion"), (2, 2, "transpose"), (2, 4, "matmul"), (1, 4, "matmul")], PLAIN),  # in rows
    ],
    "no parameters": [
        (3, [(0, 2, "add")], SQUARE),
        (3, [(0, 2, "recursion"), (2, 2, "relu")], SQUARE),
        (3, [(0, 2, "add")], HEAD),  # the head does not count
    ],
    "needs a fixed length": [
        # a matrix of parameters as a data operand beside x; a parameter that reads x^T
        (5, [(0, 4, "hadamard"), (1, 2, "matmul"), (2, 4, "hadamard")], SQUARE),
        (7, [*XT, (2, 4, "matmul"), (1, 4, "matmul"), (0, 6, "matmul"), (4, 6, "matmul")], SQUARE),
    ],
}  # fmt: skip


@pytest.mark.parametrize("reason", REASON_GRAPHS)
def test_each_reason_has_its_graph(reason):
    for num_nodes, edges, widths in REASON_GRAPHS[reason]:
        program, expected = both(num_nodes, edges, widths)
        assert REASONS[expected.reason] == reason, edges
        assert explain(program.status) == reason, edges


def test_a_fixed_length_helps():
    for num_nodes, edges, _ in REASON_GRAPHS["needs a fixed length"]:
        program, expected = both(num_nodes, edges, CUBE)
        assert int(program.status) == expected.reason == 0
        assert parameter_shapes(program) == expected.parameters == {1: (3, 3)}


def test_too_long_is_the_last_reason_and_depends_on_room_alone():
    edges = [*XW, (3, 2, "add"), (2, 2, "tanh"), (2, 4, "matmul"), (5, 4, "matmul")]
    program, _ = both(7, edges, SQUARE)
    assert explain(program.status) == "valid"
    needed = int(program.phase_ends[-1])
    assert needed > 1
    fits, _ = both(7, edges, SQUARE, max_instructions=needed)
    assert explain(fits.status) == "valid" and fits.max_instructions == needed
    assert parameter_shapes(fits) == parameter_shapes(program)
    assert explain(both(7, edges, SQUARE, max_instructions=needed - 1)[0].status) == "too long"
    chain = [(0, 2, "add"), (2, 4, "add"), *((s, s + 2, "add") for s in (4, 6, 8))]
    assert explain(both(11, chain, SQUARE, max_instructions=needed - 1)[0].status) == "no parameters"
    fixed = [
        (0, 4, "hadamard"),
        (1, 2, "matmul"),
        (2, 4, "hadamard"),
        *((s, s + 2, "add") for s in (4, 6, 8)),
    ]
    assert explain(both(11, fixed, SQUARE, max_instructions=needed - 1)[0].status) == "needs a fixed length"


@pytest.mark.parametrize(
    ("num_nodes", "edges", "shapes"),
    [
        # free widths are hidden
        (5, [*XW, (2, 4, "matmul"), (3, 4, "matmul")], {1: (3, 4), 3: (4, 2)}),
        # a product of parameters alone has free rows; they meet the columns of x
        (5, [(0, 4, "matmul"), (2, 4, "matmul"), (1, 2, "matmul"), (3, 2, "matmul")], {1: (3, 4), 3: (4, 2)}),
        # what does not depend on the input stands among the parameters, in ascending order
        (9, [(0, 8, "matmul"), (1, 8, "matmul"), (2, 8, "matmul"), (3, 8, "matmul"), (5, 2, "matmul"),
             (7, 2, "add"), (2, 2, "tanh")],
         {1: (3, 4), 3: (4, 2), 5: (4, 4), 7: (1, 4)}),
        # and what does depend on it before them, whatever its index
        (7, [(0, 6, "matmul"), (1, 6, "matmul"), (3, 6, "matmul"), (0, 2, "recursion"), (2, 2, "transpose"),
             (2, 6, "matmul")],
         {1: (1, 4), 3: (4, 2)}),
        # a row for add and hadamard, which takes the columns of the product
        (7, [*XW, (3, 2, "add"), (5, 2, "hadamard")], {1: (3, 2), 3: (1, 2), 5: (1, 2)}),
        (5, [*XW, (2, 4, "add"), (3, 4, "add")], {1: (3, 2), 3: (1, 2)}),
        # a node with row parameters only has one row
        (7, [(3, 2, "add"), (5, 2, "hadamard"), (0, 4, "matmul"), (1, 4, "matmul"), (2, 4, "matmul")],
         {1: (3, 1), 3: (1, 2), 5: (1, 2)}),
        # used in both ways: one row in the add, as many as columns on its left in the matmul
        (7, [*XW, (2, 4, "matmul"), (3, 4, "matmul"), (4, 6, "add"), (3, 6, "add")], {1: (3, 1), 3: (1, 2)}),
        # a matrix of which nothing ties down one side
        (5, [(0, 4, "matmul"), (2, 4, "matmul"), (1, 2, "matmul"), (2, 2, "transpose"), (3, 4, "matmul")],
         {1: (4, 3), 3: (4, 2)}),
        # columns are those before the transform: x(t-1) + x W + b, transposed
        (7, [*XW, (6, 2, "add"), (0, 6, "recursion"), (3, 2, "add"), (2, 2, "transpose"), (0, 4, "matmul"),
             (2, 4, "matmul"), (5, 4, "matmul")],
         {1: (3, 3), 3: (1, 3), 5: (1, 2)}),
        # subtract and max ask for the shapes of add
        (7, [(0, 2, "add"), (2, 2, "mean_rows"), (2, 4, "matmul"), (1, 4, "matmul"), (3, 4, "subtract"),
             (5, 4, "max")],
         {1: (3, 2), 3: (1, 2), 5: (1, 2)}),
    ],
)  # fmt: skip
def test_parameter_shapes_by_hand(num_nodes, edges, shapes):
    program, expected = both(num_nodes, edges, PLAIN)
    assert explain(program.status) == REASONS[expected.reason] == "valid"
    assert parameter_shapes(program) == expected.parameters == shapes
    assert num_parameters(program) == sum(rows * cols for rows, cols in shapes.values())


@pytest.mark.parametrize(("widths", "reason"), [(CUBE, "valid"), (SQUARE, "shapes do not fit")])
def test_equal_numbers_fit(widths, reason):
    """x (x W)^T added to x, (T, T) and (T, in): fits where T is in, which an open T never is."""
    edges = [*XW, (2, 2, "transpose"), (0, 4, "matmul"), (2, 4, "matmul"), (0, 6, "add"), (4, 6, "add")]
    program, expected = both(7, edges, widths)
    assert explain(program.status) == REASONS[expected.reason] == reason


@pytest.mark.parametrize(("head", "time_steps"), [("none", 32), ("linear", None)])
def test_golden_graphs(head, time_steps):
    widths = Widths(7, 1, 64, head, time_steps)
    records, edges = golden()
    program = jax.device_get(constructor(widths, batched=True)(edges))
    for place, record in enumerate(records):
        expected = reference.analyse(edges[place], **widths._asdict())
        assert explain(program.status[place]) == REASONS[expected.reason] == "valid"
        assert bool(program.recurrent[place]) == expected.recurrent == record["recurrent"]
        intermediate = [node for node in expected.live if node % 2 == 0 and node > 0]
        assert len(intermediate) == record["live_nodes"]
        rows = [expected.values[node][0] for node in expected.depends_on_input]
        assert (set(rows) == {1}) == record["rows_only"]
        assert parameter_shapes(program, place) == expected.parameters


LARGER = population("larger")  # graphs of 12 and of 16 nodes, padded to 16


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, len(LARGER.drawn) - 1), seed=st.integers(0, 2**32 - 1))
def test_dead_parts_change_nothing(place, seed):
    found = LARGER.drawn[place]
    larger = dead_edges(found.edges, LARGER.setting.widths._asdict(), np.random.default_rng(seed))
    run = constructor(LARGER.setting.widths)
    before, after = run(found.edges), run(larger)
    assert int(before.status) == int(after.status) == found.network.reason
    if found.network.reason == 0:
        assert parameter_shapes(before) == parameter_shapes(after) == found.network.parameters
        assert bool(before.recurrent) == bool(after.recurrent)


def test_padding_changes_nothing():
    run = constructor(LARGER.setting.widths)
    small = [
        found.edges for found in LARGER.drawn if not found.edges[12:].any() and not found.edges[:, 12:].any()
    ]
    assert len(small) >= 200
    for edges in small:
        short, long = run(edges[:12, :12]), run(edges)
        assert int(short.status) == int(long.status)
        if short.status == 0:
            assert parameter_shapes(short) == parameter_shapes(long)
            assert bool(short.recurrent) == bool(long.recurrent)


def test_unbatched_and_batched_programs_are_the_same():
    run, batch = constructor(LARGER.setting.widths), construct_all("larger")
    for place in range(0, len(LARGER.drawn), 10):
        single = run(LARGER.drawn[place].edges)
        jax.tree.map(
            np.testing.assert_array_equal, single, jax.tree.map(lambda leaf, p=place: leaf[p], batch)
        )


def test_another_graph_does_not_compile_again():
    run = constructor(LARGER.setting.widths)
    run(LARGER.drawn[0].edges)
    before = run._cache_size()
    for found in LARGER.drawn[::50]:
        run(found.edges)
    assert run._cache_size() == before


def test_what_is_read_on_the_host():
    program, _ = both(5, [*XW, (2, 4, "recursion"), (4, 2, "add")], HEAD)
    assert is_recurrent(program) is True
    assert num_parameters(program) == 3 * 3 + 3 * 2 + 2 and isinstance(num_parameters(program), int)
    program, _ = both(3, XW, PLAIN)
    assert is_recurrent(program) is False
    assert num_parameters(program) == 3 * 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("in_features", 0),
        ("out_features", -1),
        ("hidden_features", 2.5),
        ("head", "dense"),
        ("time_steps", 0),
    ],
)
def test_widths_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        construct(from_edges(3, XW), **PLAIN._asdict() | {name: value})
