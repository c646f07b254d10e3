"""scripts/benchmark_evaluation.py: what it compares with computes the same, and what it writes."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import benchmark_evaluation
import evaluation_peers

from elenas_jax.graphs import from_edges
from elenas_jax.ops import COMBINING_BY_NAME, TRANSFORMING_BY_NAME
from tests.reference import evaluator as reference

# Without recursion, with a derived parameter and an operation that needs all of a row.
WHOLE = [(0, 4, "matmul"), (2, 4, "matmul"), (1, 2, "matmul"), (3, 2, "matmul"), (4, 4, "layer_norm")]
GOLDEN = benchmark_evaluation.read_graphs(benchmark_evaluation.GOLDEN)
GRAPHS = [GOLDEN[0], GOLDEN[7], from_edges(5, WHOLE)]  # 7 holds values of several rows


@pytest.fixture(scope="module")
def population() -> benchmark_evaluation.Population:
    return benchmark_evaluation.make_population("three", GRAPHS, 3)


@pytest.fixture
def data(monkeypatch):
    """Few examples, and no time for this package to compile."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(2, 4, 32, 7)).astype(np.float32)
    batches = inputs, rng.integers(2, size=(2, 4, 1)).astype(np.float32)
    monkeypatch.setattr(benchmark_evaluation, "make_data", lambda num_batches: batches)
    monkeypatch.setattr(
        benchmark_evaluation,
        "train_ours",
        lambda population, places, *_: (np.full(len(places), 0.5), 1.0, 3.0),
    )
    return batches


@pytest.mark.parametrize("place", range(3))
def test_cells_have_the_outputs_and_gradients_of_the_reference(population, data, place):
    program = population.programs[place]
    cell = evaluation_peers.read_cell(program, benchmark_evaluation.TIME_STEPS)
    params = evaluation_peers.true_shapes(program, benchmark_evaluation.draw_params(population, place))
    inputs, cotangent = (batches[0] for batches in data)

    def total(params):
        outputs = evaluation_peers.jit_outputs(cell, params, jnp.asarray(inputs))
        return jnp.sum(outputs * cotangent), outputs

    gradient, outputs = jax.jit(jax.grad(total, has_aux=True))(params)
    widths = dict(in_features=7, out_features=1, hidden_features=64, head="linear", time_steps=32)
    network = reference.analyse(GRAPHS[place].edges, **widths)
    by_node = {int(name) if name.isdigit() else name: value for name, value in params.items()}
    expected, _ = reference.evaluate(network, by_node, inputs)
    np.testing.assert_allclose(outputs, expected[:, -1], rtol=1e-4, atol=1e-5)
    last = np.zeros(expected.shape)
    last[:, -1] = cotangent
    expected, _, _ = reference.gradients(network, by_node, inputs, last)
    assert gradient.keys() == params.keys()
    for name, value in by_node.items():
        np.testing.assert_allclose(gradient[str(name)], expected[name], rtol=1e-3, atol=1e-4)
        assert value.shape == expected[name].shape


def test_pytorch_computes_the_same(population, data):
    torch = pytest.importorskip("torch")
    known = {*COMBINING_BY_NAME, *TRANSFORMING_BY_NAME} - {"none"}
    assert known <= evaluation_peers._torch_functions(False).keys()
    for place, program in enumerate(population.programs):
        cell = evaluation_peers.read_cell(program, benchmark_evaluation.TIME_STEPS)
        params = evaluation_peers.true_shapes(program, benchmark_evaluation.draw_params(population, place))
        outputs, _ = evaluation_peers.make_torch(cell, params)
        expected = evaluation_peers.jit_outputs(cell, params, jnp.asarray(data[0][0]))
        found = outputs(torch.tensor(data[0][0])).detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_rows_have_the_keys_promised(population, data, capsys):
    few = population._replace(programs=population.programs[:1] * 2)
    ours, jit = benchmark_evaluation.time_population(few, 2, [("jit", 1)], 100.0)
    assert (ours["way"], ours["compile_s"], ours["total_s"]) == ("ours", 1.0, 2.0)
    assert jit["way"] == "jit" and jit["compile_s"] > 0
    for record in (ours, jit):
        assert record["graphs"] == record["steps"] == 2 and record["scaled"] is False
        assert record["ms_per_step_and_candidate"] == pytest.approx(1e3 * record["total_s"] / 4)
        assert record["gflops"] > 0
    longer = list(benchmark_evaluation.time_population(few, 50, [("jit", 1)], 100.0))[1]
    assert longer["scaled"] is True
    assert capsys.readouterr().out.count("better peer / ours") == 2


def test_losses_that_differ_end_it(population, data, monkeypatch):
    def train(way, cells, params, data, steps):
        return np.full((len(cells), steps), 0.501), 0.0, 1.0

    monkeypatch.setattr(evaluation_peers, "train", train)
    with pytest.raises(evaluation_peers.Mistake, match=r"candidate 0, step 1: 0\.5.* 0\.501.*jit"):
        benchmark_evaluation.check_losses(population, ["jit"])
