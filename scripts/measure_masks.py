r"""Measures what masks of actions do: shares of valid graphs among those that new policies build.

  python scripts/measure_masks.py
  python scripts/measure_masks.py --nodes=12,32 --episodes=4096 --results=results/masks.json

A row for each number of nodes, order of edges and kind of policy: one that draws as the space's sampler does
(how searches start here) and one that draws all actions equally (the paper's start). Columns: the share of
valid graphs without and with `space.masks`, and the most frequent reason with them.
"""

import collections
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags
from result_table import show_result
from rich.console import Console

from elenas_jax.experiment.flags import parse_flags
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.session import one_line_errors
from elenas_jax.spaces import make_elenas
from elenas_jax.strategies.rollouts import make_policy, roll_out
from elenas_jax.types import OK

_NODES = flags.DEFINE_list("nodes", ["12", "16", "32"], "Numbers of nodes.")
_EPISODES = flags.DEFINE_integer("episodes", 2048, "Graphs that are built for a cell.", lower_bound=16)
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws.")
_RESULTS = flags.DEFINE_string("results", None, "Also write the table to this file, in the form of results/.")


def statuses(num_nodes: int, order: str, use_prior: bool, masks: bool, episodes: int, seed: int):
    """Returns the space's reasons and `[E]` statuses of what a new policy builds."""
    space = make_elenas(num_nodes=num_nodes, order=order, masks=masks)

    def model(params, observation):
        del params
        shown = observation.graph.globals[0]
        return (shown if use_prior else jnp.zeros_like(shown)), 0.0

    policy = make_policy(space.growth, model, 0.0, use_prior)

    @jax.jit
    def play(key):
        final, _ = roll_out(space.growth, policy, {}, key, episodes)
        return jax.lax.map(lambda state: space.status(space.growth.candidate(state)), final)

    return space.reasons, np.asarray(play(jax.random.key(seed)))


def main(_: list[str]) -> None:
    console = Console(highlight=False)
    with one_line_errors():
        if not all(each.isdecimal() and int(each) >= 3 for each in _NODES.value):
            raise ConfigError(f"--nodes={','.join(_NODES.value)}: whole numbers from 3 on, such as 12,32.")
        columns = ("nodes", "order", "policy", "valid", "valid with masks", "most frequent reason with masks")
        rows = []
        for num_nodes in map(int, _NODES.value):
            for order in ("subgraphs", "random"):
                for use_prior in (True, False):
                    shares = []
                    for masks in (False, True):
                        reasons, found = statuses(
                            num_nodes, order, use_prior, masks, _EPISODES.value, _SEED.value
                        )
                        shares.append(float(np.mean(found == OK)))
                    invalid = collections.Counter(found[found != OK].tolist()).most_common(1)
                    reason = (
                        f"{reasons[invalid[0][0]]} ({invalid[0][1] / len(found):.0%})" if invalid else "-"
                    )
                    rows.append(
                        [
                            num_nodes,
                            order,
                            "as the sampler" if use_prior else "uniform",
                            *(f"{share:.1%}" for share in shares),
                            reason,
                        ]
                    )
        config = {"episodes": _EPISODES.value, "seed": _SEED.value}
        title = f"Valid graphs among those that new policies build, {_EPISODES.value} a cell"
        note = (
            "Masks (`space.masks`) forbid cycles without a recursion, recursions from parameters, and "
            "leaving out the last chance of an edge from the input."
        )
        show_result(
            console, title=title, columns=columns, rows=rows, note=note, to=_RESULTS.value, config=config
        )


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
