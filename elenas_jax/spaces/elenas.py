"""The ELENAS space: computation graphs of elementary operations.

A candidate is a `ComputationGraph` of `num_nodes` nodes. It is valid if its network fits the
widths of every task of the ladder. Source: Aichberger and Klambauer (2023).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs import (
    REASONS,
    ComputationGraph,
    canonical_bytes,
    canonical_graph,
    construct,
    equations,
    explain,
    from_edges,
    init_params,
    interpret,
    liveness,
    status_within,
    to_edges,
)
from elenas_jax.graphs.convert import network_graph
from elenas_jax.graphs.liveness import TOO_MANY_PARAMETERS
from elenas_jax.graphs.program import num_flops, num_parameters
from elenas_jax.spaces.elenas_drawing import draw_network
from elenas_jax.spaces.elenas_growth import make_growth
from elenas_jax.spaces.elenas_known import make_known
from elenas_jax.spaces.elenas_sampling import change, cross, draw, make_choices
from elenas_jax.spaces.elenas_shaping import shaping_weights
from elenas_jax.types import OK, Array, Network, SearchSpace, Task

Signature = tuple[int, int, int | None]  # in_features, out_features, time_steps of a task
LADDER_SIGNATURES: tuple[Signature, ...] = ((7, 1, 32), (2, 1, 32))  # grammars; adding


def make_elenas(
    *,
    num_nodes: int = 32,
    operations: str | Sequence[Sequence[str]] = "paper",
    head: str = "linear",
    hidden_features: int = 64,
    signatures: Sequence[Signature] = LADDER_SIGNATURES,
    max_draws: int = 1000,
    most_changes: int = 3,
    max_parameters: int = 0,
    incoming: dict[str, dict[str, float]] | None = None,
    transforms: dict[str, float] | None = None,
    order: str = "subgraphs",
    stages: Sequence[int] = (),
    masks: bool = False,
    shaping: dict[str, float] | None = None,
    threshold: float = 0.8,
    positions: bool = True,
    status_fn: Callable[[ComputationGraph], Array] | None = None,
) -> SearchSpace:
    """Builds the space.

    Args:
      num_nodes: nodes of a graph.
      operations: "paper", "extended", or two lists of names, combining and transforming.
      head: "linear" or "none".
      hidden_features: width of what nothing else ties down.
      signatures: (in_features, out_features, time_steps) of each task a candidate must fit.
      max_draws: most tries of `sample`, `mutate` and `crossover` to find a valid candidate.
      most_changes: edges that a mutation changes at most.
      max_parameters: of a candidate on any of the tasks, head included; 0 is no limit.
      incoming, transforms: changes to the sampler's probabilities, see `elenas_sampling`.
      order: of the edges in an episode, "subgraphs" or "random".
      stages: numbers of nodes that episodes grow through during a search, such as (12, 22, 32).
      masks: whether an episode's actions that can only lead to invalid graphs are forbidden.
      shaping: weights of reward shaping that differ from the paper's, see `ShapingWeights`.
      threshold: of the first task, for reward shaping.
      positions: whether policies see the positions of nodes.
      status_fn: status of a graph by another way than constructing it, where all of them are known.
    """
    distinct = tuple(dict.fromkeys((int(i), int(o), t if t is None else int(t)) for i, o, t in signatures))
    if not distinct:
        raise ValueError("signatures is empty; a space needs the widths of at least one task.")
    if max_parameters < 0:
        raise ValueError(f"max_parameters is {max_parameters}; it must be positive, or 0 for no limit.")
    if max_draws < 1 or most_changes < 1:
        raise ValueError(f"max_draws ({max_draws}) and most_changes ({most_changes}) must be at least 1.")
    choices = make_choices(num_nodes, operations, incoming, transforms)

    def constructed_status(candidate: ComputationGraph) -> Array:
        found = jnp.int32(OK)
        for in_features, out_features, time_steps in distinct:
            program = construct(
                candidate,
                in_features=in_features,
                out_features=out_features,
                hidden_features=hidden_features,
                head=head,
                time_steps=time_steps,
            )
            found = jnp.where(found == OK, status_within(program, max_parameters), found)
        return found

    status = status_fn or constructed_status

    def retry(key: Array, make_candidate, accepts, otherwise: ComputationGraph) -> ComputationGraph:
        """Returns the first accepted candidate of `max_draws`, else `otherwise`."""

        def attempt(state):
            draws, _, _ = state
            candidate = make_candidate(jax.random.fold_in(key, draws))
            return draws + 1, candidate, accepts(candidate)

        def goes_on(state):
            draws, _, accepted = state
            return ~accepted & (draws < max_draws)

        _, candidate, accepted = jax.lax.while_loop(goes_on, attempt, (0, otherwise, jnp.bool_(False)))
        return jax.tree.map(lambda found, other: jnp.where(accepted, found, other), candidate, otherwise)

    def is_valid(candidate: ComputationGraph) -> Array:
        return status(candidate) == OK

    def sample(key: Array) -> ComputationGraph:
        # Without a valid draw the first one is returned, with its reason as its status.
        first = draw(choices, jax.random.fold_in(key, 0))
        return retry(key, lambda key_draw: draw(choices, key_draw), is_valid, first)

    def mutate(key: Array, candidate: ComputationGraph) -> ComputationGraph:
        parent = ComputationGraph(jnp.asarray(candidate.edges))
        network = liveness(parent).edges

        def accepts(child: ComputationGraph) -> Array:
            return is_valid(child) & jnp.any(liveness(child).edges != network)

        return retry(
            key, lambda key_change: change(choices, key_change, parent, most_changes), accepts, parent
        )

    def crossover(
        key: Array, candidate_a: ComputationGraph, candidate_b: ComputationGraph
    ) -> ComputationGraph:
        parent = ComputationGraph(jnp.asarray(candidate_a.edges))
        return retry(key, lambda key_cross: cross(choices, key_cross, parent, candidate_b), is_valid, parent)

    def build(candidate: ComputationGraph, task: Task) -> Network:
        # The representative is what is trained: equal canonical form, equal bits.
        program = construct(
            canonical_graph(candidate, head),
            in_features=task.in_features,
            out_features=task.out_features,
            hidden_features=hidden_features,
            head=head,
            time_steps=task.time_steps,
        )
        reason = int(program.status)
        if reason != OK:
            raise ValueError(f"This graph is no network for the task {task.name!r}: {explain(reason)}.")

        def apply(params, state, inputs, *, train=False, key=None):
            del train, key
            return interpret(program, params, inputs)[:, -1], state

        on_host = jax.tree.map(np.asarray, program)  # where counting compiles nothing
        return Network(
            init=lambda key: (init_params(key, program), {}),
            apply=apply,
            parameters=int(num_parameters(on_host)),
            flops=float(num_flops(on_host, task.time_steps)),
        )

    return SearchSpace(
        name="elenas",
        reasons=REASONS if max_parameters else REASONS[:TOO_MANY_PARAMETERS],
        sample=sample,
        mutate=mutate,
        crossover=crossover,
        status=status,
        canonical=lambda candidate: canonical_bytes(_on_host(candidate), head),
        to_graph=network_graph,
        build=build,
        describe=lambda candidate: equations(_on_host(candidate), head),
        drawing=lambda candidate: draw_network(_on_host(candidate), head),
        to_json=to_json,
        from_json=from_json,
        known=make_known(choices, mutate, is_valid if max_parameters else None),
        growth=make_growth(
            choices,
            order=order,
            stages=stages,
            masks=masks,
            weights=shaping_weights(shaping or {}),
            threshold=threshold,
            positions=positions,
        ),
    )


def to_json(candidate: ComputationGraph) -> dict[str, Any]:
    """Returns {"num_nodes": ..., "edges": [[source, target, operation], ...]}."""
    return {"num_nodes": candidate.num_nodes, "edges": [list(edge) for edge in to_edges(candidate)]}


MOST_NODES = 1024  # of a graph that is read; as in the bounds of a config


def from_json(data: Any) -> ComputationGraph:
    """Returns the graph that `to_json` wrote.

    Raises:
      ValueError: if `data` is no such object, or no graph.
    """
    if not isinstance(data, Mapping) or set(data) != {"num_nodes", "edges"}:
        raise ValueError(f'A graph is an object with "num_nodes" and "edges"; got {data!r:.80}.')
    num_nodes, edges = data["num_nodes"], data["edges"]
    if not isinstance(num_nodes, int) or isinstance(num_nodes, bool):
        raise ValueError(f'"num_nodes" is {num_nodes!r:.80}; it must be a whole number.')
    if num_nodes > MOST_NODES:
        raise ValueError(f'"num_nodes" is {num_nodes!r:.80}; it must be {MOST_NODES} at most.')
    if not isinstance(edges, Sequence) or isinstance(edges, str):
        raise ValueError(f'"edges" is {edges!r:.80}; it must be a list.')
    for edge in edges:
        is_triple = isinstance(edge, Sequence) and not isinstance(edge, str) and len(edge) == 3
        if not is_triple or [type(part) for part in edge] != [int, int, str]:
            raise ValueError(f"edge {edge!r:.80} must be [source, target, operation name].")
    return from_edges(num_nodes, [tuple(edge) for edge in edges])


def _on_host(candidate: ComputationGraph) -> ComputationGraph:
    return ComputationGraph(np.asarray(candidate.edges))
