"""The interpreter against the reference on random graphs and the golden ones."""

import jax
import numpy as np
import pytest

from elenas_jax.ops import COMBINING, TRANSFORMING
from tests import reference
from tests.graphs.comparison import by_layout, check_population, close, data, layout_of, runner, unbatch
from tests.graphs.random_graphs import (
    Widths,
    constructor,
    golden,
    population,
)


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
