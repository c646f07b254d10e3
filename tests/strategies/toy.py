"""A search without training: graphs are scored by what can be read off them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs import ComputationGraph, liveness
from elenas_jax.ops import COMBINING_BY_NAME, TRANSFORMING_BY_NAME
from elenas_jax.types import NOT_EVALUATED, OK, Evaluation, SearchSpace, Strategy

HADAMARD = COMBINING_BY_NAME["hadamard"].code
RECURSION = COMBINING_BY_NAME["recursion"].code
SIGMOID, TANH = TRANSFORMING_BY_NAME["sigmoid"].code, TRANSFORMING_BY_NAME["tanh"].code


def score(graph: ComputationGraph) -> jax.Array:
    """Rewards gates: products with a sigmoid, recursion, tanh; rare in random graphs together."""
    edges = liveness(graph).edges
    index = jnp.arange(edges.shape[0])
    transforms = jnp.where((index % 2 == 0) & (index > 0), jnp.diagonal(edges), 0)
    combining = jnp.where(index[:, None] == index[None, :], 0, edges)
    gates = jnp.sum((combining == HADAMARD) & (transforms == SIGMOID)[:, None])
    recursions = jnp.sum(combining == RECURSION)
    tanhs = jnp.sum(transforms == TANH)
    return 0.04 * (2 * jnp.minimum(gates, 2) + jnp.minimum(recursions, 2) + jnp.minimum(tanhs, 2))


class Searched(NamedTuple):
    """What a search met, in the order of first meetings."""

    scores: np.ndarray
    num_proposals: int
    state: object


def make_judge(space: SearchSpace):
    """Returns candidates [B], asked [B] -> Evaluation, compiled once."""
    judge = jax.jit(jax.vmap(lambda candidate: (space.status(candidate), score(candidate))))

    def evaluate(candidates: ComputationGraph, asked: np.ndarray) -> Evaluation:
        status, scores = (np.asarray(leaf) for leaf in judge(candidates))
        status = np.where(asked, status, NOT_EVALUATED).astype(np.int32)
        num = len(status)
        valid = status == OK
        return Evaluation(
            score=np.where(valid, scores, 0.0).astype(np.float32),
            metrics=np.where(valid[:, None], np.array([0.9, 0.5]), np.nan).astype(np.float32),
            status=status,
            parameters=np.zeros(num, np.int32),
            flops=np.zeros(num, np.float32),
            train_steps=np.zeros(num, np.int32),
            seconds=np.random.default_rng().random(num).astype(np.float32),  # no two runs alike
        )

    return evaluate


def search(
    space: SearchSpace,
    strategy: Strategy,
    evaluate,
    seed: int,
    num_evaluations: int,
    most_generations: int = 200,
) -> Searched:
    """Runs a strategy until so many distinct valid candidates were met."""
    key = jax.random.key(seed)
    state = strategy.init(jax.random.fold_in(key, 10**6))
    met: dict[bytes, float] = {}
    num_proposals = 0
    for generation in range(most_generations):
        key_ask, key_tell = jax.random.split(jax.random.fold_in(key, generation))
        proposal, state = strategy.ask(key_ask, state)
        evaluation = evaluate(proposal.candidates, np.asarray(proposal.valid_candidates))
        state = strategy.tell(key_tell, state, proposal, evaluation)
        num_proposals += len(evaluation.status)
        edges = np.asarray(proposal.candidates.edges)
        for place in np.flatnonzero(evaluation.status == OK):
            met.setdefault(space.canonical(ComputationGraph(edges[place])), float(evaluation.score[place]))
        if len(met) >= num_evaluations:
            break
    return Searched(np.array(list(met.values())[:num_evaluations]), num_proposals, state)
