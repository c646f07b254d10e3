"""The records that spaces, strategies, tasks and evaluators hand to each other.

Letters in shapes, everywhere in this package: B candidates, M nodes of a graph (padded),
I instructions of a program (padded), V value slots (I + 1), K actions, T time steps of a
sequence, E episodes, S steps of an episode, N examples, F features, R rows, C columns.

A mask is True where data is real and is called `valid_*`. A score is higher when better.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

Array = jax.Array
AnyArray = jax.Array | np.ndarray  # on a device, or on the host
PyTree = Any

# Statuses of an evaluation. 0 is success; 1 to 99 are a space's own reasons for invalid
# candidates (`SearchSpace.reasons`); from 100 on it is training that failed.
OK = 0
DIVERGED = 100
OUT_OF_MEMORY = 101
TIMED_OUT = 102  # for evaluators that limit a candidate's time; that of populations does not
CRASHED = 103
NOT_EVALUATED = 200

FAILURES = {
    DIVERGED: "diverged",
    OUT_OF_MEMORY: "out of memory",
    TIMED_OUT: "timed out",
    CRASHED: "crashed",
    NOT_EVALUATED: "not evaluated",
}


def explain_status(status: int, reasons: tuple[str, ...]) -> str:
    """Says in words what `status` means; `reasons` are those of the space."""
    status = int(status)
    if status == OK:
        return "ok"
    if status in FAILURES:
        return FAILURES[status]
    if 0 < status < len(reasons):
        return f"invalid: {reasons[status]}"
    raise ValueError(f"Unknown status {status}; known are 0 to {len(reasons) - 1} and {sorted(FAILURES)}.")


class Network(NamedTuple):
    """A candidate as something to train.

    init: key -> params, state.
    apply: (params, state, inputs, *, train=False, key=None) -> outputs, state.
    """

    init: Callable[..., tuple[PyTree, PyTree]]
    apply: Callable[..., tuple[Array, PyTree]]
    # Where they cannot be read off (params are padded, say); None counts params, and matrix products and
    # convolutions.
    parameters: int | None = None  # trainable numbers
    flops: float | None = None  # forward, 2 per multiply-add, per example


class Batch(NamedTuple):
    """Labelled examples."""

    inputs: Array  # [N, T, F] float32
    targets: Array  # [N, O] float32: 0/1 labels, numbers, or one-hot classes


class Task(NamedTuple):
    """What a candidate is trained on: a pure generator of sequences, a loss and a metric.

    `sample(key, num_examples) -> Batch` is jittable with `num_examples` static. Training,
    validation and test data differ in their keys only (see `evaluation.training`).
    `loss` is one of `tasks.LOSSES`; the metric is the share of examples that count as right.
    """

    name: str
    in_features: int
    out_features: int
    time_steps: int
    loss: str
    sample: Callable[[Array, int], Batch]
    train_samples: int  # one epoch in the paper
    valid_samples: int
    threshold: float  # a block passes from this validation metric on
    untrained: float  # metric of an untrained network, the zero of the score
    weight: float  # s_d of the score
    variant: str = ""  # what else the samples depend on ("near_miss", say); part of cache keys

    @property
    def in_shape(self) -> tuple[int, ...]:
        """Shape of the inputs of one example."""
        return (self.time_steps, self.in_features)


class DataTask(NamedTuple):
    """What a candidate is trained on: a fixed data set, a loss and a metric.

    A search trains on `load().train` and measures on `load().valid`; test data stay where they are.
    """

    name: str
    in_shape: tuple[int, ...]  # of a network's input, without the examples: (C, H, W), say
    out_features: int
    loss: str  # "categorical" | "squared" | "binary"
    metric: str  # a key of `tasks.metrics.METRICS` that is higher when better
    threshold: float  # a candidate passes from this validation metric on
    untrained: float  # metric of an untrained network, the zero of the score
    weight: float  # s_d of the score
    variant: str  # what else the data depend on (version, size, seed); part of cache keys
    load: Callable[[], Any]  # -> tasks.records.Dataset; slow, so called once a process


AnyTask = Task | DataTask


class Proposal(NamedTuple):
    """What a strategy wants evaluated."""

    candidates: PyTree  # leaves [B, ...]
    budget: Array  # [B] int32, a rung of the evaluator's budgets
    valid_candidates: Array  # [B] bool; False rows are padding and are skipped


class Evaluation(NamedTuple):
    """What candidates are worth, a row each; NumPy on the host."""

    score: AnyArray  # [B] float32; 0 for what is invalid or failed
    metrics: AnyArray  # [B, tasks] float32, NaN where a task was not reached
    status: AnyArray  # [B] int32, see above
    parameters: AnyArray  # [B] int32, trainable numbers, head counted
    flops: AnyArray  # [B] float32, forward, 2 per multiply-add, per example
    train_steps: AnyArray  # [B] int32, over all tasks
    seconds: AnyArray  # [B] float32, wall clock; never part of a result


class SearchSpace(NamedTuple):
    """What can be searched. Candidates are small padded array pytrees.

    Jittable: sample, mutate, crossover, status, to_graph. Host only: the rest.
    """

    name: str
    reasons: tuple[str, ...]  # reasons[status] in words; reasons[0] is "valid"
    sample: Callable  # key -> candidate
    mutate: Callable  # key, candidate -> candidate
    crossover: Callable  # key, candidate, candidate -> candidate
    status: Callable  # candidate -> [] int32
    canonical: Callable  # candidate -> bytes, equal for the same network
    to_graph: Callable  # candidate -> jraph.GraphsTuple
    build: Callable  # candidate, task -> Network
    describe: Callable  # candidate -> str a person reads
    # candidate -> {"nodes": [...], "edges": [...]} with labels and colours; perhaps the same
    # under "tree", of how it was derived
    drawing: Callable
    to_json: Callable  # candidate -> JSON-able object
    from_json: Callable  # the same object -> candidate
    known: Callable  # key -> a known architecture or a variant of one, to pre-train policies on; jittable
    growth: "Growth"
    starts: PyTree | None = None  # candidates that a search may start from, leaves [K, ...]


class Observation(NamedTuple):
    """What a policy sees: a fixed-shape graph and the nodes the next action is about.

    The graph has at most one edge from a node to another, and its edges are of few kinds: edges of
    one kind have equal features and an equal type. What a policy does for a kind it need not do
    for each edge, and a matrix of kinds needs neither gathers nor scatters along edges. `graph` is
    the same once more as a list of edges; what nobody reads of it costs nothing under jit.

    For each edge l: `edge_kinds[l] == kinds[graph.receivers[l], graph.senders[l]]` and
    `graph.edges[l] == kind_features[edge_kinds[l]]`. Padding (`graphs.convert.pad`) is of nodes without
    edges in `kinds`, and of edges of kind C from the last node to itself.
    """

    graph: Any  # jraph.GraphsTuple: nodes [M, F], edges [L, G], senders, receivers [L]
    focus: Array  # [2] int32, indices of nodes (twice the same for a self-edge)
    node_types: AnyArray  # [M] int32, 0 for what only sends (inputs, parameters), else 1
    kinds: Array  # [M, M] int32, of the edge into node i from node j at [i, j]; C where there is none
    edge_kinds: Array  # [L] int32, of the edges of `graph`; C for padding
    kind_features: AnyArray  # [C, G] float32, features of an edge of each kind
    kind_types: AnyArray  # [C] int32, 0 for edges of the candidate, 1 for backward ones added to them


class Growth(NamedTuple):
    """Building a candidate step by step. All functions are jittable with fixed shapes."""

    num_steps: int  # most steps an episode takes
    num_actions: int
    num_stages: int  # sizes that a search may grow through; 1 if candidates have one size
    start: Callable  # key, stage (the last one if not given) -> state; draws the order where it is random
    valid_actions: Callable  # state -> [K] bool
    extend: Callable  # state, action -> state
    is_done: Callable  # state -> [] bool
    candidate: Callable  # state -> candidate as it stands
    actions: Callable  # state at the start, candidate -> [S] int32, the actions that build it
    observe: Callable  # state -> Observation
    shaping: Callable  # state before, state after, Evaluation row -> [] float32


class Strategy(NamedTuple):
    """How to search. All it remembers is its state, which checkpoints as it is.

    The state is a pytree of arrays of fixed shapes and dtypes.
    """

    init: Callable  # key -> state
    ask: Callable  # key, state -> Proposal, state
    tell: Callable  # key, state, Proposal, Evaluation [B] -> state
    diagnostics: Callable  # state -> dict of floats for the metrics file, may be empty
    policy: Callable | None = None  # params, state of the growth -> Choice; of strategies that learn one
