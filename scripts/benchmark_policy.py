r"""Times policies: steps a second of rolling out episodes and of learning from them.

  python scripts/benchmark_policy.py

REINFORCE's policy on graphs of the quickstart's size, and the paper's at the paper's size; against
the same networks in PyTorch eager where that is installed (`policy_peers.py`). A step is one
predicted edge of one episode. An update is of a minibatch of 32 steps: forward, backward, Adam.
PyTorch is given its observations; this package's times hold the environment and observing, too.
Ways of PyTorch: one graph at a time (in updates their gradients are added up), and all episodes, or all of
a minibatch, side by side as one batched graph.

First both must give equal logits, values and losses, else nothing is printed. Numbers are medians
of runs; a ratio is the median over runs of ours and PyTorch's one after the other. A run calls a
way again and again, for SECONDS to warm up and for SECONDS that are timed: ours takes milliseconds, and a
single call after PyTorch's measures how its threads come to rest, too.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import jax
import jax.numpy as jnp
import numpy as np
import optax
import policy_peers as peers
from absl import app, flags

from elenas_jax.evaluation import parallel
from elenas_jax.policies import GraphPolicy, PaperPolicy
from elenas_jax.spaces import make_elenas
from elenas_jax.strategies.rollouts import make_policy, replay, roll_out
from elenas_jax.types import Growth

_RUNS = flags.DEFINE_integer("runs", 5, "Timed runs.", lower_bound=1)
_SIZE = flags.DEFINE_enum("size", "both", ["both", "quickstart", "paper"], "What is timed.")
_PEERS = flags.DEFINE_bool("peers", True, "Whether PyTorch is timed, if it is there.")
_THREADS = flags.DEFINE_integer(
    "threads",
    1,
    "Threads of PyTorch; ours is one device, which shares long loops among all cores.",
    lower_bound=1,
)
_JSON = flags.DEFINE_string("json", "", "A file for the numbers.")

MINIBATCH = 32  # steps of an update, as in the paper
NUM_MINIBATCHES = 4  # of a timed run
PEER_STEPS = 40  # of rolling out in a timed run of PyTorch, one episode at a time
TOGETHER_STEPS = 4  # the same, all episodes side by side
SECONDS = 0.3  # that a way is called again and again in a timed run
LEARNING_RATE = 1e-3
TOLERANCE = 1e-3


class Size(NamedTuple):
    """What is timed."""

    name: str
    num_nodes: int
    num_episodes: int
    make_model: Callable


SIZES = (
    Size("quickstart", 16, 64, lambda num_actions: GraphPolicy(num_actions, width=32, num_rounds=2)),
    Size("paper", 32, 32, lambda num_actions: PaperPolicy(num_actions)),
)


class Mistake(Exception):
    """A check that failed; the message is one line."""


class Learned(NamedTuple):
    """Steps that are learned from; leaves [NUM_MINIBATCHES, MINIBATCH, ...]."""

    states: Any
    actions: jax.Array
    returns: jax.Array


def loss_of(model, growth: Growth, params: Any, steps: Learned) -> jax.Array:
    """Returns actor, critic and entropy loss of a minibatch."""

    def one(state, action, target):
        logits, value = model.apply(params, growth.observe(state))
        log_probs = jax.nn.log_softmax(jnp.where(growth.valid_actions(state), logits, -1e9))
        advantage = jax.lax.stop_gradient(target - value)
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs)
        return -advantage * log_probs[action] + 0.5 * jnp.square(target - value) - 0.01 * entropy

    return jnp.mean(jax.vmap(one)(*steps))


class Ours:
    """This package's way: compiled rolling out, and compiled updates of minibatches."""

    def __init__(self, size: Size) -> None:
        self.growth = growth = make_elenas(num_nodes=size.num_nodes).growth
        self.model = model = size.make_model(growth.num_actions)
        self.observe = jax.jit(growth.observe)
        start = growth.start(jax.random.key(0))
        params = jax.jit(model.init)(jax.random.key(0), self.observe(start))
        # As after some training: what starts at zero is not.
        leaves, tree = jax.tree.flatten(params)
        keys = jax.random.split(jax.random.key(1), len(leaves))
        noise = [0.02 * jax.random.normal(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
        self.params = jax.tree.map(jnp.add, params, tree.unflatten(noise))
        optimiser = optax.adam(LEARNING_RATE)
        self.opt_state = optimiser.init(self.params)
        policy = make_policy(growth, model.apply, 0.0)
        self.play = jax.jit(lambda params, key: roll_out(growth, policy, params, key, size.num_episodes)[1])

        def step(carry, steps: Learned):
            params, opt_state = carry
            loss, gradient = jax.value_and_grad(lambda each: loss_of(model, growth, each, steps))(params)
            updates, opt_state = optimiser.update(gradient, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        self.learn = jax.jit(
            lambda params, opt_state, steps: jax.lax.scan(step, (params, opt_state), steps)[1]
        )
        rollout = self.play(self.params, jax.random.key(2))
        self.states = jax.jit(lambda rollout: replay(growth, rollout)[0])(rollout)  # [E, S, ...]
        chosen = jax.random.permutation(jax.random.key(3), rollout.actions.size)
        chosen = chosen[: NUM_MINIBATCHES * MINIBATCH].reshape(NUM_MINIBATCHES, MINIBATCH)
        self.learned = Learned(
            *jax.tree.map(
                lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[chosen], (self.states, rollout.actions)
            ),
            jax.random.normal(jax.random.key(4), chosen.shape),
        )

    def roll_out(self) -> None:
        jax.block_until_ready(self.play(self.params, jax.random.key(2)))

    def update(self) -> np.ndarray:
        """Returns `[NUM_MINIBATCHES]` losses."""
        return np.asarray(self.learn(self.params, self.opt_state, self.learned))


class Theirs:
    """PyTorch's way, on observations that are there before."""

    def __init__(self, size: Size, ours: Ours) -> None:
        self.ours = ours
        growth = ours.growth
        valid = jax.jit(jax.vmap(growth.valid_actions))

        def observations(states) -> list:
            seen = jax.device_get(jax.jit(jax.vmap(growth.observe))(states))
            return [at(seen, row) for row in range(len(seen.focus))]

        def at(states, *index):
            return jax.tree.map(lambda leaf: leaf[index], states)

        import torch

        # Steps in the middle of an episode, and the same steps of all episodes.
        places = np.linspace(0, growth.num_steps - 1, PEER_STEPS).astype(int)
        alone = at(ours.states, 0, places)
        self.seen = observations(alone)
        self.alone = [
            (peers.to_graphs([each]), torch.tensor(np.array(row))[None])
            for each, row in zip(self.seen, valid(alone), strict=True)
        ]
        self.together = []
        for place in places[:: PEER_STEPS // TOGETHER_STEPS]:
            states = at(ours.states, slice(None), place)
            mask = torch.tensor(np.array(valid(states)))
            self.together.append((peers.to_graphs(observations(states)), mask))
        self.minibatches, self.one_by_one = [], []  # each a list of parts
        for place in range(NUM_MINIBATCHES):
            states, actions, returns = at(ours.learned, place)
            rows = (observations(states), np.array(actions), np.array(valid(states)), np.array(returns))
            self.minibatches.append([peers.to_steps(*rows)])
            self.one_by_one.append(
                [peers.to_steps(*(part[row : row + 1] for part in rows)) for row in range(MINIBATCH)]
            )
        self.weights = peers.to_weights(ours.params)

    def check(self) -> None:
        """Raises Mistake unless logits, values and the losses of updates agree with ours."""
        apply = jax.jit(self.ours.model.apply)
        for place, (graphs, _) in enumerate(self.alone):
            given = peers.outputs(self.ours.model, self.weights, graphs)
            for name, theirs, ours in zip(
                ("logits", "values"), given, apply(self.ours.params, self.seen[place]), strict=True
            ):
                self._compare(name, place, theirs.detach().numpy()[0], np.asarray(ours))
        for learn in (self.update, self.update_one_by_one):
            self._compare("losses", 0, np.array(learn()), self.ours.update())

    def _compare(self, name: str, place: int, theirs: np.ndarray, ours: np.ndarray) -> None:
        if not np.allclose(theirs, ours, rtol=TOLERANCE, atol=TOLERANCE):
            raise Mistake(f"{name} differ, so nothing is timed: step {place}: {ours} (ours), {theirs}.")

    def roll_out(self) -> None:
        for graphs, valid_actions in self.alone:
            peers.draw(self.ours.model, self.weights, graphs, valid_actions)

    def roll_out_together(self) -> None:
        for graphs, valid_actions in self.together:
            peers.draw(self.ours.model, self.weights, graphs, valid_actions)

    def update(self) -> list[float]:
        """Learns from all minibatches, anew each time; returns losses."""
        return self._learn(self.minibatches)

    def update_one_by_one(self) -> list[float]:
        """The same, a graph at a time; their gradients are added up."""
        return self._learn(self.one_by_one)

    def _learn(self, minibatches: list) -> list[float]:
        weights = peers.to_weights(self.ours.params)
        optimiser = peers.make_optimiser(weights, LEARNING_RATE)
        return [peers.update(self.ours.model, weights, optimiser, parts) for parts in minibatches]


def _seconds(function: Callable) -> float:
    """Returns the mean seconds of a call, over SECONDS of calls after as many that are not timed."""
    start = time.perf_counter()
    while time.perf_counter() - start < SECONDS:
        function()
    start, calls = time.perf_counter(), 0
    while (taken := time.perf_counter() - start) < SECONDS:
        function()
        calls += 1
    return taken / calls


def benchmark(size: Size, with_peers: bool) -> Iterator[dict[str, Any]]:
    """Times a size; yields a record for each row."""
    ours = Ours(size)
    num_steps = size.num_episodes * ours.growth.num_steps
    num_learned = NUM_MINIBATCHES * MINIBATCH
    rows = [("roll out", ours.roll_out, num_steps, []), ("update", ours.update, num_learned, [])]
    if with_peers:
        theirs = Theirs(size, ours)
        theirs.check()
        num_together = len(theirs.together) * size.num_episodes
        rows[0][3].append(("PyTorch, one by one", theirs.roll_out, len(theirs.alone)))
        rows[0][3].append(("PyTorch, side by side", theirs.roll_out_together, num_together))
        rows[1][3].append(("PyTorch, one by one", theirs.update_one_by_one, num_learned))
        rows[1][3].append(("PyTorch, side by side", theirs.update, num_learned))
    for what, function, steps, others in rows:
        ways = [("ours", function, steps), *others]
        runs = [[count / _seconds(each) for _, each, count in ways] for _ in range(_RUNS.value)]
        for place, (way, _, _) in enumerate(ways):
            yield {
                "size": size.name,
                "what": what,
                "way": way,
                "steps_per_second": statistics.median(run[place] for run in runs),
                "ours_is_faster": statistics.median(run[0] / run[place] for run in runs),
                "runs": [run[place] for run in runs],
            }


def main(argv: list[str]) -> None:
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {' '.join(argv[1:])}")
    parallel.configure_devices()  # as a search does
    with_peers = _PEERS.value and peers.is_there()
    versions = [f"JAX {jax.__version__}", *([peers.configure(_THREADS.value)] if with_peers else [])]
    print(f"{parallel.describe_devices(1)}, {', '.join(versions)}")
    print(f"{'size':<10}  {'what':<8}  {'way':<21}  {'steps/s':>9}  {'ours / it':>9}")
    records = []
    try:
        for size in SIZES:
            if _SIZE.value in ("both", size.name):
                for record in benchmark(size, with_peers):
                    print(
                        f"{record['size']:<10}  {record['what']:<8}  {record['way']:<21}  "
                        f"{record['steps_per_second']:>9,.0f}  {record['ours_is_faster']:>8.1f}x",
                        flush=True,
                    )
                    records.append(record)
    except Mistake as mistake:
        raise SystemExit(f"benchmark_policy.py: {mistake}") from None
    if _JSON.value:
        Path(_JSON.value).write_text(json.dumps({"versions": versions, "rows": records}, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)
