"""Training of one network on a data set, some steps at a time.

The state is a pytree that checkpoints as it is; a trainer is a handful of functions of it. Data stay on the
device; which examples a step takes follows from the seed and the number of the step, so that a training
that goes on after a kill takes the same steps. A step of text is a piece of `bptt` words of each of
`batch_size` streams, and goes on from the state that the piece before it left (truncated
backpropagation through time) unless `Recipe.carry` is False.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from elenas_jax.evaluation import parallel
from elenas_jax.evaluation.stacked import Interface
from elenas_jax.tasks.metrics import METRICS
from elenas_jax.tasks.records import Dataset, Split
from elenas_jax.types import Network, PyTree

SEGMENT_STEPS = 16  # of a call of compiled code
EVAL_BATCH = 256  # examples measured at once
EVAL_STREAMS = 16  # of text that is measured, at most
WARMUP = 0.05  # share of steps in which the learning rate rises


class Recipe(NamedTuple):
    """How a network is trained: what its compiled programs depend on."""

    batch_size: int = 64
    weight_decay: float = 0.0
    clip: float = 1.0  # most that the norm of a gradient may be
    bptt: int = 35  # words of a piece of text
    carry: bool = True  # whether a piece of text goes on from the state that the one before left


class Course(NamedTuple):
    """One training: the same compiled programs serve all of them."""

    seed: int  # of weights, order of examples and dropout
    steps: int
    learning_rate: float  # at its highest: it rises linearly, then falls to 0 as a cosine


class RetrainState(NamedTuple):
    """A training in progress."""

    params: PyTree
    optimiser: PyTree
    carry: PyTree  # of text: states of the blocks after the piece before
    loss: jax.Array  # [] mean of the last segment


class Trainer(NamedTuple):
    """Functions of one network, one data set and one recipe."""

    init: Callable[[int], RetrainState]  # of a seed
    advance: Callable[[RetrainState, Course, int], RetrainState]  # by a segment, after so many steps
    measure: Callable[[PyTree, Split | np.ndarray], float]  # params, split -> the data set's metric
    is_better: Callable[[float, float], bool]  # of two metrics; nothing is better than NaN, NaN than nothing


def interface_of(dataset: Dataset, bptt: int) -> Interface:
    """Returns what a stack for this data set is connected to."""
    is_text = dataset.time_steps is None
    return Interface(
        dataset.is_tokens,
        dataset.in_features,
        dataset.out_features,
        bptt if is_text else int(dataset.time_steps or 0),
        is_text,
    )


def steps_per_epoch(dataset: Dataset, recipe: Recipe) -> int:
    """Returns the number of steps of an epoch; at least 1."""
    if isinstance(dataset.train, Split):
        return max(1, len(dataset.train.inputs) // recipe.batch_size)
    return max(1, (len(dataset.train) - 1) // (recipe.batch_size * recipe.bptt))


def make_trainer(network: Network, dataset: Dataset, recipe: Recipe, device: int = 0) -> Trainer:
    """Makes the functions; nothing is compiled before they are called.

    Args:
      network: from `make_stack`, for `interface_of(dataset, recipe.bptt)`.
      dataset: its test data are not touched.
      recipe: of the training.
      device: its place among the local ones.
    """
    # The learning rate is an argument of the compiled step, so that all rates share one program.
    direction = optax.chain(
        optax.clip_by_global_norm(recipe.clip),
        optax.scale_by_adam(),
        optax.add_decayed_weights(recipe.weight_decay),
    )
    is_text = not isinstance(dataset.train, Split)
    data: Any
    if isinstance(dataset.train, Split):
        data = tuple(dataset.train)
    else:
        data = streams_of(dataset.train, recipe.batch_size, recipe.bptt)
    on_device = functools.cache(lambda: parallel.put_on(device, data))
    per_epoch = steps_per_epoch(dataset, recipe)

    @jax.jit
    def start(key: jax.Array) -> RetrainState:
        params, carry = network.init(key)
        if is_text:
            zeros = jnp.zeros((recipe.batch_size, recipe.bptt), jnp.int32)
            carry = _zeros_like(jax.eval_shape(network.apply, params, carry, zeros)[1])
        return RetrainState(params, direction.init(params), carry, jnp.zeros(()))

    def init(seed: int) -> RetrainState:
        return start(parallel.put_on(device, jax.random.fold_in(jax.random.key(seed), _WEIGHTS)))

    def loss_of(params, carry, inputs, targets, key):
        outputs, carry = network.apply(params, carry, inputs, train=True, key=key)
        return loss_fn(dataset.loss, outputs, targets), carry

    @jax.jit
    def segment(state: RetrainState, data, chosen, rates, keys) -> RetrainState:
        def step(state: RetrainState, at):
            which, rate, key = at
            carry = state.carry
            if is_text:
                inputs, targets = _piece(data, which * recipe.bptt, recipe.bptt)
                goes_on = (which > 0) & recipe.carry
                carry = jax.tree.map(lambda leaf: jnp.where(goes_on, leaf, 0.0), carry)
            else:
                inputs, targets = data[0][which], data[1][which]
            grad_fn = jax.value_and_grad(loss_of, has_aux=True)
            (loss, after), grads = grad_fn(state.params, carry, inputs, targets, key)
            updates, moments = direction.update(grads, state.optimiser, state.params)
            params = jax.tree.map(lambda leaf, update: leaf - rate * update, state.params, updates)
            return RetrainState(params, moments, after if is_text else carry, loss), loss

        state, losses = jax.lax.scan(step, state, (chosen, rates, keys))
        return state._replace(loss=jnp.mean(losses))

    def advance(state: RetrainState, course: Course, steps_taken: int) -> RetrainState:
        numbers = np.arange(steps_taken, steps_taken + SEGMENT_STEPS)
        chosen = numbers % per_epoch
        if not is_text:
            size, many = recipe.batch_size, len(data[0])
            chosen = np.stack([batch_of(course.seed, n, many, size, per_epoch) for n in numbers.tolist()])
        key = jax.random.fold_in(jax.random.key(course.seed), _DROPOUT)
        keys = jax.vmap(functools.partial(jax.random.fold_in, key))(numbers)
        moved = parallel.put_on(device, (chosen.astype(np.int32), learning_rates(course, numbers), keys))
        return segment(state, on_device(), *moved)

    metric = METRICS[dataset.metric]
    nothing = network.init(jax.random.key(0))[1]
    forward = jax.jit(lambda params, inputs: network.apply(params, nothing, inputs)[0])
    word_losses = jax.jit(_make_word_losses(network, recipe.bptt, recipe.carry))

    def measure(params: PyTree, split: Split | np.ndarray) -> float:
        if isinstance(split, Split):
            return metric.fn(_outputs(lambda inputs: forward(params, inputs), split.inputs), split.targets)
        streams = streams_of(split, eval_streams(split, recipe.bptt), recipe.bptt)
        return metric.fn(np.asarray(word_losses(params, streams)), streams)

    def is_better(one: float, than: float) -> bool:
        if math.isnan(one) or math.isnan(than):
            return not math.isnan(one)
        return one > than if metric.higher_is_better else one < than

    return Trainer(init, advance, measure, is_better)


# Folded into the seed's key.
_WEIGHTS, _DROPOUT = 0, 1


def learning_rates(course: Course, numbers: np.ndarray) -> np.ndarray:
    """Returns float32 rates of steps: linear warm-up, then a cosine (Loshchilov and Hutter, 2017)."""
    warm = max(1, round(WARMUP * course.steps))
    falling = 0.5 * (1 + np.cos(np.pi * np.clip((numbers - warm) / max(1, course.steps - warm), 0, 1)))
    return np.asarray(course.learning_rate * np.minimum((numbers + 1) / warm, falling), np.float32)


def loss_fn(kind: str, outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean loss.

    Args:
      kind: as `Dataset.loss`.
      outputs: `[N, O]`, or of text `[N, T, O]`.
      targets: `[N, O]`; of "binary" NaN where nothing was measured. Of text `[N, T]` words.
    """
    if kind == "language":
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(outputs, targets))
    if kind == "categorical":
        return jnp.mean(optax.softmax_cross_entropy(outputs, targets))
    if kind == "squared":
        return jnp.mean(jnp.square(outputs - targets))
    measured = ~jnp.isnan(targets)
    losses = optax.sigmoid_binary_cross_entropy(outputs, jnp.where(measured, targets, 0.0))
    return jnp.sum(jnp.where(measured, losses, 0.0)) / jnp.maximum(jnp.sum(measured), 1)


@functools.lru_cache(maxsize=8)
def _order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(num_examples)


def batch_of(seed: int, step: int, num_examples: int, batch_size: int, per_epoch: int) -> np.ndarray:
    """Returns `[batch_size]` int32, the examples that a step takes: every epoch in an order of its own.

    What does not fill a batch at the end of an epoch is left out of that epoch. A data set smaller than
    a batch is gone through more than once.
    """
    order = _order(seed, step // per_epoch, num_examples)
    begin = (step % per_epoch) * batch_size
    return np.resize(order[begin:], batch_size).astype(np.int32)


def streams_of(words: np.ndarray, streams: int, bptt: int) -> np.ndarray:
    """Cuts a text into `[streams, k * bptt + 1]` words, each stream going on where the one before ends.

    The last word of a stream, which is only predicted, is the first of the next. What does not fill
    the pieces of all streams is left out at the end.

    Raises:
      ValueError: if the text is too short for one piece of each.
    """
    pieces = (len(words) - 1) // (streams * bptt)
    if not pieces:
        raise ValueError(
            f"The text has {len(words):,} words; {streams} streams of pieces of {bptt} need "
            f"{streams * bptt + 1:,}."
        )
    length = pieces * bptt
    return np.stack([words[place * length : (place + 1) * length + 1] for place in range(streams)])


def eval_streams(words: np.ndarray, bptt: int) -> int:
    """Returns the number of streams in which a text is measured, each from the state zero.

    What does not fill the pieces of all of them is not measured: of Penn Treebank's test text 109 of
    82,429 predicted words at pieces of 35.
    """
    return max(1, min(EVAL_STREAMS, (len(words) - 1) // bptt))


def _piece(streams: jax.Array, begin: jax.Array, bptt: int) -> tuple[jax.Array, jax.Array]:
    """Returns `[S, bptt]` words, and those that follow them."""
    words = jax.lax.dynamic_slice_in_dim(streams, begin, bptt + 1, axis=1)
    return words[:, :-1], words[:, 1:]


def _zeros_like(shapes: PyTree) -> PyTree:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _make_word_losses(network: Network, bptt: int, goes_on: bool) -> Callable:
    """Returns `(params, streams [S, L + 1]) -> [L / bptt, S, bptt]` negative log-likelihoods."""
    nothing = network.init(jax.random.key(0))[1]

    def word_losses(params, streams):
        carry = _zeros_like(jax.eval_shape(network.apply, params, nothing, streams[:, :bptt])[1])

        def piece(carry, begin):
            inputs, targets = _piece(streams, begin, bptt)
            outputs, after = network.apply(params, carry, inputs)
            losses = optax.softmax_cross_entropy_with_integer_labels(outputs, targets)
            return after if goes_on else carry, losses

        return jax.lax.scan(piece, carry, bptt * jnp.arange((streams.shape[1] - 1) // bptt))[1]

    return word_losses


def _outputs(forward: Callable, inputs: np.ndarray) -> np.ndarray:
    """Returns `[N, O]` outputs, measured in batches of one shape; the last is filled up."""
    size, parts = min(EVAL_BATCH, len(inputs)), []
    for begin in range(0, len(inputs), size):
        part = inputs[begin : begin + size]
        filled = np.concatenate([part, np.zeros((size - len(part), *part.shape[1:]), part.dtype)])
        parts.append(np.asarray(forward(filled))[: len(part)])
    return np.concatenate(parts)
