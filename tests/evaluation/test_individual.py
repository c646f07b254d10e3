"""The evaluator of networks of different shapes: records, cache, failures, agreement with populations."""

import jax
import numpy as np
import pytest

from elenas_jax.evaluation import MemoryCache, make_population_evaluator
from elenas_jax.evaluation.individual import make_individual_evaluator
from elenas_jax.evaluation.individual_trainer import IndividualTrainer, Job
from elenas_jax.evaluation.recipes import Recipe
from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph
from elenas_jax.spaces import make_elenas
from elenas_jax.tasks import make_sequence_task
from elenas_jax.types import CRASHED, DIVERGED, NOT_EVALUATED, OK, OUT_OF_MEMORY, TIMED_OUT
from tests.evaluation import toy_networks as toy

RECIPE = Recipe(learning_rate=0.1, batch_size=16, epochs=3)
SPACE = toy.make_toy_networks()


def make(
    cache=None, tasks=None, budgets=(1.0,), memory=toy.ROOMY, max_seconds=0.0, recipe=RECIPE, **settings
):
    trainer = IndividualTrainer(
        SPACE.build,
        tasks or [toy.make_task()],
        run_key=jax.random.key(0),
        recipe=recipe,
        steps=[None] * len(tasks or [0]),
        budgets=budgets,
        memory=memory,
        max_seconds=max_seconds,
    )
    return make_individual_evaluator(
        SPACE, trainer, settings=settings, memory=memory, max_seconds=max_seconds, cache=cache
    )


def flawed(*names):
    return np.array([[3, 1, toy.FLAWS.index(name)] for name in names], np.int32)


def test_records():
    cache, chunks = MemoryCache(), []
    evaluator = make(cache)
    # Two widths, the first again, two that are one network, an invalid one, padding.
    candidates = np.array(
        [[2, 1, 0], [5, 2, 0], [2, 1, 0], [3, 0, 0], [4, 0, 0], [9, 4, 0], [1, 1, 0]], np.int32
    )
    asked = np.arange(7) < 6
    found = evaluator.evaluate(
        candidates, np.zeros(7), 0, valid_candidates=asked, on_chunk=lambda *all: chunks.append(all)
    )
    assert found.status.tolist() == [OK, OK, OK, OK, OK, 1, NOT_EVALUATED]
    assert chunks == [(1, 3), (2, 3), (3, 3)] and len(cache) == 3
    assert found.parameters.tolist()[:4] == [4 * 2 + 2 + 2 * 3 + 3, 4 * 5 + 5 + 30 + 5 * 3 + 3, 19, 15]
    assert found.flops.tolist()[:2] == [2 * 14, 2 * (20 + 25 + 15)]
    assert found.train_steps.tolist() == [9] * 5 + [0, 0]
    metric = found.metrics[:5, 0]
    np.testing.assert_allclose(found.score[:5], np.exp(metric) - np.exp(1 / 3), rtol=1e-6)
    assert (metric > 0.5).all() and np.isnan(found.metrics[5:]).all()
    for leaf in found:
        np.testing.assert_array_equal(leaf[0], leaf[2])
        np.testing.assert_array_equal(leaf[3], leaf[4])
    seconds = evaluator.seconds()
    assert seconds["compiling"] > 0 and seconds["training"] > 0 and seconds["waiting"] >= 0
    again = evaluator.evaluate(candidates, 0, on_chunk=lambda *all: chunks.append(all))
    assert len(chunks) == 4  # the padding, which was real this time
    assert again.score[:6].tolist() == found.score[:6].tolist()


def test_a_score_does_not_depend_on_company_order_or_replicates_of_others():
    candidates = np.array([[2, 1, 0], [5, 2, 0]], np.int32)
    together = make().evaluate(candidates, 0)
    alone = make().evaluate(candidates[::-1][:1], 0)
    assert alone.score[0] == together.score[1]
    evaluator = make()
    one, other = evaluator.evaluate(candidates, 0, 1), evaluator.evaluate(candidates, 0, 0)
    assert other.score.tolist() == together.score.tolist() != one.score.tolist()


def test_cache_keys_hold_all_that_scores_depend_on():
    keys = [
        make(**changes).cache_key(b"x", 0, 0)
        for changes in (
            {},
            {"recipe": RECIPE._replace(epochs=4)},
            {"recipe": RECIPE._replace(weight_decay=0.0)},
            {"tasks": [toy.make_task()._replace(variant="other data")]},
            {"budgets": (1.0, 2.0)},
            {"memory": 1},
            {"max_seconds": 1.0},
            {"space": {"name": "another"}},
        )
    ]
    evaluator = make()
    keys += [
        evaluator.cache_key(b"y", 0, 0),
        evaluator.cache_key(b"x", 1, 0),
        evaluator.cache_key(b"x", 0, 1),
    ]
    assert len(set(keys)) == len(keys)
    assert make().cache_key(b"x", 0, 0) == keys[0]


def test_budgets():
    evaluator = make(budgets=(1 / 3, 1.0))
    found = evaluator.evaluate(np.array([[2, 1, 0]] * 2, np.int32), np.array([0, 1]))
    assert found.train_steps.tolist() == [3, 9]
    with pytest.raises(ValueError, match="budget holds 0 to 2; allowed are 0 to 1"):
        evaluator.evaluate(np.array([[2, 1, 0]] * 2, np.int32), np.array([0, 2]))


def test_failing_is_a_result(caplog):
    cache = MemoryCache()
    names = ("cannot be built", "diverges", "diverges late", "none", "wrong outputs")
    found = make(cache).evaluate(flawed(*names), 0)
    assert found.status.tolist() == [CRASHED, DIVERGED, OK, OK, CRASHED]
    assert found.score[[0, 1, 4]].tolist() == [0.0] * 3 and found.score[3] > 0
    assert found.train_steps.tolist() == [0, 1, 8, 9, 0]
    assert len(cache) == 5 and "no such network" in caplog.text
    tight = make(memory=1000).evaluate(flawed("none"), 0)
    assert tight.status.tolist() == [OUT_OF_MEMORY] and tight.parameters.tolist() == [3 * 5 + 4 * 3]
    assert tight.train_steps.tolist() == [0]
    late = make(max_seconds=1e-9).evaluate(flawed("none"), 0)
    assert late.status.tolist() == [TIMED_OUT] and late.score.tolist() == [0.0]


def test_a_ladder_ends_at_the_first_threshold_that_is_missed():
    easy, hard = toy.make_task(threshold=0.0), toy.make_task(threshold=2.0)._replace(name="again")
    found = make(tasks=[easy, hard, easy]).evaluate(flawed("none"), 0)
    assert found.metrics[0, 0] == found.metrics[0, 1] and np.isnan(found.metrics[0, 2])
    assert found.train_steps.tolist() == [18]
    np.testing.assert_allclose(found.score, 2 * (np.exp(found.metrics[0, 0]) - np.exp(1 / 3)), rtol=1e-6)


def test_a_stop_keeps_what_was_trained():
    cache, evaluator = MemoryCache(), None
    evaluator = make(cache)

    def stop(done, total):
        if done == 2:
            raise KeyboardInterrupt

    candidates = np.array([[width, 1, 0] for width in (1, 2, 3, 4)], np.int32)
    with pytest.raises(KeyboardInterrupt):
        evaluator.evaluate(candidates, 0, on_chunk=stop)
    assert len(cache) == 2
    assert evaluator.evaluate(candidates, 0).status.tolist() == [OK] * 4
    assert len(cache) == 4


def test_programs_are_compiled_once_for_replicates_and_budgets():
    trainer = IndividualTrainer(
        SPACE.build,
        [toy.make_task()],
        run_key=jax.random.key(0),
        recipe=RECIPE,
        steps=[None],
        budgets=(0.5, 1.0),
    )
    job = Job(np.array([2, 1, 0]), "00" * 16, 0, 0)
    first = trainer.train(job)
    assert first.compiling > 0
    for other in (job._replace(budget=1), job._replace(replicate=1)):
        assert trainer.train(other).compiling == 0.0
    # What was announced and never asked for does not pile up.
    for number in range(5):
        trainer.prepare(Job(np.array([1 + number, 1, 0]), f"{number:032x}", 0, 0))
    assert len(trainer._prepared) <= 2
    ahead = trainer.train(Job(np.array([5, 1, 0]), f"{4:032x}", 0, 0))
    assert ahead.record.status == OK and ahead.compiling > 0


def test_as_populations_on_elenas():
    """The same weights, the same data: scores agree to rounding, counts exactly."""
    block = KNOWN_BLOCKS["elman"]
    space = make_elenas(num_nodes=block.num_nodes, hidden_features=8, signatures=((7, 1, 10),))
    task = make_sequence_task("reber", length=10, valid_samples=128)
    settings = {"run_key": jax.random.key(1), "budgets": (0.5, 1.0), "steps": [130]}
    population = make_population_evaluator(
        [task], **settings, hidden_features=8, batch_size=16, learning_rate=3e-3, executor="fused"
    )
    recipe = Recipe("adam", 3e-3, weight_decay=0.0, schedule="constant", batch_size=16, epochs=1)
    trainer = IndividualTrainer(space.build, [task], recipe=recipe, **settings)
    individual = make_individual_evaluator(space, trainer, settings={}, memory=toy.ROOMY)
    candidates = ComputationGraph(np.asarray(block.edges)[None])
    ours, theirs = individual.evaluate(candidates, 0), population.evaluate(candidates, 0)
    for name in ("status", "parameters", "train_steps", "flops"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    assert ours.status.tolist() == [OK] and ours.train_steps.tolist() == [65]
    assert theirs.metrics[0, 0] > 0.6
    np.testing.assert_allclose(ours.metrics, theirs.metrics, atol=1 / 128)  # an example on the other side


MISTAKES = {
    "few validation samples": (
        {"tasks": [make_sequence_task("reber", valid_samples=64)]},
        "valid_samples of reber is 64; batch_size is 100",
    ),
    "a recipe": ({"recipe": RECIPE._replace(epochs=0)}, "epochs is 0"),
    "no tasks": ({"tasks": ()}, "no tasks"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_settings_out_of_range(name):
    changes, words = MISTAKES[name]
    recipe = RECIPE._replace(batch_size=100)
    settings = {"run_key": jax.random.key(0), "recipe": recipe, "steps": [10], "budgets": (1.0,)}
    with pytest.raises(ValueError, match=words):
        IndividualTrainer(SPACE.build, **({"tasks": [toy.make_task()]} | settings | changes))
