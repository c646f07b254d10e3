"""A space of small networks of different shapes, and a small data set, for what trains one by one.

A candidate is `[3]` int32: width, depth, and what is wrong with it (a place in `FLAWS`). Two candidates
of depth 0 are the same network, whatever their width.
"""

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.tasks.records import Dataset, Split
from elenas_jax.types import DataTask, Network, SearchSpace

FLAWS = ("none", "cannot be built", "diverges", "diverges late", "convolves", "wrong outputs")
REASONS = ("valid", "wide and deep")
FEATURES, CLASSES, TRAIN, VALID, TEST = 4, 3, 50, 23, 20
ROOMY = 8 * 2**30


class Trap:
    """Counts how often test data are read."""

    reads = 0


def make_dataset(seed: int = 0) -> Dataset:
    """Gaussian blobs, a class each."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(0, 2, (CLASSES, FEATURES))

    def split(num: int) -> Split:
        labels = rng.integers(0, CLASSES, num)
        inputs = centres[labels] + rng.normal(0, 1, (num, FEATURES))
        return Split(inputs.astype(np.float32), np.eye(CLASSES, dtype=np.float32)[labels])

    train, valid, test = split(TRAIN), split(VALID), split(TEST)

    def load_test() -> Split:
        Trap.reads += 1
        return test

    return Dataset(
        name="toy_data",
        is_tokens=False,
        in_features=FEATURES,
        out_features=CLASSES,
        time_steps=None,
        loss="categorical",
        metric="accuracy",
        train=train,
        valid=valid,
        load_test=load_test,
        labels=(),
        note="blobs",
    )


def make_task(*, threshold: float = 1.0) -> DataTask:
    return DataTask(
        name="toy_data",
        in_shape=(FEATURES,),
        out_features=CLASSES,
        loss="categorical",
        metric="accuracy",
        threshold=threshold,
        untrained=1 / CLASSES,
        weight=1.0,
        variant="",
        load=make_dataset,
    )


def status(candidate: jax.Array) -> jax.Array:
    return ((candidate[0] >= 8) & (candidate[1] >= 3)).astype(jnp.int32)


def canonical(candidate: np.ndarray) -> bytes:
    width, depth, flaw = np.asarray(candidate).tolist()
    return bytes([width if depth else 0, depth, flaw])


def build(candidate: np.ndarray, task: DataTask) -> Network:
    width, depth, flaw = np.asarray(candidate).tolist()
    width = width if depth else 0
    name = FLAWS[flaw]
    if name == "cannot be built":
        raise ValueError("no such network")
    sizes = [task.in_shape[-1], *([width] * depth), task.out_features + (name == "wrong outputs")]

    def init(key):
        keys = jax.random.split(key, len(sizes))
        layers = [
            {"w": jax.random.normal(k, (a, b)) * 0.5, "b": jnp.zeros(b)}
            for k, a, b in zip(keys, sizes, sizes[1:])
        ]
        return {"layers": layers}, {"steps": jnp.int32(0)}

    def apply(params, state, inputs, *, train=False, key=None):
        x = inputs
        if name == "convolves":
            kernel = jnp.ones((1, 1, 3)) / 3
            x = jax.lax.conv_general_dilated(x[:, None], kernel, (1,), "SAME")[:, 0]
        for layer in params["layers"][:-1]:
            x = jnp.tanh(x @ layer["w"] + layer["b"])
        x = x @ params["layers"][-1]["w"] + params["layers"][-1]["b"]
        if train and name == "diverges":
            x = x * jnp.nan
        if train and name == "diverges late":
            x = jnp.where(state["steps"] >= 7, jnp.nan, x)
        return x, {"steps": state["steps"] + train}

    return Network(init, apply)


def make_toy_networks(
    *,
    max_width: int = 6,
    seeds: tuple[str, ...] = ("small", "large"),
    in_shape: tuple[int, ...] = (FEATURES,),
) -> SearchSpace:
    """Builds the space.

    Args:
      max_width: of what is drawn.
      seeds: names of the two starts.
      in_shape: of the task.
    """
    assert in_shape == (FEATURES,)

    def sample(key):
        return jnp.append(jax.random.randint(key, (2,), 1, jnp.array([max_width + 1, 3])), 0)

    def mutate(key, candidate):
        return candidate.at[0].set(candidate[0] % max_width + 1)

    return SearchSpace(
        name="toy_networks",
        reasons=REASONS,
        sample=sample,
        mutate=mutate,
        crossover=lambda key, a, b: a,
        status=status,
        canonical=canonical,
        to_graph=None,
        build=build,
        describe=lambda candidate: " ".join(map(str, np.asarray(candidate).tolist())),
        drawing=lambda candidate: {"nodes": [], "edges": [], "legend": []},
        to_json=lambda candidate: np.asarray(candidate).tolist(),
        from_json=lambda listed: np.asarray(listed, np.int32),
        known=None,
        growth=None,
        starts=np.array([[2, 1, 0], [4, 2, 0]], np.int32),
    )
