"""Drawing ELENAS graphs: what may stand on each edge, and how likely it is.

Every edge is drawn by itself. Its probabilities depend on its kind and on how many edges of that
kind its target has: a config gives the *expected number* of incoming edges by kind and operation,
so that one recipe serves graphs of 8 to 64 nodes. At 32 nodes none has probability 0.93. With one
probability for all edges of a kind instead, small graphs rarely have a path from the input and
large ones have too many operands to fit: 6% valid at 12 nodes and 9% recurrent, against 20% and 60%.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs import ComputationGraph, edge_order
from elenas_jax.ops import COMBINING, COMBINING_BY_NAME, OPERATION_SETS, TRANSFORMING, TRANSFORMING_BY_NAME

# Kinds of combining edges, by where they come from.
EDGE_KINDS = ("input", "initial", "forward", "backward")

# Expected number of incoming edges of an intermediate node. The width of the input is rarely that
# of anything else, so it is multiplied; most cycles that are not recursions are illegitimate.
INCOMING = {
    "input": {"matmul": 0.7, "hadamard": 0.01, "add": 0.01, "recursion": 0.01},
    "initial": {"matmul": 0.6, "hadamard": 0.05, "add": 0.15, "recursion": 0.0},
    "forward": {"matmul": 0.15, "hadamard": 0.25, "add": 0.5, "recursion": 0.05},
    "backward": {"matmul": 0.01, "hadamard": 0.01, "add": 0.01, "recursion": 0.5},
}
OTHER_INCOMING = {"input": 0.01, "initial": 0.05, "forward": 0.1, "backward": 0.0}
TRANSFORMS = {"identity": 0.5, "sigmoid": 0.15, "tanh": 0.2, "relu": 0.12, "transpose": 0.03}
OTHER_TRANSFORM = 0.04  # relative to the others, which are divided by their sum
MOST_PRESENT = 0.95  # no edge is more likely than this to be something

Incoming = Mapping[str, Mapping[str, float]]


class Choices(NamedTuple):
    """What may stand on each edge of a graph; constants of a space. S edges, K actions."""

    num_nodes: int
    order: np.ndarray  # [S, 2] int32 (source, target)
    codes: np.ndarray  # [S, K] int8 operation that an action stands for, 0 where there is none
    valid_actions: np.ndarray  # [S, K] bool
    probabilities: np.ndarray  # [S, K] float32, rows sum to 1; 0 where not valid

    @property
    def num_steps(self) -> int:
        return self.codes.shape[0]

    @property
    def num_actions(self) -> int:
        return self.codes.shape[1]


def operation_codes(operations: str | Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the combining and transforming codes a search may draw.

    Args:
      operations: a name of `OPERATION_SETS`, or two lists of names, combining and transforming.
    """
    if isinstance(operations, str):
        if operations not in OPERATION_SETS:
            known = ", ".join(map(repr, OPERATION_SETS))
            raise ValueError(f"operations is {operations!r}; allowed are {known}, or two lists of names.")
        operations = OPERATION_SETS[operations]
    if len(operations) != 2 or any(isinstance(names, str) for names in operations):
        raise ValueError(
            f"operations is {operations!r}; it must be two lists of names, combining and transforming."
        )
    found = []
    for names, table, kind in zip(
        operations, (COMBINING_BY_NAME, TRANSFORMING_BY_NAME), ("combining", "transforming"), strict=True
    ):
        start = next(iter(table))  # none, identity: what an empty graph holds
        for name in names:
            if name not in table:
                raise ValueError(f"Unknown {kind} operation {name!r}; allowed are {', '.join(table)}.")
        if start not in names:
            raise ValueError(
                f"The {kind} operations {tuple(names)} lack {start!r}, which every graph starts with."
            )
        found.append(np.array(sorted({table[name].code for name in names}), np.int8))
    return found[0], found[1]


def make_choices(
    num_nodes: int,
    operations: str | Sequence[Sequence[str]] = "paper",
    incoming: Incoming | None = None,
    transforms: Mapping[str, float] | None = None,
) -> Choices:
    """Tabulates what may stand on each edge.

    Args:
      num_nodes: nodes of a graph, at least 3.
      operations: as in `operation_codes`.
      incoming: {kind of edge: {combining operation: expected number}}, over the defaults.
      transforms: {transforming operation: weight}, over the defaults.

    Raises:
      ValueError: for unknown names or negative numbers.
    """
    if num_nodes < 3:
        raise ValueError(f"num_nodes is {num_nodes}; a graph has at least 3 nodes.")
    combining, transforming = operation_codes(operations)
    expected = _expected_incoming(incoming or {})
    weights = _transform_weights(transforms or {})[transforming]
    if not weights.sum() > 0:
        raise ValueError("The probabilities of all transforming operations are zero.")

    order = edge_order(num_nodes)
    num_actions = max(len(combining), len(transforming))
    codes = np.zeros((len(order), num_actions), np.int8)
    valid_actions = np.zeros((len(order), num_actions), bool)
    probabilities = np.zeros((len(order), num_actions), np.float32)
    for step, (source, target) in enumerate(order):
        if source == target:
            allowed, chances = transforming, weights / weights.sum()
        else:
            allowed, chances = combining, _combining_chances(num_nodes, source, target, expected, combining)
        codes[step, : len(allowed)] = allowed
        valid_actions[step, : len(allowed)] = True
        probabilities[step, : len(allowed)] = chances
    return Choices(num_nodes, order, codes, valid_actions, probabilities)


def _expected_incoming(changes: Incoming) -> dict[str, np.ndarray]:
    """Returns, for each kind of edge, the expected number by combining code."""
    for kind, row in changes.items():
        if kind not in EDGE_KINDS:
            raise ValueError(
                f"Unknown kind of edge {kind!r} in incoming; allowed are {', '.join(EDGE_KINDS)}."
            )
        for name, value in row.items():
            if name not in COMBINING_BY_NAME or name == "none":
                allowed = ", ".join(name for name in COMBINING_BY_NAME if name != "none")
                raise ValueError(f"Unknown operation {name!r} in incoming[{kind!r}]; allowed are {allowed}.")
            if not value >= 0:
                raise ValueError(f"incoming[{kind!r}][{name!r}] is {value}; it must not be negative.")
    expected = {}
    for kind in EDGE_KINDS:
        row = INCOMING[kind] | dict(changes.get(kind, {}))
        expected[kind] = np.array([row.get(op.name, OTHER_INCOMING[kind]) for op in COMBINING])
        expected[kind][0] = 0.0
    return expected


def _transform_weights(changes: Mapping[str, float]) -> np.ndarray:
    for name, value in changes.items():
        if name not in TRANSFORMING_BY_NAME:
            raise ValueError(
                f"Unknown operation {name!r} in transforms; allowed are {', '.join(TRANSFORMING_BY_NAME)}."
            )
        if not value >= 0:
            raise ValueError(f"transforms[{name!r}] is {value}; it must not be negative.")
    weights = TRANSFORMS | dict(changes)
    return np.array([weights.get(op.name, OTHER_TRANSFORM) for op in TRANSFORMING])


def _combining_chances(
    num_nodes: int, source: int, target: int, expected: dict[str, np.ndarray], combining: np.ndarray
) -> np.ndarray:
    if source % 2:
        kind, num_sources = "initial", num_nodes // 2
    elif source > target:
        kind, num_sources = "backward", len(range(target + 2, num_nodes, 2))
    else:
        kind, num_sources = "forward" if source else "input", target // 2
    chances = expected[kind][combining] / num_sources
    chances *= min(1.0, MOST_PRESENT / max(chances.sum(), 1e-9))
    chances[combining == 0] = 1.0 - chances.sum()
    return chances


def graph_from_actions(choices: Choices, actions: jax.Array) -> ComputationGraph:
    """Returns the graph with `[S]` actions on its edges."""
    codes = jnp.asarray(choices.codes)[jnp.arange(choices.num_steps), actions]
    edges = jnp.zeros((choices.num_nodes, choices.num_nodes), jnp.int8)
    return ComputationGraph(edges.at[choices.order[:, 0], choices.order[:, 1]].set(codes))


def actions_from_graph(choices: Choices, graph: ComputationGraph) -> jax.Array:
    """Returns `[S]` int32, the actions that build a graph; 0 for a code the search may not draw."""
    codes = jnp.asarray(graph.edges)[choices.order[:, 0], choices.order[:, 1]]
    matches = (jnp.asarray(choices.codes) == codes[:, None]) & jnp.asarray(choices.valid_actions)
    return jnp.argmax(matches, axis=1).astype(jnp.int32)


def draw(choices: Choices, key: jax.Array) -> ComputationGraph:
    """Draws a graph, valid or not."""
    # One uniform number an edge: a Gumbel for each action would be five times the random bits.
    chances = choices.probabilities.astype(np.float64)
    ends = np.cumsum(chances, axis=1)
    is_last = (
        np.cumsum(chances[:, ::-1], axis=1)[:, ::-1] - chances <= 0
    )  # rounding must not draw what follows
    uniform = jax.random.uniform(key, (choices.num_steps, 1))
    actions = jnp.sum(uniform >= jnp.asarray(np.where(is_last, 2.0, ends), jnp.float32), axis=1)
    return graph_from_actions(choices, actions)


def change(choices: Choices, key: jax.Array, graph: ComputationGraph, most_changes: int) -> ComputationGraph:
    """Changes 1 to `most_changes` edges of a graph.

    An edge and what it becomes are drawn together, in proportion to how likely the new operation
    is there and never the one it has. So repeated changes neither fill nor empty a graph: they end up
    near the distribution of `draw`, weighted by how much there is to be changed.
    """
    key_count, key_changes = jax.random.split(key)
    num_changes = jax.random.randint(key_count, (), 1, most_changes + 1)
    log_probabilities = jnp.log(jnp.asarray(choices.probabilities))

    def change_one(place: int, actions: jax.Array) -> jax.Array:
        current = jnp.arange(choices.num_actions) == actions[:, None]
        logits = jnp.where(current, -jnp.inf, log_probabilities).reshape(-1)
        drawn = jax.random.categorical(jax.random.fold_in(key_changes, place), logits)
        step, action = drawn // choices.num_actions, drawn % choices.num_actions
        changed = actions.at[step].set(action.astype(jnp.int32))
        return jnp.where(place < num_changes, changed, actions)

    actions = jax.lax.fori_loop(0, most_changes, change_one, actions_from_graph(choices, graph))
    return graph_from_actions(choices, actions)


def cross(
    choices: Choices, key: jax.Array, graph_a: ComputationGraph, graph_b: ComputationGraph
) -> ComputationGraph:
    """Takes each target's incoming edges, self-edge included, from one of two graphs."""
    from_a = jax.random.bernoulli(key, shape=(choices.num_nodes,))
    return ComputationGraph(
        jnp.where(from_a[None, :], jnp.asarray(graph_a.edges), jnp.asarray(graph_b.edges))
    )
