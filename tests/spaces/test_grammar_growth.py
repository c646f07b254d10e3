"""Growing derivations: what is allowed, what policies see, and that strategies learn on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.graphs.convert import valid_edges
from elenas_jax.spaces.grammar import (
    Derivation,
    flatten,
    grow_tree,
    parse_grammar,
    positions,
    to_derivation,
    to_tree,
)
from elenas_jax.spaces.grammar_counting import enumerate_derivations
from elenas_jax.spaces.grammar_growth import LEAST_PRIOR, make_grammar_growth, tree_graph
from elenas_jax.spaces.grammar_sampling import Size, make_sampler
from elenas_jax.spaces.grammar_terms import from_json, to_json, to_text
from elenas_jax.spaces.grammar_variation import crossover, mutate
from elenas_jax.spaces.on_host import jittable, jittable_draw
from elenas_jax.strategies import make_ppo, make_reinforce
from elenas_jax.types import NOT_EVALUATED, OK, Evaluation, SearchSpace

N = 8
GRAMMAR = parse_grammar(
    "S -> add S A [2] | neg S [1] | A [1]\nA -> x [3] | y [1] | z [0] | far B B B B B B B [1]\nB -> A"
)
ADD, NEG, LEAF, X, Y, Z, FAR, B = range(8)


@pytest.fixture(scope="module")
def growth():
    return make_grammar_growth(GRAMMAR, max_rules=N)


@pytest.fixture(scope="module")
def step(growth):
    """One compiled program for all tests: (state, action) -> next state, observation, valid actions, done."""

    @jax.jit
    def step(state, action):
        after = growth.extend(state, action)
        return after, growth.observe(after), growth.valid_actions(after), growth.is_done(after)

    return step


def play(growth, step, actions):
    state = growth.start(jax.random.key(0))
    for action in actions:
        state, observation, valid, done = step(state, jnp.int32(action))
    return state, observation, np.flatnonzero(valid).tolist(), bool(done)


def possible(prefix):
    """Slow twin: the rules that may follow a prefix, by listing all derivations that have it."""
    longer = [rules for rules in ALL if rules[: len(prefix)] == prefix and len(rules) > len(prefix)]
    return sorted({rules[len(prefix)] for rules in longer})


# Weights of 0 are legal here, so they are made positive for the list.
ALL = [
    flatten(tree)
    for tree in enumerate_derivations(
        parse_grammar("S -> add S A | neg S | A\nA -> x | y | z | far B B B B B B B\nB -> A"), N
    )
]


def test_valid_actions_are_those_that_can_end(growth, step):
    assert np.flatnonzero(growth.valid_actions(growth.start(jax.random.key(0)))).tolist() == possible([])
    rng = np.random.default_rng(0)
    longest = [rules for rules in ALL if len(rules) == N]
    for place in rng.integers(len(longest), size=12):
        rules = longest[place]
        for length in range(1, N):
            _, _, valid, done = play(growth, step, rules[:length])
            assert valid == possible(rules[:length]) and not done
        state, _, valid, done = play(growth, step, rules)
        assert done and valid == list(range(growth.num_actions))
        assert flatten(to_tree(GRAMMAR, growth.candidate(state))) == rules
    assert all(FAR not in rules for rules in ALL)  # it never has room


def test_other_actions_change_nothing(growth, step):
    state, *_ = play(growth, step, [ADD, LEAF])
    for action in (ADD, LEAF, FAR, B):
        after, *_ = step(state, jnp.int32(action))
        jax.tree.map(np.testing.assert_array_equal, after, state)
    done, *_ = play(growth, step, [LEAF, X])
    after, *_ = step(done, jnp.int32(ADD))
    jax.tree.map(np.testing.assert_array_equal, after, done)


def test_policies_see_the_tree_and_what_is_open(growth, step):
    # add(neg(S), A): the S is next.
    _, observation, *_ = play(growth, step, [ADD, NEG])
    graph = observation.graph
    assert graph.n_node.tolist() == [4, N + 1 - 4] and graph.n_edge.tolist() == [6, 2 * N - 6]
    assert observation.focus.tolist() == [2, 2]
    heads, rules, marks = graph.nodes[:, :3], graph.nodes[:, 3:11], graph.nodes[:, 11:]
    np.testing.assert_array_equal(np.argmax(heads[:4], axis=1), [0, 0, 0, 1])
    np.testing.assert_array_equal(np.argmax(rules[:2], axis=1), [ADD, NEG])
    np.testing.assert_array_equal(np.sum(rules, axis=1), [1, 1, 0, 0, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(marks[:4], [[0, 0], [0, 0], [1, 1], [1, 0]])
    assert not np.any(graph.nodes[4:])
    # Edges to children and back; which child it is tells the children of `add` apart.
    real = np.flatnonzero(valid_edges(graph)).tolist()
    edges = {(int(graph.senders[e]), int(graph.receivers[e])): graph.edges[e].tolist() for e in real}
    first, second = [1.0] + [0.0] * 6, [0.0, 1.0] + [0.0] * 5
    assert edges == {
        (0, 1): [*first, 0],
        (1, 0): [*first, 1],
        (1, 2): [*first, 0],
        (2, 1): [*first, 1],
        (0, 3): [*second, 0],
        (3, 0): [*second, 1],
    }
    assert bool(np.all(graph.senders[6:] == N)) and not np.any(graph.edges[6:])
    prior = np.log(np.array([0.5, 0.25, 0.25]))
    np.testing.assert_allclose(graph.globals, [[*prior, 0, 0, 0, 0, 0], [0] * 8], rtol=1e-6)
    _, observation, *_ = play(growth, step, [LEAF])
    prior = np.log(np.array([0.6, 0.2, LEAST_PRIOR, 0.2]))
    np.testing.assert_allclose(observation.graph.globals[0], [0, 0, 0, *prior, 0], rtol=1e-6)


def test_observations_are_one_graph_told_twice(growth, step):
    for rules in ([ADD], [ADD, NEG, LEAF, X], [LEAF, Y], [NEG] * 6 + [LEAF, Z]):
        state, observation, *_ = play(growth, step, rules)
        graph, num_kinds = observation.graph, len(observation.kind_features)
        kinds = np.full((N + 1, N + 1), num_kinds)
        for edge in np.flatnonzero(valid_edges(graph)):
            sender, receiver = int(graph.senders[edge]), int(graph.receivers[edge])
            kind = int(observation.kinds[receiver, sender])
            kinds[receiver, sender] = kind
            assert int(observation.edge_kinds[edge]) == kind
            np.testing.assert_array_equal(graph.edges[edge], observation.kind_features[kind])
            assert observation.kind_types[kind] == (sender > receiver)
        np.testing.assert_array_equal(observation.kinds, kinds)
        num_real = int(state.num_rules + state.num_open)
        assert int(graph.n_node[0]) == num_real and int(graph.n_edge[0]) == 2 * (num_real - 1)


def test_trees_are_graphs(growth):
    node = grow_tree(GRAMMAR, [ADD, NEG, LEAF, X, Y])
    graph = jax.jit(lambda candidate: tree_graph(growth, candidate))(to_derivation(node, N))
    paths = [path for path, _ in positions(GRAMMAR, node)]
    parents = {(paths.index(path[:-1]), place) for place, path in enumerate(paths) if path}
    real = np.flatnonzero(valid_edges(graph)).tolist()
    edges = {(int(graph.senders[edge]), int(graph.receivers[edge])) for edge in real}
    assert edges == parents | {(child, parent) for parent, child in parents}
    np.testing.assert_array_equal(np.argmax(graph.nodes[:5, 3:], axis=1), [ADD, NEG, LEAF, X, Y])
    assert graph.globals is None


def test_a_space_may_forbid_more():
    def valid_rules(prefix):
        assert prefix != (LEAF, X), "nothing is asked after the end"
        return [rule for rule in range(8) if rule != NEG and not (rule == X and ADD in prefix)]

    features = np.arange(16.0).reshape(8, 2)
    growth = make_grammar_growth(GRAMMAR, max_rules=N, valid_rules=valid_rules, node_features=features)

    @jax.jit
    @jax.vmap
    def replay(actions):
        def one(state, action):
            after = growth.extend(state, action)
            return after, (growth.valid_actions(after), growth.observe(after).graph.nodes[0])

        return jax.lax.scan(one, growth.start(jax.random.key(0)), actions)

    finals, (valid, nodes) = replay(
        jnp.array([[ADD, LEAF, X, Y, Y], [LEAF, X, X, X, X], [NEG, ADD, LEAF, Z, Y]])
    )
    seen = [[np.flatnonzero(row).tolist() for row in rows] for rows in valid]
    everything = list(range(8))
    assert seen[0] == [[ADD, LEAF], [Y, Z], [Y, Z], [Y, Z], everything]  # X is ignored
    assert seen[1][1:] == [everything] * 4
    assert seen[2] == [[ADD, LEAF], [ADD, LEAF], [Y, Z], [Y, Z], everything]
    np.testing.assert_array_equal(finals.rules[0], [ADD, LEAF, Y, Y, -1, -1, -1, -1])
    np.testing.assert_array_equal(nodes[:, -1, 3:5], features[[ADD, LEAF, ADD]])


def test_dead_ends_leave_the_derivation_open():
    growth = make_grammar_growth(GRAMMAR, max_rules=N, valid_rules=lambda prefix: [] if prefix else [ADD])
    state = jax.jit(growth.extend)(growth.start(jax.random.key(0)), jnp.int32(ADD))
    assert bool(jnp.all(growth.valid_actions(state))) and not bool(growth.is_done(state))
    after = jax.jit(growth.extend)(state, jnp.int32(ADD))
    jax.tree.map(np.testing.assert_array_equal, after, state)
    with pytest.raises(ValueError, match="needs S A below it; got nothing"):
        to_tree(GRAMMAR, growth.candidate(after))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_rules": 1}, "No derivation of 'S' has at most 1 rules"),
        ({"max_rules": 5, "node_features": np.zeros((3, 2))}, r"shape \(3, 2\); they must be \[8, F\]"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make_grammar_growth(GRAMMAR, **settings)


def make_toy_space(growth):
    """Expressions with many x are good."""
    sampler = make_sampler(GRAMMAR, Size(N))
    result = Derivation(np.zeros(N, np.int16))

    def tree(candidate):
        return to_tree(GRAMMAR, candidate)

    def status(candidate):
        try:
            tree(candidate)
        except ValueError:
            return 1
        return OK

    return SearchSpace(
        name="toy",
        reasons=("valid", "unfinished"),
        sample=jittable_draw(lambda rng: to_derivation(sampler.draw(rng), N), result),
        mutate=jittable_draw(lambda rng, one: to_derivation(mutate(rng, sampler, tree(one)), N), result),
        crossover=jittable_draw(
            lambda rng, one, other: to_derivation(crossover(rng, sampler, tree(one), tree(other)), N), result
        ),
        status=jittable(status, np.int32(0)),
        canonical=lambda candidate: np.asarray(candidate.rules).tobytes(),
        to_graph=lambda candidate: tree_graph(growth, candidate),
        build=None,
        describe=lambda candidate: to_text(GRAMMAR, tree(candidate)),
        drawing=None,
        to_json=lambda candidate: to_json(GRAMMAR, candidate),
        from_json=lambda data: from_json(GRAMMAR, data, N),
        known=None,
        growth=growth,
    )


@pytest.fixture(scope="module")
def space(growth):
    return make_toy_space(growth)


def test_a_space_of_derivations_can_be_jitted_and_vmapped(space):
    keys = jax.random.split(jax.random.key(0), 12)
    sampled = jax.jit(jax.vmap(space.sample))(keys)
    alone = jax.jit(space.sample)
    for place, key in enumerate(keys):
        np.testing.assert_array_equal(alone(key).rules, sampled.rules[place])
    mutated = jax.jit(jax.vmap(space.mutate))(keys, sampled)
    assert not np.any(np.all(mutated.rules == sampled.rules, axis=1))
    crossed = jax.vmap(space.crossover)(keys, sampled, mutated)
    for candidates in (sampled, mutated, crossed):
        np.testing.assert_array_equal(jax.vmap(space.status)(candidates), OK)
    assert int(space.status(Derivation(np.full(N, -1, np.int16)))) == 1


SMALL_STRATEGIES = {
    "reinforce": (
        make_reinforce,
        {"batch_size": 8, "num_minibatches": 2, "num_elites": 2, "width": 8, "num_rounds": 1},
    ),
    "ppo": (
        make_ppo,
        {"num_episodes": 8, "epochs": 1, "batch_size": 32, "width": 8, "num_heads": 1, "num_layers": 1},
    ),
}


@pytest.mark.parametrize("name", SMALL_STRATEGIES)
def test_policies_learn_on_derivations(space, name):
    make, settings = SMALL_STRATEGIES[name]
    strategy = make(space, **settings)
    state = strategy.init(jax.random.key(0))
    before = state.params
    for generation in range(2):
        key_ask, key_tell = jax.random.split(jax.random.key(generation))
        proposal, state = strategy.ask(key_ask, state)
        rules = np.asarray(proposal.candidates.rules)
        for candidate in rules:
            assert len(flatten(to_tree(GRAMMAR, Derivation(candidate)))) <= N
        asked = np.asarray(proposal.valid_candidates)
        good = np.mean(rules == X, axis=1).astype(np.float32)
        evaluation = Evaluation(
            score=np.where(asked, good, 0.0).astype(np.float32),
            metrics=np.zeros((len(rules), 1), np.float32),
            status=np.where(asked, OK, NOT_EVALUATED).astype(np.int32),
            parameters=np.zeros(len(rules), np.int32),
            flops=np.zeros(len(rules), np.float32),
            train_steps=np.zeros(len(rules), np.int32),
            seconds=np.zeros(len(rules), np.float32),
        )
        state = strategy.tell(key_tell, state, proposal, evaluation)
    assert all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(state.params))
    changed = [bool(jnp.any(a != b)) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state.params))]
    assert sum(changed) > len(changed) / 2
