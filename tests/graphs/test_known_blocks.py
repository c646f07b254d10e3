"""Known blocks as graphs, against Flax's own cells and against their equations."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.graphs import liveness, num_parameters, pack_params, pad_graph, unpack_params
from elenas_jax.graphs.known_blocks import DARTS, ENAS, KNOWN_BLOCKS
from elenas_jax.ops import OPERATION_SETS
from tests.graphs.known_programs import (
    EXAMPLES,
    HIDDEN,
    IN,
    NAMES,
    OUT,
    STEPS,
    build,
    compiled_construct,
    compiled_interpret,
    draw_params,
    interpret_with_gradients,
    values_and_gradients,
)

PAPER = ("elman", "lstm", "linear_attention", "elena1", "elena2")


# Each block directly: (parameters by node, inputs [N, T, in], activation of Elman) -> [N, T, width].


def run_flax(cell, params, inputs):
    return nn.RNN(cell).apply({"params": {"cell": params}}, inputs)


def flax_elman(p, inputs, activation=jnp.tanh):
    params = {"i": {"kernel": p[1], "bias": p[5][0]}, "h": {"kernel": p[3]}}
    return run_flax(nn.SimpleCell(p[3].shape[0], activation_fn=activation), params, inputs)


def flax_lstm(p, inputs, cell=nn.OptimizedLSTMCell):
    params: dict = {}
    for place, gate in enumerate("ifgo"):
        kernel, recurrent_kernel, bias = (p[6 * place + offset] for offset in (1, 3, 5))
        params |= {f"i{gate}": {"kernel": kernel}, f"h{gate}": {"kernel": recurrent_kernel, "bias": bias[0]}}
    return run_flax(cell(p[3].shape[0]), params, inputs)


def flax_gru(p, inputs):
    params = {
        "ir": {"kernel": p[1], "bias": p[5][0]},
        "hr": {"kernel": p[3]},
        "iz": {"kernel": p[7], "bias": p[11][0]},
        "hz": {"kernel": p[9]},
        "in": {"kernel": p[13], "bias": p[15][0]},
        "hn": {"kernel": p[17], "bias": p[19][0]},
    }
    return run_flax(nn.GRUCell(p[3].shape[0]), params, inputs)


def scan(step, start, inputs):
    """Runs `step(state, x) -> state, output` over time."""
    _, outputs = jax.lax.scan(step, start, jnp.swapaxes(inputs, 0, 1))
    return jnp.swapaxes(outputs, 0, 1)


def zeros(inputs, width):
    return jnp.zeros((inputs.shape[0], width))


def direct_mgu(p, inputs):
    def step(h, x):
        f = jax.nn.sigmoid(x @ p[1] + h @ p[3] + p[5])
        n = jnp.tanh(x @ p[7] + (f * h) @ p[9] + p[11])
        h = (1 - f) * n + f * h
        return h, h

    return scan(step, zeros(inputs, p[3].shape[0]), inputs)


def direct_linear_attention(p, inputs):
    q, k, v = inputs @ p[1], inputs @ p[3], inputs @ p[5]
    return jnp.einsum("nij,njd->nid", jnp.einsum("nid,njd->nij", q, k), v)


def direct_softmax_attention(p, inputs):
    width = p[1].shape[1]
    q, k, v = inputs @ (p[1] * width**0.5), inputs @ p[3], inputs @ p[5]
    scores = jnp.einsum("nid,njd->nij", q, k) / width**0.5
    return jnp.einsum("nij,njd->nid", jax.nn.softmax(scores), v)


def direct_elena1(p, inputs):
    h = jnp.tanh(inputs @ p[1] + p[3])
    return jnp.cumsum((inputs @ p[5]) * h, axis=1)


def direct_elena2(p, inputs):
    def step(state, x):
        h, y = state
        h = jnp.tanh(x @ p[1] + h + p[3] + p[5])
        y = (x @ p[7]) * h + p[5] + y
        return (h, y), y

    start = zeros(inputs, p[1].shape[1])
    return scan(step, (start, start), inputs)


def direct_highway(genotype):
    activations = {"tanh": jnp.tanh, "relu": jax.nn.relu, "sigmoid": jax.nn.sigmoid, "identity": lambda x: x}
    steps, averaged = genotype

    def formula(p, inputs):
        def step(y, x):
            gate, value = jax.nn.sigmoid(x @ p[1] + y @ p[3]), jnp.tanh(x @ p[5] + y @ p[7])
            states = [gate * value + (1 - gate) * y]
            for place, (activation, start) in enumerate(steps):
                state = states[start]
                gate = jax.nn.sigmoid(state @ p[9 + 4 * place])
                states.append(gate * activations[activation](state @ p[11 + 4 * place]) + (1 - gate) * state)
            average = jnp.mean(jnp.stack([states[state] for state in averaged]), axis=0)
            y = average * (len(averaged) * p[9 + 4 * len(steps)])  # 1 where the row holds 1/number
            return y, y

        return scan(step, zeros(inputs, p[3].shape[0]), inputs)

    return formula


FORMULAS = {
    "elman": flax_elman,
    "lstm": flax_lstm,
    "mgu": direct_mgu,
    "gru": flax_gru,
    "linear_attention": direct_linear_attention,
    "softmax_attention": direct_softmax_attention,
    "elena1": direct_elena1,
    "elena2": direct_elena2,
    "enas": direct_highway(ENAS),
    "darts": direct_highway(DARTS),
}


def draw(name, program, rng):
    """Draws parameters by node; the row that makes an average holds 1/number."""
    params = draw_params(program, rng)
    for genotype in {"enas": [ENAS], "darts": [DARTS]}.get(name, []):
        row = max(node for node in params if isinstance(node, int))
        params[row] = np.full_like(params[row], 1 / len(genotype[1]))
    return params


@pytest.mark.parametrize("name", NAMES)
def test_equals_its_formula_with_a_linear_head(name):
    rng = np.random.default_rng(0)
    program = build(name, "linear")
    params = draw(name, program, rng)
    inputs = rng.normal(size=(EXAMPLES, STEPS, IN)).astype(np.float32)
    cotangent = rng.normal(size=(EXAMPLES, STEPS, OUT)).astype(np.float32)

    @jax.jit
    def formula(values, inputs):
        p = dict(zip(params, values, strict=True))
        return FORMULAS[name](p, inputs) @ p["head/kernel"] + p["head/bias"]

    outputs, gradients, of_inputs = interpret_with_gradients(
        program, pack_params(program, params), inputs, cotangent
    )
    expected, expected_gradients, expected_of_inputs = values_and_gradients(
        formula, list(params.values()), inputs, cotangent
    )
    np.testing.assert_allclose(outputs, expected, rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(of_inputs, expected_of_inputs, rtol=1e-4, atol=1e-4)
    gradients = unpack_params(program, gradients)
    for node, gradient in zip(params, expected_gradients, strict=True):
        np.testing.assert_allclose(gradients[node], gradient, rtol=1e-4, atol=1e-4, err_msg=f"node {node}")


@pytest.mark.parametrize("name", NAMES)
def test_equals_its_formula_without_a_head(name):
    rng = np.random.default_rng(1)
    program = build(name, "none")
    params = draw(name, program, rng)
    inputs = rng.normal(size=(EXAMPLES, STEPS, IN)).astype(np.float32)
    # The final activation is dropped, which of these concerns the Elman network alone.
    dropped = {"activation": lambda x: x} if name == "elman" else {}
    expected = FORMULAS[name](params, inputs, **dropped)
    outputs = compiled_interpret(program, pack_params(program, params), inputs)
    assert outputs.shape == (EXAMPLES, STEPS, OUT)
    np.testing.assert_allclose(outputs, expected, rtol=2e-5, atol=2e-5)


def test_both_lstm_cells_of_flax_agree():
    rng = np.random.default_rng(2)
    program = build("lstm", "none")
    params = draw("lstm", program, rng)
    inputs = rng.normal(size=(EXAMPLES, STEPS, IN)).astype(np.float32)
    expected = flax_lstm(params, inputs, cell=nn.LSTMCell)
    np.testing.assert_allclose(
        compiled_interpret(program, pack_params(program, params), inputs), expected, rtol=2e-5, atol=2e-5
    )


def test_names():
    recurrent = ["elman", "lstm", "mgu", "gru", "elena1", "elena2", "enas", "darts"]
    assert sorted(NAMES) == sorted([*recurrent, "linear_attention", "softmax_attention"])


@pytest.mark.parametrize("name", NAMES)
def test_operations(name):
    num_paper = len(OPERATION_SETS["paper"][0])
    assert (np.max(KNOWN_BLOCKS[name].edges) < num_paper) == (name in PAPER)


@pytest.mark.parametrize("name", NAMES)
def test_has_no_dead_nodes(name):
    network = np.asarray(liveness(KNOWN_BLOCKS[name]).network)
    # Odd and even nodes take turns: where there are fewer of one kind, its last numbers stay free.
    assert network[:3].all() and network[-1]
    for kind in (network[1::2], network[2::2]):
        assert not np.any(np.diff(kind.astype(int)) > 0)


def test_the_lstm_fits_into_32_nodes():
    graph = pad_graph(KNOWN_BLOCKS["lstm"], 32)
    network = np.flatnonzero(liveness(graph).network)
    assert np.sum((network % 2 == 0) & (network > 0)) == 14
    assert np.sum(network % 2 == 1) == 12
    program = compiled_construct(graph, in_features=7, out_features=1, head="linear")
    assert num_parameters(program) == 4 * (7 * 64 + 64 * 64 + 64) + 65 == 18_497


@pytest.mark.parametrize(("name", "genotype"), [("enas", ENAS), ("darts", DARTS)])
def test_highway_cells_have_the_published_parameters_and_a_row(name, genotype):
    published = (IN + HIDDEN) * 2 * HIDDEN + len(genotype[0]) * HIDDEN * 2 * HIDDEN
    head = (HIDDEN + 1) * OUT
    assert num_parameters(build(name, "linear")) == published + HIDDEN + head
    assert 80 <= KNOWN_BLOCKS[name].num_nodes <= 110


def test_loose_ends_of_enas_are_what_nothing_reads():
    steps, averaged = ENAS
    assert set(averaged) == set(range(len(steps) + 1)) - {start for _, start in steps}
