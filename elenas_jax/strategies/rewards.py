"""What an episode earns: scores, penalties, and the space's shaping."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from elenas_jax.types import NOT_EVALUATED, OK, Array, Evaluation, PyTree, SearchSpace

RewardFn = Callable[[PyTree, PyTree, Array, Evaluation], Array]


def make_reward(space: SearchSpace, *, invalid: float = 0.02, grading: float = 0.5) -> RewardFn:
    """Builds the reward of episodes that are evaluated at their end, or after every step.

    An evaluated step earns the score of the candidate; one that failed in training earns 0. The end of
    an episode that left no valid candidate costs a penalty. Reasons for invalid candidates are listed in
    the order they are looked for, so a later one means that more was right: the penalty falls from
    `invalid` for the first reason to `invalid * (1 - grading)` for the last. Every step earns the
    space's shaping.

    Args:
      space: whose episodes are rewarded.
      invalid: penalty of an invalid candidate.
      grading: how much less the last reason costs, 0 to 1.

    Returns:
      A function (before, after, valid_steps, evaluations) -> `[E, S]` rewards. States before and
      after each step have leaves `[E, S, ...]`, `valid_steps` is `[E, S]`, `evaluations` `[E]`, of the
      last step, or `[E, S]`, of every step.
    """
    if invalid < 0 or not 0 <= grading <= 1:
        raise ValueError(f"invalid is {invalid}, grading is {grading}; allowed are 0 or more, and 0 to 1.")
    num_reasons = len(space.reasons) - 1

    def penalty(evaluation: Evaluation) -> Array:
        progress = (evaluation.status - 1) / max(1, num_reasons - 1)
        is_invalid = (evaluation.status > OK) & (evaluation.status <= num_reasons)
        return jnp.where(is_invalid, invalid * (1.0 - grading * progress), 0.0)

    def episode(before: PyTree, after: PyTree, valid_steps: Array, evaluation: Evaluation) -> Array:
        is_last = valid_steps & ~jnp.append(valid_steps[1:], False)
        if evaluation.score.ndim == 0:
            # Only the last step has the evaluation; before it nothing was evaluated.
            rows = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(is_last), *leaf.shape)), evaluation)
            evaluation = rows._replace(
                status=jnp.where(is_last, rows.status, NOT_EVALUATED),
                metrics=jnp.where(is_last[:, None], rows.metrics, jnp.nan),
                score=jnp.where(is_last, rows.score, 0.0),
            )
        shaping = jax.vmap(space.growth.shaping)(before, after, evaluation)
        score = jnp.where(evaluation.status == OK, evaluation.score, 0.0)
        return jnp.where(valid_steps, shaping + score - jnp.where(is_last, penalty(evaluation), 0.0), 0.0)

    return jax.vmap(episode)
