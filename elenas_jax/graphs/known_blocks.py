"""Known building blocks, written as computation graphs.

Every block works with both heads. With head `none` the final node, and every width that the
block's own recurrence ties to it, has the width of the output, and a final activation is dropped:
of these blocks that concerns only `elman`, which becomes linear.

`elman`, `lstm`, `linear_attention`, `elena1` and `elena2` use the paper's ten operations alone,
the others the extended table. A block's parameters are the odd nodes 1, 3, 5, ... in the order
in which its equation below names them.
"""

import types
from collections.abc import Mapping, Sequence

from elenas_jax.graphs.computation import ComputationGraph, from_edges

INPUT = 0


class _Sketch:
    """Hands out node numbers and collects edges.

    Intermediate nodes are numbered in the order in which they are made. That matters for matrix
    products: a node multiplies its data operands in ascending order, then its parameters.
    """

    def __init__(self) -> None:
        self._edges: list[tuple[int, int, str]] = []
        self._next_initial = 1
        self._next_intermediate = 2

    def parameter(self) -> int:
        """Returns the next initial node."""
        node, self._next_initial = self._next_initial, self._next_initial + 2
        return node

    def node(
        self,
        transforming: str = "identity",
        *,
        matmul: Sequence[int] = (),
        hadamard: Sequence[int] = (),
        add: Sequence[int] = (),
        subtract: Sequence[int] = (),
    ) -> int:
        """Returns the next intermediate node, with these operands within the step."""
        node, self._next_intermediate = self._next_intermediate, self._next_intermediate + 2
        groups = {"matmul": matmul, "hadamard": hadamard, "add": add, "subtract": subtract}
        self._edges += [(source, node, name) for name, sources in groups.items() for source in sources]
        if transforming != "identity":
            self._edges.append((node, node, transforming))
        return node

    def linear(self, source: int, *, add: Sequence[int] = (), transforming: str = "identity") -> int:
        """Returns a node of `transforming(source W + add ...)` with a parameter W of its own."""
        return self.node(transforming, matmul=(source, self.parameter()), add=add)

    def remember(self, node: int, previous: int) -> None:
        """Makes `node`, made without operands, the value of `previous` one step before."""
        self._edges.append((previous, node, "recursion"))

    def graph(self) -> ComputationGraph:
        """Returns the smallest graph that holds all nodes made so far."""
        return from_edges(max(self._next_initial - 2, self._next_intermediate - 2) + 1, self._edges)


def elman() -> ComputationGraph:
    """Elman network (Elman, 1990): h = tanh(x W1 + h(t-1) W2 + b3)."""
    sketch = _Sketch()
    last = sketch.node()
    from_input = sketch.linear(INPUT)
    kernel, bias = sketch.parameter(), sketch.parameter()
    h = sketch.node("tanh", matmul=(last, kernel), add=(from_input, bias))
    sketch.remember(last, h)
    return sketch.graph()


def lstm() -> ComputationGraph:
    """LSTM with a forget gate (Hochreiter and Schmidhuber, 1997; Gers et al., 2000).

    i, f, o = sigmoid(x W + h(t-1) U + b), g = tanh(x W + h(t-1) U + b), three parameters each in
    the order i, f, g, o; c = f * c(t-1) + i * g; h = o * tanh(c).
    """
    sketch = _Sketch()
    last_h, last_c = sketch.node(), sketch.node()

    def gate(transforming: str) -> int:
        from_input = sketch.linear(INPUT)
        kernel, bias = sketch.parameter(), sketch.parameter()
        return sketch.node(transforming, matmul=(last_h, kernel), add=(from_input, bias))

    i, f, g, o = gate("sigmoid"), gate("sigmoid"), gate("tanh"), gate("sigmoid")
    kept = sketch.node(hadamard=(f, last_c))
    c = sketch.node(hadamard=(i, g), add=(kept,))
    h = sketch.node(hadamard=(o, sketch.node("tanh", add=(c,))))
    sketch.remember(last_h, h)
    sketch.remember(last_c, c)
    return sketch.graph()


def mgu() -> ComputationGraph:
    """Minimal gated unit (Zhou et al., 2016).

    f = sigmoid(x W1 + h(t-1) W2 + b3); n = tanh(x W4 + (f * h(t-1)) W5 + b6);
    h = (1 - f) * n + f * h(t-1).
    """
    sketch = _Sketch()
    last = sketch.node()
    from_input = sketch.linear(INPUT)
    kernel, bias = sketch.parameter(), sketch.parameter()
    f = sketch.node("sigmoid", matmul=(last, kernel), add=(from_input, bias))
    kept = sketch.node(hadamard=(f, last))
    from_input = sketch.linear(INPUT)
    kernel, bias = sketch.parameter(), sketch.parameter()
    n = sketch.node("tanh", matmul=(kept, kernel), add=(from_input, bias))
    h = sketch.node(hadamard=(sketch.node("one_minus", add=(f,)), n), add=(kept,))
    sketch.remember(last, h)
    return sketch.graph()


def gru() -> ComputationGraph:
    """Gated recurrent unit (Cho et al., 2014), in the form of Flax and cuDNN.

    r = sigmoid(x W1 + h(t-1) W2 + b3); z = sigmoid(x W4 + h(t-1) W5 + b6);
    n = tanh(x W7 + b8 + r * (h(t-1) W9 + b10)); h = (1 - z) * n + z * h(t-1). The reset gate
    follows the hidden product, which has a bias of its own; in the original it stands before it.
    """
    sketch = _Sketch()
    last = sketch.node()

    def gate() -> int:
        from_input = sketch.linear(INPUT)
        kernel, bias = sketch.parameter(), sketch.parameter()
        return sketch.node("sigmoid", matmul=(last, kernel), add=(from_input, bias))

    r, z = gate(), gate()
    kernel, bias = sketch.parameter(), sketch.parameter()
    from_input = sketch.node(matmul=(INPUT, kernel), add=(bias,))
    kernel, bias = sketch.parameter(), sketch.parameter()
    from_last = sketch.node(matmul=(last, kernel), add=(bias,))
    n = sketch.node("tanh", hadamard=(r, from_last), add=(from_input,))
    kept = sketch.node(hadamard=(z, last))
    h = sketch.node(hadamard=(sketch.node("one_minus", add=(z,)), n), add=(kept,))
    sketch.remember(last, h)
    return sketch.graph()


def linear_attention() -> ComputationGraph:
    """Attention without softmax: y = q k^T v with q = x W1, k = x W2, v = x W3."""
    sketch = _Sketch()
    q = sketch.linear(INPUT)
    k_transposed = sketch.linear(INPUT, transforming="transpose")
    v = sketch.linear(INPUT)
    sketch.node(matmul=(q, k_transposed, v))
    return sketch.graph()


def softmax_attention() -> ComputationGraph:
    """Single-head attention (Vaswani et al., 2017): y = softmax(q k^T) v.

    q = x W1, k = x W2, v = x W3; the factor 1/sqrt(d) of the scores is part of W1.
    """
    sketch = _Sketch()
    q = sketch.linear(INPUT)
    k_transposed = sketch.linear(INPUT, transforming="transpose")
    weights = sketch.node("softmax", matmul=(q, k_transposed))
    v = sketch.linear(INPUT)
    sketch.node(matmul=(weights, v))
    return sketch.graph()


def elena1() -> ComputationGraph:
    """ELENA1 (Aichberger and Klambauer, 2023): h = tanh(x W1 + b2); y = x W3 * h + y(t-1)."""
    sketch = _Sketch()
    kernel, bias = sketch.parameter(), sketch.parameter()
    h = sketch.node("tanh", matmul=(INPUT, kernel), add=(bias,))
    last_y = sketch.node()
    y = sketch.node(matmul=(INPUT, sketch.parameter()), hadamard=(h,), add=(last_y,))
    sketch.remember(last_y, y)
    return sketch.graph()


def elena2() -> ComputationGraph:
    """ELENA2 (Aichberger and Klambauer, 2023).

    h = tanh(x W1 + h(t-1) + b2 + b3); y = x W4 * h + b3 + y(t-1); both share b3.
    """
    sketch = _Sketch()
    kernel, bias, shared = sketch.parameter(), sketch.parameter(), sketch.parameter()
    last_h = sketch.node()
    h = sketch.node("tanh", matmul=(INPUT, kernel), add=(last_h, bias, shared))
    last_y = sketch.node()
    y = sketch.node(matmul=(INPUT, sketch.parameter()), hadamard=(h,), add=(last_y, shared))
    sketch.remember(last_h, h)
    sketch.remember(last_y, y)
    return sketch.graph()


# A recurrent highway cell as (activation, number of the state it starts from), state 0 being made
# of the input and the previous output, and the states that are averaged.
Genotype = tuple[tuple[tuple[str, int], ...], tuple[int, ...]]

# Pham et al. (2018), figure 6, as released by the authors: twelve states, average of the six that
# nothing else reads.
ENAS: Genotype = (
    (
        ("tanh", 0),
        ("relu", 1),
        ("relu", 2),
        ("tanh", 2),
        ("tanh", 2),
        ("relu", 5),
        ("tanh", 1),
        ("relu", 6),
        ("relu", 8),
        ("relu", 8),
        ("relu", 8),
    ),
    (3, 4, 7, 9, 10, 11),
)

# Liu et al. (2019), second order ("DARTS_V2"): the average of all states but the first.
DARTS: Genotype = (
    (
        ("sigmoid", 0),
        ("relu", 1),
        ("relu", 1),
        ("identity", 1),
        ("tanh", 2),
        ("sigmoid", 5),
        ("tanh", 3),
        ("relu", 5),
    ),
    (1, 2, 3, 4, 5, 6, 7, 8),
)


def highway_cell(genotype: Genotype) -> ComputationGraph:
    """A recurrent highway cell of the ENAS and DARTS search spaces.

    c0 = sigmoid(x W + y(t-1) U), a0 = tanh(x W + y(t-1) U), s0 = y(t-1) + c0 * (a0 - y(t-1)); then
    for each further state c = sigmoid(s W), a = activation(s W), s' = s + c * (a - s), which is
    c * a + (1 - c) * s, with s the state it starts from. There are no biases.

    The original ends in the average of some states. Graphs have no constants: here y is their sum
    times a row of parameters, the last initial node. Filled with 1/number it is the average; like
    all parameters it is drawn from N(0, 0.1^2) and trained, which departs from the originals and
    adds `hidden_features` parameters.

    The order of the parameters: W and U of c0, W and U of a0, then W of c and W of a for each state.
    """
    steps, averaged = genotype
    sketch = _Sketch()
    last = sketch.node()

    def first(transforming: str) -> int:
        from_input = sketch.linear(INPUT)
        return sketch.linear(last, add=(from_input,), transforming=transforming)

    def highway(state: int, gate: int, activated: int) -> int:
        change = sketch.node(add=(activated,), subtract=(state,))
        return sketch.node(hadamard=(gate, change), add=(state,))

    states = [highway(last, first("sigmoid"), first("tanh"))]
    for transforming, start in steps:
        state = states[start]
        gate = sketch.linear(state, transforming="sigmoid")
        states.append(highway(state, gate, sketch.linear(state, transforming=transforming)))
    total = sketch.node(add=[states[state] for state in averaged])
    y = sketch.node(hadamard=(total, sketch.parameter()))
    sketch.remember(last, y)
    return sketch.graph()


KNOWN_BLOCKS: Mapping[str, ComputationGraph] = types.MappingProxyType(
    {
        "elman": elman(),
        "lstm": lstm(),
        "mgu": mgu(),
        "gru": gru(),
        "linear_attention": linear_attention(),
        "softmax_attention": softmax_attention(),
        "elena1": elena1(),
        "elena2": elena2(),
        "enas": highway_cell(ENAS),
        "darts": highway_cell(DARTS),
    }
)
