"""Which productions may come next, against the sampler and the types."""

import numpy as np

from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_growth import make_valid_rules
from elenas_jax.spaces.einspace_options import make_options
from elenas_jax.spaces.einspace_sampling import Budget, draw
from elenas_jax.spaces.einspace_typing import TypingError, infer, state_of
from elenas_jax.spaces.grammar import flatten, grow_tree

GRAMMAR = make_einspace_grammar()
OPTIONS = make_options(GRAMMAR)
STATE = state_of((3, 16, 16))


def names(rules):
    return {GRAMMAR.productions[rule].symbols[0] for rule in rules}


def rule(head, name):
    return next(r for r in GRAMMAR.productions_of(head) if GRAMMAR.productions[r].symbols[0] == name)


def test_all_that_the_sampler_draws_is_valid_at_each_step():
    valid_rules = make_valid_rules(GRAMMAR, OPTIONS, STATE, max_rules=60)
    rng = np.random.default_rng(0)
    for _ in range(60):
        rules = flatten(draw(rng, OPTIONS, STATE, budget=Budget(60)).node)
        for place, next_rule in enumerate(rules):
            assert next_rule in valid_rules(rules[:place])


def test_episodes_end_and_only_aggregations_go_wrong():
    max_rules = 40
    valid_rules = make_valid_rules(GRAMMAR, OPTIONS, STATE, max_rules=max_rules)
    rng = np.random.default_rng(0)
    num_valid = 0
    for _ in range(60):
        rules, heads = [], ["S"]
        while heads:
            found = valid_rules(rules)
            heads.pop()
            rules.append(int(rng.choice(found)))
            heads.extend(GRAMMAR.right_hand_nonterminals(rules[-1])[::-1])
        assert len(rules) <= max_rules
        try:
            infer(grow_tree(GRAMMAR, rules), STATE)
            num_valid += 1
        except TypingError as error:
            assert str(error).startswith(("add", "concat", "matmul", "scaled_matmul"))
    assert num_valid >= 10


def test_slots_of_each_kind():
    valid_rules = make_valid_rules(GRAMMAR, OPTIONS, STATE, max_rules=60, max_depth=2)
    root = rule("S", "routing")
    assert "computation" not in names(valid_rules([])) and "clone(8)" in names(valid_rules([]))
    assert "permute(2,1)" not in names(valid_rules([root]))
    unfolded = [root, rule("P", "im2col(4,4,0)")]
    assert "computation" in names(valid_rules(unfolded))
    assert names(valid_rules([*unfolded, rule("M", "sequential")])) == {"computation"}  # as deep as it may be
    inner = [*unfolded, rule("M", "computation"), rule("C", "norm")]
    assert names(valid_rules(inner)) == {"identity", "permute(2,1)", "col2im"}
    branch = [rule("S", "clone(4)"), rule("M", "computation"), rule("C", "norm")]
    assert names(valid_rules(branch)) == {"add", "concat(1,4)", "concat(2,4)", "concat(3,4)"}


def test_near_the_end_only_what_still_fits_is_valid():
    valid_rules = make_valid_rules(GRAMMAR, OPTIONS, STATE, max_rules=6)
    assert names(valid_rules([rule("S", "sequential")])) == {"computation"}
    assert names(valid_rules([])) >= {"sequential", "routing", "clone(2)", "clone(4)"}
    smaller = make_valid_rules(GRAMMAR, OPTIONS, STATE, max_rules=5)
    assert "clone(2)" not in names(smaller([]))
