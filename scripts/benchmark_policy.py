r"""Times REINFORCE: steps a second of rolling out episodes and of learning from them.

  python scripts/benchmark_policy.py

One row for graphs of the quickstart's size, one for the paper's 32 nodes. A step is one predicted
edge of one episode; learning counts the steps of the episodes of a generation. Median and best of
repeated runs, after compiling once.
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
from elenas_jax.spaces import make_elenas
from elenas_jax.strategies import make_reinforce
from elenas_jax.types import OK, Evaluation

_RUNS = flags.DEFINE_integer("runs", 5, "Timed runs.", lower_bound=1)
_SIZES = ((16, 64), (32, 32))  # nodes, episodes


def _times(function, num_runs: int) -> tuple[float, list[float]]:
    """Returns the seconds of the first call and of each of `num_runs` more."""
    seconds = []
    for _ in range(num_runs + 1):
        start = time.perf_counter()
        jax.block_until_ready(function())
        seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1:]


def _judged(space, proposal) -> Evaluation:
    """Returns what an evaluator may say of a proposal; nothing is trained."""
    status = np.asarray(jax.vmap(space.status)(proposal.candidates))
    zeros = np.zeros(len(status), np.int32)
    return Evaluation(
        score=np.where(status == OK, 0.1, 0.0).astype(np.float32),
        metrics=np.full((len(status), 2), np.nan, np.float32),
        status=status,
        parameters=zeros,
        flops=zeros.astype(np.float32),
        train_steps=zeros,
        seconds=zeros.astype(np.float32),
    )


def _benchmark(num_nodes: int, num_episodes: int) -> None:
    space = make_elenas(num_nodes=num_nodes)
    strategy = make_reinforce(space, batch_size=num_episodes)
    key = jax.random.key(0)
    state = strategy.init(key)
    seconds = {"roll out": _times(lambda: strategy.ask(key, state), _RUNS.value)}
    proposal, asked = strategy.ask(key, state)
    evaluation = _judged(space, proposal)
    seconds["learn"] = _times(lambda: strategy.tell(key, asked, proposal, evaluation), _RUNS.value)
    for name, (first, times) in seconds.items():
        rates = [num_episodes * space.growth.num_steps / each for each in times]
        print(
            f"{num_nodes:>5}  {num_episodes:>8}  {name:<8}  {statistics.median(rates):>14,.0f}  "
            f"{max(rates):>9,.0f}  {first:>9.1f}",
            flush=True,
        )


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    print(f"{parallel.describe_devices(1)}, JAX {jax.__version__}")
    print(
        f"{'nodes':>5}  {'episodes':>8}  {'what':<8}  {'steps/s median':>14}  {'best':>9}  {'compile s':>9}"
    )
    for num_nodes, num_episodes in _SIZES:
        _benchmark(num_nodes, num_episodes)


if __name__ == "__main__":
    app.run(main)
