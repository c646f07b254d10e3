"""Growing derivations of a grammar, a production at a time.

An action is a production, which replaces the leftmost open non-terminal. A state is the tree so far, held
in arrays, so that all but a space's own rules runs in compiled programs. Policies see the tree with its
open non-terminals as nodes, an edge from each node to each of its children and one back.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jraph
import numpy as np

from elenas_jax.graphs.convert import single_graph
from elenas_jax.spaces.grammar import Derivation, Grammar
from elenas_jax.spaces.grammar_sampling import least_nodes, log_weights
from elenas_jax.spaces.on_host import jittable
from elenas_jax.types import Array, Evaluation, Growth, Observation

LEAST_PRIOR = 1e-4  # probability at least shown for a production that the sampler never draws
_MOST_PREFIXES = 2**16  # whose valid rules are remembered: policies play each episode again to learn from it


class GrowthState(NamedTuple):
    """A derivation on its way. N rules, K productions, W children of a node at most."""

    rules: Array  # [N] int16, in the order of a `Derivation`, -1 from `num_rules` on
    parents: Array  # [N] int16, the place of each one's parent, -1 of the root
    branches: Array  # [N] int16, which child of its parent each one is
    open_heads: Array  # [N + W] int16, non-terminals that are still open, the leftmost last
    open_parents: Array  # [N + W] int16
    open_branches: Array  # [N + W] int16
    num_rules: Array  # [] int32
    num_open: Array  # [] int32
    needed: Array  # [] int32, least rules with which all that is open can end
    valid: Array  # [K] bool, productions that may come next


class _Tables(NamedTuple):
    """A grammar as arrays. H non-terminals."""

    heads: np.ndarray  # [K] int32, place of the head among the non-terminals
    num_children: np.ndarray  # [K] int32
    children: np.ndarray  # [K, W] int16, non-terminals from right to left, padded
    branches: np.ndarray  # [K, W] int16, which child each of these is
    least: np.ndarray  # [H] int32, fewest rules of a derivation
    needs: np.ndarray  # [K] int32, fewest rules of all children


def make_grammar_growth(
    grammar: Grammar,
    *,
    max_rules: int,
    valid_rules: Callable[[Sequence[int]], Iterable[int]] | None = None,
    node_features: np.ndarray | None = None,
    shaping: Callable[[GrowthState, GrowthState, Evaluation], Array] | None = None,
) -> Growth:
    """Builds the growth of derivations.

    An action is valid if it is a production of the leftmost open non-terminal with which the derivation
    can still end within `max_rules`, weights of 0 included, and if `valid_rules` has it. Other actions
    leave a state as it is. A state without valid actions stays as it is for the rest of its episode, and its
    derivation unfinished.

    Args:
      grammar: what is derived; its weights are the prior of the actions.
      max_rules: N, most rules of a derivation.
      valid_rules: from the rules so far to those that may come next as far as the space goes; on the host,
        a pure function. None allows all.
      node_features: `[K, F]` what policies see of a production; None is which one it is.
      shaping: reward of a step beside the score; None is none.

    Raises:
      ValueError: if no derivation has so few rules, or the features have another shape.
    """
    tables = _tables(grammar, max_rules)
    start_head = grammar.nonterminals.index(grammar.start)
    if tables.least[start_head] > max_rules:
        raise ValueError(
            f"No derivation of {grammar.start!r} has at most {max_rules} rules, which is max_rules."
        )
    num_actions, width = tables.children.shape
    allowed_by_space = None if valid_rules is None else _on_host(valid_rules, tables.num_children, max_rules)
    prior = np.maximum(log_weights(grammar), np.log(LEAST_PRIOR)).astype(np.float32)
    observe_tree = _make_observer(tables, max_rules, node_features)

    def start(key: Array, stage: Array | int = 0) -> GrowthState:
        del key, stage
        nothing = jnp.full(max_rules, -1, jnp.int16)
        no_stack = jnp.full(max_rules + width, -1, jnp.int16)
        state = GrowthState(
            rules=nothing,
            parents=nothing,
            branches=nothing,
            open_heads=no_stack.at[0].set(start_head),
            open_parents=no_stack,
            open_branches=no_stack.at[0].set(0),
            num_rules=jnp.int32(0),
            num_open=jnp.int32(1),
            needed=jnp.int32(tables.least[start_head]),
            valid=jnp.zeros(num_actions, bool),
        )
        return state._replace(valid=allowed(state))

    def is_done(state: GrowthState) -> Array:
        return state.num_open == 0

    def allowed(state: GrowthState) -> Array:
        head = state.open_heads[state.num_open - 1]
        least_after = state.num_rules + 1 + tables.needs + state.needed - jnp.asarray(tables.least)[head]
        fits = (tables.heads == head) & (least_after <= max_rules) & ~is_done(state)
        return fits if allowed_by_space is None else fits & allowed_by_space(state.rules)

    def extend(state: GrowthState, action: Array) -> GrowthState:
        top, step = state.num_open - 1, state.num_rules
        head = state.open_heads[top]

        def push(stack: Array, values: Array) -> Array:
            return jax.lax.dynamic_update_slice(stack, values.astype(jnp.int16), (top,))

        new = state._replace(
            rules=state.rules.at[step].set(action.astype(jnp.int16)),
            parents=state.parents.at[step].set(state.open_parents[top]),
            branches=state.branches.at[step].set(state.open_branches[top]),
            open_heads=push(state.open_heads, jnp.asarray(tables.children)[action]),
            open_parents=push(state.open_parents, jnp.full(width, step)),
            open_branches=push(state.open_branches, jnp.asarray(tables.branches)[action]),
            num_rules=step + 1,
            num_open=top + jnp.asarray(tables.num_children)[action],
            needed=state.needed - jnp.asarray(tables.least)[head] + jnp.asarray(tables.needs)[action],
        )
        new = jax.tree.map(lambda after, before: jnp.where(state.valid[action], after, before), new, state)
        return new._replace(valid=allowed(new))

    def observe(state: GrowthState) -> Observation:
        head = state.open_heads[state.num_open - 1]
        return observe_tree(state, jnp.where((tables.heads == head) & ~is_done(state), prior, 0.0))

    return Growth(
        num_steps=max_rules,
        num_actions=num_actions,
        num_stages=1,
        start=start,
        # Policies need some action even where none changes the state.
        valid_actions=lambda state: state.valid | ~jnp.any(state.valid),
        extend=extend,
        is_done=is_done,
        candidate=lambda state: Derivation(state.rules),
        actions=lambda state, candidate: jnp.maximum(jnp.asarray(candidate.rules, jnp.int32), 0),
        observe=observe,
        shaping=shaping or (lambda before, after, evaluation: jnp.float32(0.0)),
    )


def tree_graph(growth: Growth, candidate: Derivation) -> jraph.GraphsTuple:
    """Returns the tree of a derivation as the graph that its growth shows at the end; jittable."""
    start = growth.start(jax.random.key(0))
    actions = growth.actions(start, candidate)
    final, _ = jax.lax.scan(lambda state, action: (growth.extend(state, action), None), start, actions)
    return growth.observe(final).graph._replace(globals=None)


def _tables(grammar: Grammar, max_rules: int) -> _Tables:
    places = {head: place for place, head in enumerate(grammar.nonterminals)}
    num_children = np.array([len(children) for children in grammar.children], np.int32)
    width = max(1, num_children.max())
    children = np.zeros((len(num_children), width), np.int16)
    branches = np.zeros_like(children)
    for rule, heads in enumerate(grammar.children):
        children[rule, : len(heads)] = [places[head] for head in heads[::-1]]
        branches[rule, : len(heads)] = np.arange(len(heads))[::-1]
    least = least_nodes(grammar)
    # What never ends needs more than there is room for.
    fewest = np.array([min(least.get(head, max_rules + 1), max_rules + 1) for head in grammar.nonterminals])
    needs = [sum(fewest[places[head]] for head in heads) for heads in grammar.children]
    return _Tables(
        heads=np.array([places[head] for head in grammar.heads], np.int32),
        num_children=num_children,
        children=children,
        branches=branches,
        least=fewest.astype(np.int32),
        needs=np.array(needs, np.int32),
    )


def _on_host(
    valid_rules: Callable[[Sequence[int]], Iterable[int]], num_children: np.ndarray, max_rules: int
) -> Callable[[Array], Array]:
    """Returns a jittable function from `[N]` rules so far to `[K]` bool."""

    @functools.lru_cache(_MOST_PREFIXES)
    def mask(prefix: tuple[int, ...]) -> np.ndarray:
        valid = np.zeros(len(num_children), bool)
        if 1 + int(np.sum(num_children[list(prefix)] - 1)) > 0:  # something is open
            valid[list(valid_rules(prefix))] = True
        return valid

    def mask_of_array(rules: np.ndarray) -> np.ndarray:
        return mask(tuple(rules[rules >= 0].tolist()))

    return jittable(mask_of_array, np.zeros(len(num_children), bool))


def _make_observer(
    tables: _Tables, max_rules: int, node_features: np.ndarray | None
) -> Callable[[GrowthState, Array], Observation]:
    """Returns (state, context `[K]`) -> Observation. M = N + 1 nodes, of which the last is padding."""
    num_actions, width = tables.children.shape
    num_heads = len(tables.least)
    features = np.eye(num_actions) if node_features is None else np.asarray(node_features)
    if features.ndim != 2 or len(features) != num_actions:
        raise ValueError(f"node_features have the shape {features.shape}; they must be [{num_actions}, F].")
    # A kind of edge is a direction, to a child or back, and which child it is.
    kind_features = np.zeros((2 * width, width + 1), np.float32)
    kind_features[np.arange(2 * width), np.tile(np.arange(width), 2)] = 1.0
    kind_features[width:, width] = 1.0
    kind_types = np.repeat(np.arange(2, dtype=np.int32), width)
    rows = np.arange(max_rules + 1)

    def observe_tree(state: GrowthState, context: Array) -> Observation:
        # Open non-terminals follow the rules, from left to right: each one needs a rule, so there is room.
        placed, num_real = rows < state.num_rules, state.num_rules + state.num_open
        real = rows < num_real
        stack = jnp.clip(num_real - 1 - rows, 0, len(state.open_heads) - 1)

        def merge(of_rules: Array, of_open: Array) -> Array:
            return jnp.where(placed, jnp.pad(of_rules, (0, 1)), of_open[stack]).astype(jnp.int32)

        rules = jnp.where(placed, jnp.pad(state.rules, (0, 1)), 0).astype(jnp.int32)
        heads = merge(jnp.asarray(tables.heads)[state.rules], state.open_heads)
        parents, branches = (
            merge(state.parents, state.open_parents),
            merge(state.branches, state.open_branches),
        )
        nodes = jnp.concatenate(
            [
                jax.nn.one_hot(heads, num_heads),
                jnp.where(placed[:, None], jnp.asarray(features, jnp.float32)[rules], 0.0),
                jnp.stack([~placed, rows == state.num_rules], axis=1),
            ],
            axis=1,
        )
        # Two edges for each node but the root; those of padding join the last node to itself.
        has_parent = real[1:]
        child = jnp.where(has_parent, rows[1:], max_rules)
        parent = jnp.where(has_parent, parents[1:], max_rules)
        down = jnp.where(has_parent, branches[1:], 2 * width)
        up = jnp.where(has_parent, branches[1:] + width, 2 * width)
        senders = jnp.stack([parent, child], axis=1).reshape(-1)
        receivers = jnp.stack([child, parent], axis=1).reshape(-1)
        edge_kinds = jnp.stack([down, up], axis=1).reshape(-1)
        listed = jnp.pad(jnp.asarray(kind_features), ((0, 1), (0, 0)))[edge_kinds]
        graph = single_graph(jnp.where(real[:, None], nodes, 0.0), listed, senders, receivers)
        num_edges = 2 * jnp.maximum(num_real - 1, 0)
        next_node = jnp.minimum(state.num_rules, max_rules)
        return Observation(
            graph=graph._replace(
                n_node=jnp.stack([num_real, max_rules + 1 - num_real]),
                n_edge=jnp.stack([num_edges, 2 * max_rules - num_edges]),
                globals=jnp.stack([context, jnp.zeros_like(context)]),
            ),
            focus=jnp.stack([next_node, next_node]),
            node_types=np.ones(max_rules + 1, np.int32),
            kinds=jnp.full((max_rules + 1,) * 2, 2 * width, jnp.int32).at[receivers, senders].set(edge_kinds),
            edge_kinds=edge_kinds,
            kind_features=kind_features,
            kind_types=kind_types,
        )

    return observe_tree
