"""Training at one length and measuring at others, against the evaluator."""

import jax
import numpy as np
import pytest

from elenas_jax.evaluation import make_population_evaluator
from elenas_jax.evaluation.cache import MemoryCache
from elenas_jax.evaluation.trainer import stack_graphs
from elenas_jax.evaluation.training import TEST, VALIDATION
from elenas_jax.experiment.longer import LongerTrial, Setting, longer_tasks, measure_all
from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph, from_edges
from elenas_jax.tasks import make_task
from elenas_jax.types import OK

TASK = make_task("adding", length=6, valid_samples=512)
SETTING = Setting(jax.random.key(3), 70, hidden_features=8, batch_size=16, learning_rate=1e-2)
# (x^T A)^T B + x C: A has a row and a column for each time step, so its network fits one length only.
MIXING = [(0, 2, "add"), (2, 2, "transpose"), (2, 4, "matmul"), (1, 4, "matmul"), (4, 4, "transpose")]
MIXING += [
    (4, 6, "matmul"),
    (3, 6, "matmul"),
    (0, 8, "matmul"),
    (5, 8, "matmul"),
    (6, 10, "add"),
    (8, 10, "add"),
]


def make_trial(name, lengths=(6, 12), **changes):
    return LongerTrial(KNOWN_BLOCKS[name], TASK, longer_tasks(TASK, lengths), SETTING, **changes)


@pytest.mark.parametrize("executor", ["fused", "interpreted"])
@pytest.mark.parametrize("name", ["elena2", "linear_attention"])
def test_training_is_that_of_the_evaluator(name, executor):
    evaluator = make_population_evaluator(
        [TASK],
        run_key=SETTING.run_key,
        steps=[SETTING.steps],
        hidden_features=8,
        batch_size=16,
        learning_rate=1e-2,
        num_devices=1,
        executor=executor,
    )
    graphs = ComputationGraph(stack_graphs([KNOWN_BLOCKS[name]]))
    trial = make_trial(name, kind=VALIDATION)
    for replicate in (0, 2):
        expected = evaluator.evaluate(graphs, 0, replicate)
        found = trial.run(replicate)
        # Numbers near the tolerance may fall on either side of it by rounding.
        assert abs(found.accuracies[0] - expected.metrics[0, 0]) <= (0 if executor == "fused" else 2 / 512)
        assert found.parameters == expected.parameters[0] and found.status == OK
        assert 0.0 <= found.accuracies[1] <= 1.0


def test_test_data_are_others_and_lengths_are_what_they_say():
    validation, test = (make_trial("elena1", kind=kind).run(0) for kind in (VALIDATION, TEST))
    assert validation.loss == test.loss and validation.accuracies != test.accuracies
    reber = make_task("reber", negatives="near_miss", length=8, valid_samples=64)
    own, longer = longer_tasks(reber, (8, 20))
    assert own is reber and longer.time_steps == 20 and longer.valid_samples == 64
    assert "near_miss" in longer.variant
    inputs = longer.sample(jax.random.key(0), 64).inputs
    np.testing.assert_array_equal(inputs.sum((1, 2)), 20)


def test_trainings_are_kept_and_can_be_stopped():
    cache = MemoryCache()
    trials = [make_trial("elena1"), make_trial("elman")]
    said = []
    found = measure_all(trials, 2, 1, cache, lambda *one: said.append(one[:2]) or len(said) < 2)
    assert 2 <= len(found) < 4 and len(cache) == len(found)
    rest = measure_all(trials, 2, 1, cache, lambda *one: said.append(one[:2]) or True)
    assert set(rest) == {(0, 0), (0, 1), (1, 0), (1, 1)} and len(said) == len(set(said)) == 4
    assert all(rest[place] == record for place, record in found.items())
    assert rest[0, 0].metrics == trials[0].run(0).accuracies


def test_a_graph_that_is_no_network_is_a_result():
    cycle = from_edges(5, [(0, 2, "matmul"), (1, 2, "matmul"), (2, 4, "add"), (4, 2, "add")])
    found = LongerTrial(cycle, TASK, longer_tasks(TASK, (6, 12)), SETTING).run(0)
    assert found.status > OK and np.isnan(found.accuracies).all()


def test_a_network_of_one_length_is_measured_at_that_length():
    found = LongerTrial(from_edges(11, MIXING), TASK, longer_tasks(TASK, (6, 12)), SETTING).run(0)
    assert found.status == OK and np.isfinite(found.accuracies[0]) and np.isnan(found.accuracies[1])
