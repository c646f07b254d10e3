r"""Times the drawing and mutating of einspace networks: how many a second, and whether all are valid.

  python scripts/benchmark_einspace_sampler.py
  python scripts/benchmark_einspace_sampler.py --p=0.5 --input=3x32x32 --n=2000 --rules=compat

Draws within the default budgets of the space (nodes, parameters, activations, depth), and a mutation of each.
"draw" and "mutate" are the functions on the host, "space.sample" is what strategies call: jitted, a key
a call. Each candidate's status is looked at after the clock. Seconds are of the processor.
"""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import inspect

import jax
import numpy as np
from absl import app, flags
from benchmark_machine import machine_line

from elenas_jax.experiment.flags import parse_flags
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.session import one_line_errors
from elenas_jax.spaces.einspace import make_einspace
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_options import make_options
from elenas_jax.spaces.einspace_sampling import Budget, draw
from elenas_jax.spaces.einspace_typing import state_of
from elenas_jax.spaces.einspace_variation import compat_mutate, mutate
from elenas_jax.spaces.grammar import to_derivation
from elenas_jax.types import OK

_P = flags.DEFINE_float("p", 0.32, "Probability of a computation module.")
_INPUT = flags.DEFINE_string("input", "3x64x64", "Shape of an example, CxHxW.")
_RULES = flags.DEFINE_enum("rules", "strict", ["strict", "compat"], "Which rules.")
_N = flags.DEFINE_integer("n", 5000, "Draws; a tenth of them through the space.", lower_bound=10)
_SEED = flags.DEFINE_integer("seed", 0, "Of the draws.", lower_bound=0)


def default_budget() -> Budget:
    """Returns the budget that `make_einspace` has if nothing is said."""
    parameters = inspect.signature(make_einspace).parameters
    return Budget(*(parameters[f"max_{name}"].default for name in Budget._fields))


def benchmark() -> None:
    """Does what the flags say."""
    try:
        shape = tuple(int(side) for side in _INPUT.value.split("x"))
        space = make_einspace(computation_probability=_P.value, rules=_RULES.value, in_shape=shape)
    except ValueError as error:
        raise ConfigError(" ".join(str(error).split())) from error
    grammar = make_einspace_grammar(_P.value, len(shape))
    options, budget = make_options(grammar, _RULES.value), default_budget()
    compat = _RULES.value == "compat"
    rng = np.random.default_rng(_SEED.value)
    print(machine_line().split("; PyTorch")[0])
    print(f"{'what':<14}  {'number':>8}  {'valid':>8}  {'seconds':>8}  {'valid a second':>14}")

    def report(what: str, seconds: float, statuses: list[int]) -> None:
        valid = sum(status == OK for status in statuses)
        print(f"{what:<14}  {len(statuses):>8,}  {valid:>8,}  {seconds:>8.2f}  {valid / seconds:>14,.0f}")

    def statuses(drawn: list) -> list[int]:
        return [int(space.status(to_derivation(one.node, budget.nodes))) for one in drawn]

    start = time.process_time()
    drawn = [draw(rng, options, state_of(shape), budget=budget, compat=compat) for _ in range(_N.value)]
    report("draw", time.process_time() - start, statuses(drawn))
    change = compat_mutate if compat else mutate
    start = time.process_time()
    children = [change(rng, grammar, options, one, budget=budget) for one in drawn]
    report("mutate", time.process_time() - start, statuses(children))
    sample = jax.jit(space.sample)
    keys = [jax.random.key(seed) for seed in range(_N.value // 10)]
    jax.block_until_ready(sample(keys[0]))
    start = time.process_time()
    candidates = [jax.block_until_ready(sample(key)) for key in keys]
    report("space.sample", time.process_time() - start, [int(space.status(one)) for one in candidates])


def main(_: list[str]) -> None:
    with one_line_errors():
        benchmark()


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
