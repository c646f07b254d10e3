r"""Times the constructor: graphs of 12, 32 and 64 nodes turned into programs, on all cores.

  python scripts/benchmark_constructor.py

Prints graphs a second, median and best of repeated runs, for the sampler's graphs (edges drawn
with the search's probabilities, valid or not) after compiling once.
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
from elenas_jax.graphs import ComputationGraph, construct
from elenas_jax.graphs.liveness import REASONS
from elenas_jax.spaces.elenas_sampling import draw, make_choices

_GRAPHS = flags.DEFINE_integer("graphs", 8192, "Graphs a run, over all devices.", lower_bound=1)
_BATCH = flags.DEFINE_integer(
    "batch", 256, "Graphs worked on at once; what a batch needs should stay in the caches.", lower_bound=1
)
_RUNS = flags.DEFINE_integer("runs", 9, "Timed runs.", lower_bound=1)


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    parallel.configure_devices()
    devices = parallel.count_devices()
    print(f"{parallel.describe_devices(devices)}, JAX {jax.__version__}, {_GRAPHS.value} graphs a run")
    print(f"{'nodes':>5}  {'graphs/s median':>15}  {'best':>9}  {'compile s':>9}  valid")
    for num_nodes in (12, 32):
        each = -(-_GRAPHS.value // devices)
        choices = make_choices(num_nodes, "paper", None, None)
        keys = jax.random.split(jax.random.key(0), devices * each)
        edges = np.asarray(jax.jit(jax.vmap(lambda key, choices=choices: draw(choices, key).edges))(keys))
        edges = edges.reshape(devices, each, num_nodes, num_nodes)

        def build(edges):
            one = lambda edges: construct(  # noqa: E731
                ComputationGraph(edges), in_features=7, out_features=1, head="linear", time_steps=32
            )
            return jax.lax.map(one, edges, batch_size=_BATCH.value)

        run = parallel.map_over_devices(build, devices, split=(True,))
        start = time.perf_counter()
        program = jax.block_until_ready(run(edges))
        first = time.perf_counter() - start
        times = []
        for _ in range(_RUNS.value):
            start = time.perf_counter()
            jax.block_until_ready(run(edges))
            times.append(time.perf_counter() - start)
        rate = [edges[..., 0, 0].size / seconds for seconds in times]
        valid = np.mean(np.asarray(program.status) == REASONS.index("valid"))
        print(
            f"{num_nodes:>5}  {statistics.median(rate):>15,.0f}  {max(rate):>9,.0f}  "
            f"{first:>9.1f}  {valid:.1%}"
        )


if __name__ == "__main__":
    app.run(main)
