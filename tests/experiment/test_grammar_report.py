from elenas_jax.experiment.grammar_report import (
    count_lines,
    exact,
    expectation_rows,
    growth_lines,
    symbol_lines,
)
from elenas_jax.spaces.grammar import parse_grammar

FINITE = parse_grammar("S -> A A | A\nA -> x | y | z")
GROWS = parse_grammar("S -> x S S [1] | y [2]\nU -> U x")


def test_a_finite_language_is_counted():
    assert list(count_lines(FINITE, 3, 3)) == ["derivations: 12"]


def test_an_infinite_one_is_counted_by_depth_and_by_nodes():
    lines = list(count_lines(GROWS, 3, 5))
    assert lines[0] == "derivations: infinitely many"
    # Binary trees: of depth 1, 2, 3, and of 1, 3, 5 nodes.
    assert [line.split() for line in lines[2:5]] == [["1", "1", "1"], ["2", "1", "2"], ["3", "3", "5"]]
    assert [line.split()[1] for line in lines[6:]] == ["1", "0", "1", "0", "2"]


def test_counts_of_any_length_are_written():
    lines = list(count_lines(GROWS, 20, 1))
    assert len(lines[21].split()[1]) > 90_000


def test_symbols_of_no_use_are_named():
    assert list(symbol_lines("mine", GROWS)) == [
        "mine: start S, 2 non-terminals, 2 terminals, 3 productions",
        "unreachable non-terminals: U",
        "non-terminals that never end: U",
    ]
    assert list(symbol_lines("mine", FINITE))[1:] == [
        "unreachable non-terminals: none",
        "non-terminals that never end: none",
    ]


def test_the_matrix_has_a_row_for_each_non_terminal():
    assert expectation_rows(FINITE) == [("S", ".", "1.5"), ("A", ".", ".")]


def test_growth_of_branching_trees():
    lines = list(growth_lines(parse_grammar("S -> x S S [1] | y [2]"), len))
    assert lines == [
        "spectral radius: 0.666667 = 2/3; derivations end with probability 1, after a finite number of "
        "steps on average",
        "expected terminals of S: 3",
        "critical probability of S -> x S S: 0.500000 = 1/2, of now 0.333333",
        "critical probability of S -> y: 0.500000 = 1/2, of now 0.666667",
    ]
    lines = list(growth_lines(parse_grammar("S -> x S S | y"), len))
    assert lines[0].startswith("spectral radius: 1; below 1") and lines[1].endswith("S: infinite")


def test_numbers_are_fractions_where_these_are_short():
    (half,) = expectation_rows(parse_grammar("S -> x S | y"))
    assert half == ("S", "0.5")
    assert exact(2**0.5) == "1.414214"
