r"""Times the policy: steps a second of rolling episodes out, and of the update that follows.

  python scripts/benchmark_policy.py

One table, at the quickstart's size (16 nodes, 112 steps an episode) and at the paper's (32 nodes, 480
steps): median and best over repeated generations, after compiling. A step is one choice of the
policy in rolling out, and one choice learned from in the update.
"""

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import numpy as np
from absl import app, flags

from elenas_jax.evaluation import parallel
from elenas_jax.spaces import SPACES
from elenas_jax.strategies import STRATEGIES
from elenas_jax.types import OK, Evaluation

_EPISODES = flags.DEFINE_integer("episodes", 16, "Episodes a generation.", lower_bound=2)
_GENERATIONS = flags.DEFINE_integer("generations", 3, "Timed generations.", lower_bound=1)


def made_up_evaluation(status: np.ndarray, num_tasks: int = 3) -> Evaluation:
    """Scores by place: the time of an update does not depend on what was scored."""
    num = len(status)
    score = np.where(status == OK, np.linspace(0.0, 1.0, num), 0.0).astype(np.float32)
    return Evaluation(
        score=score,
        metrics=np.repeat(score[:, None], num_tasks, axis=1),
        status=status.astype(np.int32),
        parameters=np.zeros(num, np.int32),
        flops=np.zeros(num, np.float32),
        train_steps=np.zeros(num, np.int32),
        seconds=np.zeros(num, np.float32),
    )


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    parallel.configure_devices()
    print(f"{parallel.describe_devices(1)}, JAX {jax.__version__}, {_EPISODES.value} episodes a generation")
    print(f"{'nodes':>5} {'steps':>5}  {'phase':<8} {'steps/s median':>14} {'best':>9}")
    for num_nodes in (16, 32):
        space = SPACES["elenas"](num_nodes=num_nodes)
        strategy = STRATEGIES["reinforce"](space, batch_size=_EPISODES.value)
        status_of = jax.jit(jax.vmap(space.status))
        state = strategy.init(jax.random.key(0))
        times: dict[str, list[float]] = {"roll out": [], "update": []}
        for generation in range(_GENERATIONS.value + 1):
            key_ask, key_tell = jax.random.split(jax.random.fold_in(jax.random.key(1), generation))
            start = time.perf_counter()
            proposal, state = jax.block_until_ready(strategy.ask(key_ask, state))
            asked = time.perf_counter()
            evaluation = made_up_evaluation(np.asarray(status_of(proposal.candidates)))
            begin = time.perf_counter()
            state = jax.block_until_ready(strategy.tell(key_tell, state, proposal, evaluation))
            if generation:  # the first one compiles
                times["roll out"].append(asked - start)
                times["update"].append(time.perf_counter() - begin)
        steps = space.growth.num_steps * _EPISODES.value
        for phase, seconds in times.items():
            rates = [steps / each for each in seconds]
            print(
                f"{num_nodes:>5} {space.growth.num_steps:>5}  {phase:<8} "
                f"{statistics.median(rates):>14,.0f} {max(rates):>9,.0f}"
            )


if __name__ == "__main__":
    app.run(main)
