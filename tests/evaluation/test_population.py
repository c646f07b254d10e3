"""The population evaluator against plain training, and what a score must not depend on."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from elenas_jax.evaluation import MemoryCache, evaluate_seeds, make_population_evaluator
from elenas_jax.evaluation.trainer import stack_graphs
from elenas_jax.evaluation.training import TRAIN, VALIDATION, data_key, weights_key
from elenas_jax.graphs import (
    KNOWN_BLOCKS,
    ComputationGraph,
    canonical_graph,
    canonical_hash,
    construct,
    from_edges,
    init_params,
    interpret,
)
from elenas_jax.graphs.constructor import construct_batch
from elenas_jax.graphs.liveness import TOO_MANY_PARAMETERS
from elenas_jax.graphs.program import LAYOUTS, find_layout
from elenas_jax.spaces import make_elenas
from elenas_jax.tasks import LOSSES, make_task
from elenas_jax.types import CRASHED, DIVERGED, NOT_EVALUATED, OK, OUT_OF_MEMORY

RUN_KEY = jax.random.key(3)
STEPS, BATCH, WIDTH = 20, 8, 8
NAMES = ("elman", "elena1", "elena2", "linear_attention")


def make_tasks(threshold=0.0):
    return (
        make_task("reber", length=10, valid_samples=64, threshold=threshold),
        make_task("adding", length=10, valid_samples=64, threshold=0.0),
    )


def make(tasks=None, **settings):
    tasks = make_tasks() if tasks is None else tasks
    settings = dict(steps=(STEPS,) * len(tasks), hidden_features=WIDTH, batch_size=BATCH) | settings
    settings = dict(candidates_per_device=4, num_devices=1, learning_rate=1e-2) | settings
    return make_population_evaluator(tasks, run_key=RUN_KEY, **settings)


def population(names=NAMES):
    return ComputationGraph(stack_graphs([KNOWN_BLOCKS[name] for name in names]))


@pytest.fixture(scope="module")
def evaluator():
    return make()


@pytest.fixture(scope="module")
def evaluation(evaluator):
    return evaluator.evaluate(population(), 0)


def train_plainly(graph, task):
    """One candidate with `interpret`, `jax.grad` and optax, as anybody would write it."""
    graph = canonical_graph(graph)
    program = construct(
        graph,
        in_features=task.in_features,
        out_features=task.out_features,
        hidden_features=WIDTH,
        head="linear",
        time_steps=task.time_steps,
    )
    params = init_params(weights_key(RUN_KEY, canonical_hash(graph), 0), program)
    loss = LOSSES[task.loss]
    optimiser = optax.adam(1e-2)
    state = optimiser.init(params)

    def predict(params, inputs):
        return interpret(program, params, inputs)[:, -1]

    def loss_of(params, batch):
        return jnp.mean(loss.loss_fn(predict(params, batch.inputs), batch.targets))

    key = data_key(RUN_KEY, 0)
    for step in range(STEPS):
        batch = task.sample(jax.random.fold_in(jax.random.fold_in(key, TRAIN), step), BATCH)
        gradient = jax.grad(loss_of)(params, batch)
        updates, state = optimiser.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    right = []
    for step in range(task.valid_samples // BATCH):
        batch = task.sample(jax.random.fold_in(jax.random.fold_in(key, VALIDATION), step), BATCH)
        right.append(np.mean(loss.right_fn(predict(params, batch.inputs), batch.targets)))
    return np.mean(right)


@pytest.mark.parametrize("place", [1, 3], ids=[NAMES[1], NAMES[3]])
def test_metrics_are_those_of_plain_training(place, evaluation):
    for level, task in enumerate(make_tasks()):
        expected = train_plainly(KNOWN_BLOCKS[NAMES[place]], task)
        # One validation example on the other side of a threshold is 1/64.
        assert evaluation.metrics[place, level] == pytest.approx(expected, abs=1 / 64 + 1e-6)


def test_blocks_with_too_many_parameters_are_not_trained(evaluation):
    limit = int(evaluation.parameters.min())
    found = make(max_parameters=limit).evaluate(population(), 0)
    kept = evaluation.parameters <= limit
    assert 0 < kept.sum() < len(kept)
    np.testing.assert_array_equal(found.status, np.where(kept, OK, TOO_MANY_PARAMETERS))
    np.testing.assert_array_equal(found.metrics[kept], evaluation.metrics[kept])
    assert not found.train_steps[~kept].any()


def test_score_does_not_depend_on_order_batch_or_company(evaluator, evaluation):
    for order in ([2], [3, 2, 0, 1], [1, 1, 1, 0, 2, 3, 2]):
        other = make(candidates_per_device=4).evaluate(population([NAMES[place] for place in order]), 0)
        np.testing.assert_array_equal(other.metrics, evaluation.metrics[order])
        np.testing.assert_array_equal(other.score, evaluation.score[order])


def test_score_does_not_depend_on_the_numbers_of_nodes(evaluation):
    graph = KNOWN_BLOCKS["elena1"]
    renamed = from_edges(23, [(6 if s == 2 else s, 6 if t == 2 else t, name) for s, t, name in _moved(graph)])
    found = make().evaluate(ComputationGraph(renamed.edges[None]), 0)
    np.testing.assert_array_equal(found.metrics[0], evaluation.metrics[1])


def _moved(graph):
    """The edges of a graph with every intermediate node two places further and a dead node."""
    from elenas_jax.graphs import to_edges

    shift = {node: node + 10 for node in range(2, graph.num_nodes, 2)}
    return [(shift.get(s, s), shift.get(t, t), name) for s, t, name in to_edges(graph)] + [(0, 2, "add")]


def test_scores_are_the_same_bits_on_1_2_and_4_devices_and_in_batches_of_1_and_7():
    code = """
import sys, json, numpy as np
from elenas_jax.evaluation import parallel
parallel.configure_devices(4)
from tests.evaluation.test_population import make, population, NAMES
found = []
for devices in (1, 2, 4):
    for names in (NAMES[:1], (NAMES * 2)[:7]):
        e = make(num_devices=devices).evaluate(population(names), 0)
        found.append([[float(x).hex() for x in row] for row in e.metrics.tolist()][0])
print(json.dumps(found))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(out.stdout.splitlines()[-1])
    assert len(found) == 6 and all(each == found[0] for each in found)


def count_compiled(run):
    """Returns how many programs are compiled, or read from a cache, while `run()` runs."""
    counted = []

    def listen(name, seconds, **_):
        counted.append(name.endswith("backend_compile_duration"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        run()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    return sum(counted)


def test_a_second_population_compiles_nothing_however_large(evaluator, evaluation):
    other = [(0, 2, "matmul"), (1, 2, "matmul"), (4, 2, "add"), (2, 2, "tanh"), (2, 4, "recursion")]

    def evaluate(num, seed):
        """Rows of different graphs, of the size that the evaluator has met."""
        names = [(a, b) for a in ("add", "hadamard", "matmul") for b in ("add", "hadamard", "matmul")]
        graphs = [from_edges(16, [*other, (3, 2, a), (5, 2, b)]) for a, b in names[seed : seed + num]]
        found = evaluator.evaluate(ComputationGraph(stack_graphs(graphs)), 0)
        assert (found.status == OK).all()

    assert count_compiled(lambda: evaluate(2, 0)) == 0
    assert count_compiled(lambda: evaluate(5, 2)) == 0  # more than a chunk


def test_cache_is_asked_first_and_holds_what_was_trained(evaluation):
    cache = MemoryCache()
    evaluator = make(cache=cache)
    calls = []
    evaluator.evaluate(population(), 0, on_chunk=lambda *done: calls.append(done))
    assert len(cache) == 4 and calls[-1] == (4, 4)
    calls.clear()
    again = evaluator.evaluate(population(), 0, on_chunk=lambda *done: calls.append(done))
    assert not calls
    np.testing.assert_array_equal(again.metrics, evaluation.metrics)


def test_replicates_budgets_and_settings_have_keys_of_their_own():
    first, second = make(budgets=(0.5, 1.0)), make(budgets=(0.5, 1.0), learning_rate=1e-3)
    keys = {
        one.cache_key(b"graph", budget, r) for one in (first, second) for budget in (0, 1) for r in (0, 1)
    }
    assert len(keys) == 8


def test_a_budget_is_a_share_of_the_steps():
    found = make(budgets=(0.5, 1.0)).evaluate(population(), np.array([0, 1, 0, 1]))
    np.testing.assert_array_equal(found.train_steps, [STEPS, 2 * STEPS] * 2)
    with pytest.raises(ValueError, match="budget"):
        make().evaluate(population(), 3)


def test_ladder_stops_at_the_first_threshold_missed():
    found = make(make_tasks(threshold=1.1)).evaluate(population(), 0)
    assert np.isnan(found.metrics[:, 1]).all() and not np.isnan(found.metrics[:, 0]).any()
    np.testing.assert_array_equal(found.train_steps, STEPS)


def test_invalid_candidates_are_reported_and_skipped_ones_are_not_trained(evaluation):
    graphs = [from_edges(8, [(0, 2, "add")]), KNOWN_BLOCKS["elena1"], KNOWN_BLOCKS["elman"]]
    cache = MemoryCache()
    found = make(cache=cache).evaluate(
        ComputationGraph(stack_graphs(graphs)), 0, valid_candidates=np.array([True, True, False])
    )
    assert found.status[0] not in (OK, NOT_EVALUATED) and found.status[1] == OK
    assert found.status[2] == NOT_EVALUATED
    assert len(cache) == 1 and np.isnan(found.metrics[[0, 2]]).all()
    np.testing.assert_array_equal(found.metrics[1], evaluation.metrics[1])


def test_a_candidate_that_diverges_is_a_result():
    blowing_up = from_edges(
        9,
        [
            (0, 2, "matmul"),
            (1, 2, "matmul"),
            (2, 2, "relu"),
            (4, 2, "add"),
            (6, 2, "add"),
            (2, 4, "recursion"),
            (2, 6, "recursion"),
        ],
    )
    graphs = [KNOWN_BLOCKS["elman"], blowing_up]
    found = make(learning_rate=1e30).evaluate(ComputationGraph(stack_graphs(graphs)), 0)
    assert found.status[1] == DIVERGED and np.isnan(found.metrics[1, 0])
    assert found.score[1] == 0


def test_what_fails_on_a_later_task_scores_nothing_and_harms_no_other(monkeypatch, evaluation):
    from elenas_jax.evaluation import trainer as module

    plain, victim = module.Trainer._train_task, canonical_hash(KNOWN_BLOCKS[NAMES[1]])

    def crash(self, program, task, ours, *rest):
        if task.name == "adding" and victim in [one.hash for one in ours]:
            raise RuntimeError("one bad candidate")
        return plain(self, program, task, ours, *rest)

    monkeypatch.setattr(module.Trainer, "_train_task", crash)
    found = make().evaluate(population(), 0)
    np.testing.assert_array_equal(found.status, [OK, CRASHED, OK, OK])
    assert found.score[1] == 0 and found.metrics[1, 0] == evaluation.metrics[1, 0]
    others = [0, 2, 3]
    np.testing.assert_array_equal(found.metrics[others], evaluation.metrics[others])


@pytest.mark.parametrize(
    ("error", "status"), [("RESOURCE_EXHAUSTED: out of memory", OUT_OF_MEMORY), ("anything else", CRASHED)]
)
def test_a_crash_is_a_status(error, status, monkeypatch):
    from elenas_jax.evaluation import trainer as module

    def crash(*_):
        raise RuntimeError(error)

    monkeypatch.setattr(module.Trainer, "_train_task", crash)
    found = make().evaluate(population(), 0)
    assert (found.status == status).all() and (found.score == 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": (5,)}, "steps"),
        ({"batch_size": 0}, "batch_size"),
        ({"budgets": ()}, "budgets"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"num_devices": -1}, "num_devices"),
        ({"num_devices": 999}, "num_devices"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make(**settings)


def test_scores_are_the_same_bits_in_batches_of_1_7_and_64():
    space = make_elenas(num_nodes=12)
    keys = jax.random.split(jax.random.key(0), 400)
    edges = np.asarray(jax.jit(jax.vmap(space.sample))(keys).edges)
    distinct = {canonical_hash(ComputationGraph(each)): each for each in edges}
    task = make_tasks()[0]
    programs = construct_batch(
        ComputationGraph(np.stack(list(distinct.values()))),
        in_features=task.in_features,
        out_features=task.out_features,
        hidden_features=WIDTH,
        head="linear",
        time_steps=task.time_steps,
    )
    rows = (np.asarray(programs.status) == OK) & (find_layout(programs) == LAYOUTS.index("row"))
    chosen = np.stack([each for each, is_row in zip(distinct.values(), rows, strict=True) if is_row][:64])
    assert len(chosen) == 64

    def scores(places):
        return make([task], steps=(3,)).evaluate(ComputationGraph(chosen[places]), 0).metrics[:, 0]

    whole = scores(np.arange(64))
    assert len(np.unique(whole)) > 5
    for places in ([63], [5, 60, 2, 33, 0, 18, 47]):
        np.testing.assert_array_equal(scores(places), whole[places])


@pytest.mark.parametrize("executor", ["fused", "interpreted"])
def test_seeds_side_by_side_are_those_one_after_the_other(executor):
    evaluator = make(executor=executor)
    together = evaluate_seeds(evaluator, population(NAMES[:2]), (0, 3))
    for row, replicate in enumerate((0, 3)):
        alone = make(executor=executor).evaluate(population(NAMES[:2]), 0, replicate)
        np.testing.assert_array_equal(together.metrics[row], alone.metrics)
        np.testing.assert_array_equal(together.score[row], alone.score)
    assert (together.metrics[0] != together.metrics[1]).any()
