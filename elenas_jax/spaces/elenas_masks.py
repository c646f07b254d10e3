"""Masks: actions of an episode that can only lead to invalid graphs, or to nothing new.

Three rules, each read off the graph as it stands; no network becomes unreachable by them:

- An edge that closes a cycle without a recursion: once it is there, its nodes can never be part of a
  network, so that whatever is valid later is reached without it as well.
- A recursion from an initial node counts as none, so that none says the same.
- The last edge out of the input that is still to be predicted must not be none if all others are:
  without one there is no path from the input.

Whether shapes fit is not looked at: what is yet to come may mend them.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.graphs.computation import RECURSION
from elenas_jax.spaces.elenas_sampling import Choices


def make_masks(choices: Choices) -> Callable[[jax.Array, jax.Array, jax.Array], jax.Array]:
    """Returns `forbids(edges [M, M], edge [], open [S]) -> [K]` booleans, True for actions to be left out.

    Args:
      choices: what may stand on each edge.

    `edge` is the place of the edge to be predicted in `choices.order`; `open` is True for the edges
    that are predicted after it.
    """
    sources, targets = choices.order[:, 0], choices.order[:, 1]
    is_self = sources == targets
    is_recursion = (choices.codes == RECURSION) & ~is_self[:, None]
    closes = ~is_self[:, None] & ~is_recursion & (choices.codes > 0)
    repeats = is_recursion & (sources % 2 == 1)[:, None]
    is_none = choices.valid_actions & (choices.codes == 0) & ~is_self[:, None]
    from_input = sources == 0
    num_squarings = max(1, int(np.ceil(np.log2(max(2, len(range(2, choices.num_nodes, 2)))))))

    def forbids(edges: jax.Array, edge: jax.Array, open_edges: jax.Array) -> jax.Array:
        source, target = jnp.asarray(sources)[edge], jnp.asarray(targets)[edge]
        # Paths among intermediate nodes within a time step, those of length 0 included.
        between = edges[2::2, 2::2]
        paths = ((between > 0) & (between != RECURSION)) | jnp.eye(between.shape[0], dtype=bool)
        paths = paths.astype(jnp.float32)
        for _ in range(num_squarings):
            paths = jnp.minimum(paths @ paths, 1.0)
        is_between = (source % 2 == 0) & (source > 0)
        returns = is_between & (paths[target // 2 - 1, source // 2 - 1] > 0)
        is_last = jnp.asarray(from_input)[edge] & ~jnp.any(open_edges & jnp.asarray(from_input))
        needs_input = is_last & ~jnp.any(edges[0] > 0)
        return (
            (returns & jnp.asarray(closes)[edge])
            | jnp.asarray(repeats)[edge]
            | (needs_input & jnp.asarray(is_none)[edge])
        )

    return forbids
