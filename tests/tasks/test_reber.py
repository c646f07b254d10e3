"""The grammar tasks against a recogniser and a sampler that can be read."""

import collections
import random

import jax
import numpy as np
import pytest

from elenas_jax.tasks import make_task
from elenas_jax.tasks import reber as grammars

SYMBOLS = "BTSXPVE"
NUM_EXAMPLES = 10_000
TASKS = ("reber", "embedded_reber")

# Hochreiter and Schmidhuber (1997), figure 3: what may follow in each state, and where it leads.
REBER = {
    "start": {"B": "begun"},
    "begun": {"T": "upper", "P": "lower"},
    "upper": {"S": "upper", "X": "upper right"},
    "lower": {"T": "lower", "V": "lower right"},
    "upper right": {"X": "lower", "S": "last"},
    "lower right": {"P": "upper right", "V": "last"},
    "last": {"E": "end"},
    "end": {},
}


def is_reber(string):
    state = "start"
    for symbol in string:
        if symbol not in REBER[state]:
            return False
        state = REBER[state][symbol]
    return state == "end"


def is_reber_in_shell(string):
    """Is it a Reber string between B, T or P and T or P, E?"""
    shell = (
        len(string) >= 4
        and string[0] == "B"
        and string[1] in "TP"
        and string[-2] in "TP"
        and string[-1] == "E"
    )
    return shell and is_reber(string[2:-2])


def is_embedded_reber(string):
    return is_reber_in_shell(string) and string[1] == string[-2]


IS_VALID = {"reber": is_reber, "embedded_reber": is_embedded_reber}


def draw(rng, task):
    """One string, transitions equally likely, of any length."""
    state, string = "start", ""
    while state != "end":
        symbol = rng.choice(list(REBER[state]))
        state, string = REBER[state][symbol], string + symbol
    if task == "embedded_reber":
        symbol = rng.choice("TP")
        string = f"B{symbol}{string}{symbol}E"
    return string


def decode(inputs):
    """Returns the strings of one-hot `[N, T, 7]` inputs, checking the padding on the way."""
    inputs = np.asarray(inputs)
    is_symbol = inputs.sum(-1) == 1
    assert np.isin(inputs, (0, 1)).all() and (is_symbol | (inputs.sum(-1) == 0)).all()
    assert is_symbol[:, -1].all(), "the last step is the last symbol"
    assert (np.diff(is_symbol.astype(int), axis=1) >= 0).all(), "padding stands in front only"
    symbols = inputs.argmax(-1)
    return ["".join(SYMBOLS[s] for s in row[real]) for row, real in zip(symbols, is_symbol)]


def valid_strings(task, num_examples, length, seed=0):
    """Returns what `sample` starts from, as strings."""
    grammar = grammars.REBER if task == "reber" else grammars.EMBEDDED_REBER
    symbols, lengths = grammars.sample_strings(grammar, jax.random.key(seed), num_examples, length)
    rows = zip(np.asarray(symbols), np.asarray(lengths))
    return symbols, lengths, ["".join(SYMBOLS[s] for s in row[:end]) for row, end in rows]


@pytest.mark.parametrize("negatives", grammars.NEGATIVES)
@pytest.mark.parametrize("name", TASKS)
def test_labels_are_right_and_half_are_valid(name, negatives):
    task = make_task(name, negatives=negatives)
    batch = task.sample(jax.random.key(0), NUM_EXAMPLES)
    assert batch.inputs.shape == (NUM_EXAMPLES, task.time_steps, task.in_features)
    assert batch.targets.shape == (NUM_EXAMPLES, task.out_features)
    labels = np.asarray(batch.targets)[:, 0]
    expected = [IS_VALID[name](string) for string in decode(batch.inputs)]
    np.testing.assert_array_equal(labels, expected)
    assert labels.sum() == NUM_EXAMPLES // 2
    # Valid and invalid are shuffled, and as long as each other.
    assert 0.45 < labels[: NUM_EXAMPLES // 2].mean() < 0.55
    lengths = np.asarray(batch.inputs).sum((1, 2))
    assert abs(lengths[labels == 1].mean() - lengths[labels == 0].mean()) < 0.5


@pytest.mark.parametrize("name", TASKS)
def test_lengths_are_those_of_drawing_again(name):
    rng = random.Random(0)
    counted = collections.Counter()
    while counted.total() < NUM_EXAMPLES:
        string = draw(rng, name)
        if len(string) <= 32:
            counted[len(string)] += 1
    _, lengths, _ = valid_strings(name, NUM_EXAMPLES, 32)
    ours = np.bincount(np.asarray(lengths), minlength=33)
    theirs = np.array([counted[length] for length in range(33)])
    assert ours[: min(counted)].sum() == 0 and len(ours) == 33
    # Two-sample chi-square; 0.999 of chi-square with 28 degrees of freedom is 56.9.
    is_common = ours + theirs >= 10
    assert ours[is_common].sum() > 0.99 * NUM_EXAMPLES
    statistic = ((ours - theirs)[is_common] ** 2 / (ours + theirs)[is_common]).sum()
    assert statistic < 56.9


@pytest.mark.parametrize(("name", "length"), [("reber", 9), ("embedded_reber", 12)])
def test_strings_are_as_likely_as_when_drawn_again(name, length):
    probability = {}

    def walk(state, string, chance):
        if state == "end":
            probability[string] = chance
        elif len(string) < (length if name == "reber" else length - 4):
            for symbol, after in REBER[state].items():
                walk(after, string + symbol, chance / len(REBER[state]))

    walk("start", "", 1.0)
    if name == "embedded_reber":
        probability = {f"B{s}{inner}{s}E": chance / 2 for inner, chance in probability.items() for s in "TP"}
    total = sum(probability.values())
    counted = collections.Counter(valid_strings(name, NUM_EXAMPLES, length)[2])
    assert set(counted) == set(probability)
    for string, chance in probability.items():
        expected = chance / total
        deviation = np.sqrt(expected * (1 - expected) / NUM_EXAMPLES)
        assert abs(counted[string] / NUM_EXAMPLES - expected) < 5 * deviation, string


@pytest.mark.parametrize("name", TASKS)
def test_near_misses_differ_in_one_symbol(name):
    symbols, lengths, strings = valid_strings(name, NUM_EXAMPLES, 32)
    if name == "reber":
        changed = grammars.near_misses(grammars.REBER, jax.random.key(1), symbols, lengths)
    else:
        changed = grammars.embedded_near_misses(jax.random.key(1), symbols, lengths)
    for before, row in zip(strings, np.asarray(changed)):
        after = "".join(SYMBOLS[s] for s in row[: len(before)])
        assert IS_VALID[name](before) and not IS_VALID[name](after)
        assert sum(a != b for a, b in zip(before, after)) == 1


def test_half_of_the_embedded_near_misses_break_only_the_long_range_symbol():
    task = make_task("embedded_reber", negatives="near_miss")
    batch = task.sample(jax.random.key(2), NUM_EXAMPLES)
    strings = [s for s, label in zip(decode(batch.inputs), np.asarray(batch.targets)[:, 0]) if not label]
    share = np.mean([is_reber_in_shell(string) for string in strings])
    assert abs(share - 0.5) < 0.03  # 4 standard deviations of a Bernoulli mean


def test_random_negatives_use_all_symbols_alike():
    task = make_task("reber", negatives="random")
    batch = task.sample(jax.random.key(3), NUM_EXAMPLES)
    invalid = np.asarray(batch.inputs)[np.asarray(batch.targets)[:, 0] == 0]
    share = invalid.sum((0, 1)) / invalid.sum()
    np.testing.assert_allclose(share, 1 / 7, atol=0.01)


@pytest.mark.parametrize("negatives", grammars.NEGATIVES)
def test_the_shortest_length_that_is_allowed(negatives):
    batch = make_task("reber", negatives=negatives, length=5).sample(jax.random.key(0), 64)
    strings = decode(batch.inputs)
    valid = {s for s, label in zip(strings, np.asarray(batch.targets)[:, 0]) if label}
    assert valid == {"BTXSE", "BPVVE"}
    with pytest.raises(ValueError, match="length is 4; the shortest valid string has 5"):
        make_task("reber", length=4)
    with pytest.raises(ValueError, match="length is 8; the shortest valid string has 9"):
        make_task("embedded_reber", length=8)


@pytest.mark.parametrize("name", TASKS)
def test_tables_are_the_grammar(name):
    """Walks both automata side by side over everything that can be reached."""
    grammar = grammars.REBER if name == "reber" else grammars.EMBEDDED_REBER
    rng = random.Random(1)
    for _ in range(200):
        string, state = draw(rng, name), 0
        for symbol in string:
            state = grammar.next_state[state, SYMBOLS.index(symbol)]
            assert state >= 0
        assert state == grammar.final
    assert grammars.shortest(grammar) == (5 if name == "reber" else 9)


@pytest.mark.parametrize("name", TASKS)
def test_strings_of_full_length_are_as_likely_as_among_all_of_that_length(name):
    length = 11
    grammar = grammars.REBER if name == "reber" else grammars.EMBEDDED_REBER
    symbols, lengths = grammars.sample_strings(grammar, jax.random.key(4), NUM_EXAMPLES, length, length)
    assert set(np.asarray(lengths).tolist()) == {length}
    drawn = collections.Counter("".join(SYMBOLS[s] for s in row) for row in np.asarray(symbols))
    shorter_too, among = collections.Counter(valid_strings(name, NUM_EXAMPLES, length)[2]), 0
    among = sum(count for string, count in shorter_too.items() if len(string) == length)
    for string, count in drawn.items():
        share, other = count / NUM_EXAMPLES, shorter_too[string] / among
        deviation = np.sqrt(share * (1 - share) * (1 / NUM_EXAMPLES + 1 / among))
        assert IS_VALID[name](string) and abs(share - other) < 5 * deviation, string


@pytest.mark.parametrize("name", TASKS)
def test_tasks_of_full_length(name):
    task = grammars.with_full_length(make_task(name, negatives="near_miss", length=40))
    batch = task.sample(jax.random.key(5), 64)
    for string, label in zip(decode(batch.inputs), np.asarray(batch.targets)[:, 0]):
        assert len(string) == 40 and IS_VALID[name](string) == bool(label)
    with pytest.raises(ValueError, match="adding is no task of a grammar"):
        grammars.with_full_length(make_task("adding"))
