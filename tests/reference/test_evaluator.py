"""The reference against hand-written networks and finite differences: what checks the checker."""

import numpy as np
import pytest

from elenas_jax.graphs.computation import from_edges
from elenas_jax.ops import COMBINING, TRANSFORMING
from tests.reference import analyse, draw_params, evaluate, gradients
from tests.reference import evaluator as reference


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_edges():
    """An LSTM: h(t-1) is 2, c(t-1) is 4; gates i, f, o, g are 6, 8, 10, 12; r U of each is 14 to 20."""
    edges = [(28, 2, "recursion"), (24, 4, "recursion")]
    for number, gate in enumerate((6, 8, 10, 12)):
        recurrent = 14 + 2 * number
        w, u, b = 1 + 6 * number, 3 + 6 * number, 5 + 6 * number
        edges += [(0, gate, "matmul"), (w, gate, "matmul"), (recurrent, gate, "add"), (b, gate, "add")]
        edges += [(2, recurrent, "matmul"), (u, recurrent, "matmul")]
        edges += [(gate, gate, "tanh" if gate == 12 else "sigmoid")]
    edges += [(6, 22, "hadamard"), (12, 22, "hadamard")]
    edges += [(8, 24, "hadamard"), (4, 24, "hadamard"), (22, 24, "add")]
    edges += [(24, 26, "add"), (26, 26, "tanh"), (10, 28, "hadamard"), (26, 28, "hadamard")]
    return from_edges(30, edges).edges


def test_lstm():
    network = analyse(lstm_edges(), in_features=3, out_features=2, hidden_features=5, head="linear")
    assert (network.reason, network.recurrent, network.final) == (0, True, 28)
    assert sum(reference.is_intermediate(node) for node in network.live) == 14
    assert len(network.parameters) == 12
    assert network.num_parameters == 4 * (3 * 5 + 5 * 5 + 5) + 5 * 2 + 2
    rng = np.random.default_rng(0)
    p = draw_params(network, rng)
    inputs = rng.normal(size=(4, 6, 3))
    h = c = np.zeros((4, 5))
    expected = []
    for x in inputs.swapaxes(0, 1):
        sums = [x @ p[1 + 6 * k] + h @ p[3 + 6 * k] + p[5 + 6 * k] for k in range(4)]
        i, f, o = map(sigmoid, sums[:3])
        g = np.tanh(sums[3])
        c = f * c + i * g
        h = o * np.tanh(c)
        expected.append(h @ p["head/kernel"] + p["head/bias"])
    outputs, carry = evaluate(network, p, inputs)
    np.testing.assert_allclose(outputs, np.stack(expected, axis=1), rtol=1e-12)
    np.testing.assert_allclose(carry[28][:, 0], h, rtol=1e-12)


def test_elena2():
    """h = tanh(W1 x + h(t-1) + b1 + b2); y = W2 x * h + b2 + y(t-1)."""
    edges = [(0, 2, "matmul"), (1, 2, "matmul"), (2, 4, "recursion")]
    # h cannot read itself, so 4 is its previous value; likewise 8 is that of y.
    edges += [(4, 2, "add"), (3, 2, "add"), (5, 2, "add"), (2, 2, "tanh")]
    edges += [(0, 6, "matmul"), (7, 6, "matmul"), (2, 6, "hadamard"), (5, 6, "add"), (6, 8, "recursion")]
    edges += [(8, 6, "add")]
    network = analyse(from_edges(9, edges).edges, in_features=3, out_features=2, hidden_features=5)
    assert network.parameters == {1: (3, 2), 3: (1, 2), 5: (1, 2), 7: (3, 2)}
    rng = np.random.default_rng(1)
    p = draw_params(network, rng)
    inputs = rng.normal(size=(4, 6, 3))
    h = y = np.zeros((4, 2))
    expected = []
    for x in inputs.swapaxes(0, 1):
        h = np.tanh(x @ p[1] + h + p[3] + p[5])
        y = x @ p[7] * h + p[5] + y
        expected.append(y)
    np.testing.assert_allclose(evaluate(network, p, inputs)[0], np.stack(expected, axis=1), rtol=1e-12)


def test_softmax_attention():
    """softmax(x Wq (x Wk)^T) x Wv on a whole sequence: matrices, and a node of two data operands."""
    edges = [(0, 2, "matmul"), (1, 2, "matmul"), (0, 4, "matmul"), (3, 4, "matmul"), (4, 4, "transpose")]
    edges += [(2, 6, "matmul"), (4, 6, "matmul"), (6, 6, "softmax")]
    edges += [(0, 8, "matmul"), (5, 8, "matmul"), (6, 10, "matmul"), (8, 10, "matmul")]
    network = analyse(from_edges(11, edges).edges, in_features=3, out_features=2, hidden_features=5)
    assert network.parameters == {1: (3, 5), 3: (3, 5), 5: (3, 2)}
    assert not network.recurrent
    assert network.values[10] == ("time", 2) and network.values[6] == ("time", "time")
    rng = np.random.default_rng(2)
    p = draw_params(network, rng)
    inputs = rng.normal(size=(4, 6, 3))
    logits = np.einsum("ntd,nsd->nts", inputs @ p[1], inputs @ p[3])
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.einsum("nts,nsd->ntd", weights, inputs @ p[5])
    np.testing.assert_allclose(evaluate(network, p, inputs)[0], expected, rtol=1e-12)


def test_names_and_codes_are_those_of_the_tables():
    assert tuple(row.name for row in COMBINING) == reference.COMBINING
    assert tuple(row.name for row in TRANSFORMING) == reference.TRANSFORMING


@pytest.mark.parametrize("name", reference.TRANSFORMING)
def test_gradients_are_those_of_finite_differences(name):
    """On one network with every combining operation, broadcasts, recursion and a transposed operand."""
    edges = [(4, 2, "recursion"), (0, 4, "matmul"), (1, 4, "matmul"), (3, 4, "hadamard"), (5, 4, "add")]
    edges += [(2, 4, "add"), (7, 4, "subtract"), (9, 4, "max")]
    edges += [(4, 4, name)] if name != "transpose" else []
    edges += [(0, 6, "matmul"), (15, 6, "matmul"), (6, 6, "transpose")]
    edges += [(4, 10, "matmul"), (6, 10, "matmul"), (11, 10, "matmul"), (13, 10, "subtract")]
    graph = from_edges(16, edges)
    network = analyse(graph.edges, in_features=3, out_features=2, hidden_features=4)
    assert network.reason == 0
    rng = np.random.default_rng(3)
    params = draw_params(network, rng)
    inputs = rng.normal(size=(2, 3, 3))
    cotangent = rng.normal(size=evaluate(network, params, inputs)[0].shape)
    grads, input_grads, kink = gradients(network, params, inputs, cotangent)
    assert kink > 1e-4

    def objective():
        return np.sum(evaluate(network, params, inputs)[0] * cotangent)

    step = 1e-6
    for array, grad in [(inputs, input_grads), *((params[key], grads[key]) for key in params)]:
        for place in np.ndindex(array.shape):
            before = array[place]
            array[place] = before + step
            above = objective()
            array[place] = before - step
            slope = (above - objective()) / (2 * step)
            array[place] = before
            np.testing.assert_allclose(grad[place], slope, rtol=1e-5, atol=1e-7)


def test_layer_norm_and_gelu_by_hand():
    x = np.array([[[1.0, 2.0, 4.0]]])
    centred = x - 7 / 3
    np.testing.assert_allclose(reference.TRANSFORMS["layer_norm"](x), centred / np.sqrt(x.var() + 1e-6))
    np.testing.assert_allclose(reference.TRANSFORMS["gelu"](np.array(1.0)), 0.841191990607477, rtol=1e-9)
    np.testing.assert_allclose(reference.TRANSFORMS["mean_rows"](x.swapaxes(1, 2)), np.full((1, 1, 1), 7 / 3))
