"""The Reber grammar and the embedded Reber grammar: is a string valid?

A grammar is an automaton in two tables. Strings are drawn with equally likely transitions and
drawn again if longer than `length`; here that is done exactly and without a loop of retries: a
transition's probability, given that the string still fits, follows from the probability that each
state ends in so many steps (computed once, backwards).

Sources: Reber (1967), the grammar; Hochreiter and Schmidhuber (1997), figures 3 and 4, both
automata; Aichberger and Klambauer (2023), tasks, thresholds and sample counts. How invalid strings
are made is left open there; the two kinds below are those of the ELENAS specification.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from elenas_jax.types import Batch, Task

SYMBOLS = "BTSXPVE"
NEGATIVES = ("random", "near_miss")


class Grammar(NamedTuple):
    """A deterministic automaton over `SYMBOLS`. State 0 starts.

    next_state: `[states, 7]` int32; -1 where a symbol is not allowed.
    final: the state in which a string is complete; it has no transitions.
    """

    next_state: np.ndarray
    final: int


def _grammar(transitions: list[tuple[int, str, int]]) -> Grammar:
    """Builds the table from `(state, symbol, next state)`; the highest state is final."""
    final = max(after for _, _, after in transitions)
    next_state = np.full((final + 1, len(SYMBOLS)), -1, np.int32)
    for before, symbol, after in transitions:
        next_state[before, SYMBOLS.index(symbol)] = after
    return Grammar(next_state, final)


_REBER = [
    (0, "B", 1),
    (1, "T", 2),
    (1, "P", 3),
    (2, "S", 2),
    (2, "X", 4),
    (3, "T", 3),
    (3, "V", 5),
    (4, "X", 3),
    (4, "S", 6),
    (5, "P", 4),
    (5, "V", 6),
    (6, "E", 7),
]


def _embedded(*, must_agree: bool) -> Grammar:
    """B, T or P, a Reber string, the same symbol again (T or P if not `must_agree`), E."""
    transitions = [(0, "B", 1)]
    for symbol, offset in (("T", 2), ("P", 10)):
        transitions.append((1, symbol, offset))
        transitions += [(offset + before, inner, offset + after) for before, inner, after in _REBER]
        transitions += [(offset + 7, closing, 18) for closing in (symbol if must_agree else "TP")]
    return _grammar([*transitions, (18, "E", 19)])


REBER = _grammar(_REBER)
EMBEDDED_REBER = _embedded(must_agree=True)
# The valid strings, and those in which nothing but the long-range symbol is wrong.
EMBEDDED_REBER_LOOSE = _embedded(must_agree=False)


def accepts(grammar: Grammar, symbols: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns `[N]` booleans: is the string in the grammar?

    Args:
      grammar: a constant.
      symbols: `[N, T]` int32 indices into `SYMBOLS`, the string first, then anything.
      lengths: `[N]` int32.
    """
    dead = grammar.next_state.shape[0]
    padded = np.pad(grammar.next_state, ((0, 1), (0, 0)), constant_values=-1)
    table = jnp.asarray(np.where(padded < 0, dead, padded))

    def step(state: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        symbol, inside = at
        return jnp.where(inside, table[state, symbol], state), None

    inside = jnp.arange(symbols.shape[1])[:, None] < lengths
    start = jnp.zeros(symbols.shape[0], jnp.int32)
    state, _ = jax.lax.scan(step, start, (symbols.T, inside))
    return state == grammar.final


def shortest(grammar: Grammar) -> int:
    """Returns the length of the shortest string."""
    reached, length = {0}, 0
    while grammar.final not in reached:
        reached = {int(after) for before in reached for after in grammar.next_state[before] if after >= 0}
        length += 1
    return length


def probability_of_ending(grammar: Grammar, length: int, at_least: int = 0) -> np.ndarray:
    """Returns `[length + 1, states]` float64: a string now in this state ends within so many steps.

    Args:
      grammar: a constant.
      length: steps that there are at the start.
      at_least: symbols that a string has to have; a shorter one has not ended well.
    """
    allowed = grammar.next_state >= 0
    step = np.zeros((len(allowed), len(allowed)))
    for before, symbol in np.argwhere(allowed):
        step[before, grammar.next_state[before, symbol]] += 1 / allowed[before].sum()
    step[grammar.final, grammar.final] = 1.0
    ending = np.zeros((length + 1, len(allowed)))
    for left in range(length + 1):
        if left:
            ending[left] = step @ ending[left - 1]
        ending[left, grammar.final] = float(left <= length - at_least)
    return ending


def sample_strings(
    grammar: Grammar, key: jax.Array, num_examples: int, length: int, at_least: int = 0
) -> tuple[jax.Array, jax.Array]:
    """Draws valid strings of `at_least` to `length` symbols.

    Transitions are equally likely and other strings are drawn again: each step is drawn given
    that the string ends in time, which is the same distribution.

    Returns:
      symbols `[N, length]` int32, left-aligned, 0 after the end; lengths `[N]` int32.
    """
    allowed = grammar.next_state >= 0
    # Every state has one or two ways on (the final state none, and is never asked).
    first = np.argmax(allowed, axis=1)
    second = len(SYMBOLS) - 1 - np.argmax(allowed[:, ::-1], axis=1)
    ways = np.stack([first, second], axis=1)
    after = np.take_along_axis(grammar.next_state, ways, axis=1)
    # [length, states, 2]: by the number of steps that are left after this one.
    weights = probability_of_ending(grammar, length, at_least)[:-1][:, after]
    total = np.sum(weights, axis=-1)
    take_first = np.divide(weights[..., 0], total, out=np.zeros_like(total), where=total > 0)
    ways_table, after_table = jnp.asarray(ways), jnp.asarray(after)

    def step(state: jax.Array, at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, tuple]:
        uniform, probability = at
        way = jnp.where(uniform < probability[state], 0, 1)
        going = state != grammar.final
        symbol = jnp.where(going, ways_table[state, way], 0)
        return jnp.where(going, after_table[state, way], state), (symbol, going)

    uniform = jax.random.uniform(key, (length, num_examples))
    start = jnp.zeros(num_examples, jnp.int32)
    _, (symbols, going) = jax.lax.scan(step, start, (uniform, jnp.asarray(take_first[::-1], jnp.float32)))
    return symbols.T, jnp.sum(going, axis=0, dtype=jnp.int32)


def _draw_invalid(
    key: jax.Array, draw: Callable[[jax.Array], jax.Array], unwanted: Grammar, lengths: jax.Array
) -> jax.Array:
    """Draws `[N, T]` symbols, and each row again for as long as the unwanted grammar accepts it."""

    def again(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        key, symbols, is_open = carry
        key, key_draw = jax.random.split(key)
        symbols = jnp.where(is_open[:, None], draw(key_draw), symbols)
        return key, symbols, accepts(unwanted, symbols, lengths)

    shape = jax.eval_shape(draw, key)
    start = (key, jnp.zeros(shape.shape, shape.dtype), jnp.ones(shape.shape[0], bool))
    return jax.lax.while_loop(lambda carry: jnp.any(carry[2]), again, start)[1]


def random_negatives(grammar: Grammar, key: jax.Array, symbols: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns `[N, T]` invalid strings: uniform symbols at the lengths of the valid ones given."""

    def draw(key: jax.Array) -> jax.Array:
        return jax.random.randint(key, symbols.shape, 0, len(SYMBOLS))

    return _draw_invalid(key, draw, grammar, lengths)


def near_misses(unwanted: Grammar, key: jax.Array, symbols: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns `[N, T]` strings: the valid ones given, with one symbol changed.

    Place and new symbol are uniform; what the unwanted grammar accepts is drawn again. (One change
    is always enough: in both grammars no two states have a continuation in common.)
    """
    num_examples, length = symbols.shape

    def draw(key: jax.Array) -> jax.Array:
        key_place, key_shift = jax.random.split(key)
        place = jax.random.randint(key_place, (num_examples,), 0, lengths)
        shift = jax.random.randint(key_shift, (num_examples, 1), 1, len(SYMBOLS))
        is_here = jnp.arange(length) == place[:, None]
        return jnp.where(is_here, (symbols + shift) % len(SYMBOLS), symbols)

    return _draw_invalid(key, draw, unwanted, lengths)


def embedded_near_misses(key: jax.Array, symbols: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns `[N, T]` near misses; each breaks with probability 1/2 the long-range symbol only.

    That symbol is the last but one: T or P, as the second one is. In the other half it is another
    symbol that is wrong, or the long-range symbol is neither T nor P.
    """
    key_half, key_other = jax.random.split(key)
    t, p = SYMBOLS.index("T"), SYMBOLS.index("P")
    is_long_range = jnp.arange(symbols.shape[1]) == (lengths - 2)[:, None]
    swapped = jnp.where(is_long_range, t + p - symbols, symbols)
    other = near_misses(EMBEDDED_REBER_LOOSE, key_other, symbols, lengths)
    return jnp.where(jax.random.bernoulli(key_half, shape=(lengths.shape[0], 1)), swapped, other)


def encode(symbols: jax.Array, lengths: jax.Array) -> jax.Array:
    """Returns `[N, T, 7]` one-hot float32, zeros in front, so that the last step is the last symbol."""
    length = symbols.shape[1]
    place = jnp.arange(length) - (length - lengths)[:, None]
    aligned = jnp.take_along_axis(symbols, jnp.maximum(place, 0), axis=1)
    return jax.nn.one_hot(jnp.where(place >= 0, aligned, -1), len(SYMBOLS))


@functools.cache
def _make_sample(
    embedded: bool, negatives: str, length: int, at_least: int = 0
) -> Callable[[jax.Array, int], Batch]:
    """Returns the generator; the same object for the same settings, so that it compiles once."""
    grammar = EMBEDDED_REBER if embedded else REBER
    make_invalid: Callable[..., jax.Array]
    if negatives == "random":
        make_invalid = functools.partial(random_negatives, grammar)
    elif embedded:
        make_invalid = embedded_near_misses
    else:
        make_invalid = functools.partial(near_misses, REBER)

    @functools.partial(jax.jit, static_argnames="num_examples")
    def sample(key: jax.Array, num_examples: int) -> Batch:
        key_valid, key_invalid, key_labels = jax.random.split(key, 3)
        symbols, lengths = sample_strings(grammar, key_valid, num_examples, length, at_least)
        invalid = make_invalid(key_invalid, symbols, lengths)
        labels = jax.random.permutation(key_labels, jnp.arange(num_examples) % 2 == 0)
        inputs = encode(jnp.where(labels[:, None], symbols, invalid), lengths)
        return Batch(inputs, labels[:, None].astype(jnp.float32))

    return sample


def _check(name: str, grammar: Grammar, negatives: str, length: int) -> None:
    if negatives not in NEGATIVES:
        raise ValueError(f"{name}: negatives is {negatives!r}; known are {', '.join(NEGATIVES)}.")
    least = shortest(grammar)
    if length < least:
        raise ValueError(f"{name}: length is {length}; the shortest valid string has {least} symbols.")


def make_reber(*, negatives: str = "random", length: int = 32) -> Task:
    """Valid or invalid Reber strings, half of each (exactly, in every call of `sample`).

    Args:
      negatives: "random": uniform symbols at the length of a valid string. "near_miss": a valid
        string with one symbol changed.
      length: time steps; longer strings are drawn again, shorter ones padded in front.
    """
    _check("reber", REBER, negatives, length)
    return Task(
        name="reber",
        in_features=len(SYMBOLS),
        out_features=1,
        time_steps=length,
        loss="binary",
        sample=_make_sample(False, negatives, length),
        variant=negatives,
        train_samples=20_000,
        valid_samples=2_000,
        threshold=0.80,
        untrained=0.50,
        weight=0.1,
    )


def make_embedded_reber(*, negatives: str = "random", length: int = 32) -> Task:
    """As `make_reber`; near misses break with probability 1/2 the long-range symbol only."""
    _check("embedded_reber", EMBEDDED_REBER, negatives, length)
    task = make_reber(length=length)
    return task._replace(
        name="embedded_reber",
        sample=_make_sample(True, negatives, length),
        variant=negatives,
        train_samples=50_000,
        valid_samples=5_000,
        threshold=0.70,
    )


def with_full_length(task: Task) -> Task:
    """Returns a grammar task whose strings all have as many symbols as there are time steps.

    Most strings of the tasks themselves are short (of those of up to 64 symbols hardly any has more than
    32), and a longer sequence is more padding in front; this is what longer strings are measured on.

    Raises:
      ValueError: for a task of no grammar.
    """
    if task.name not in ("reber", "embedded_reber"):
        raise ValueError(f"{task.name} is no task of a grammar.")
    embedded = task.name == "embedded_reber"
    return task._replace(
        sample=_make_sample(embedded, task.variant, task.time_steps, task.time_steps),
        variant=f"{task.variant}, full length",
    )
