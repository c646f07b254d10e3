"""Training on data sets: what a step takes, losses, learning, and the same bits again."""

import jax
import numpy as np
import pytest

from elenas_jax.evaluation import retraining
from elenas_jax.evaluation.retraining import (
    SEGMENT_STEPS,
    Course,
    Recipe,
    batch_of,
    interface_of,
    learning_rates,
    loss_fn,
    make_trainer,
    streams_of,
)
from elenas_jax.evaluation.stacked import Stacking, make_stack
from elenas_jax.graphs import KNOWN_BLOCKS
from elenas_jax.tasks.records import Dataset, Split

VOCABULARY = 7


def no_test():
    raise AssertionError("test data were touched")


def classes(num=96, steps=6, seed=0):
    """The class is the first token: a block has to remember it."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(1, VOCABULARY, (num, steps)).astype(np.int32)
    tokens[:, 0] = rng.integers(1, 3, num)
    return Split(tokens, np.eye(2, dtype=np.float32)[tokens[:, 0] - 1])


def labelled() -> Dataset:
    return Dataset(
        "toy",
        True,
        VOCABULARY,
        2,
        6,
        "categorical",
        "accuracy",
        classes(),
        classes(40, seed=1),
        no_test,
        (),
        "",
    )


def text() -> Dataset:
    words = np.tile(np.arange(5, dtype=np.int32), 200)
    return Dataset("text", True, 5, 5, None, "language", "perplexity", words, words[:400], no_test, (), "")


def trainer_of(dataset, recipe, block="gru", width=16):
    network = make_stack(KNOWN_BLOCKS[block], Stacking(1, width), interface_of(dataset, recipe.bptt))
    return make_trainer(network, dataset, recipe)


def trained(trainer, course, first=0, state=None):
    state = trainer.init(course.seed) if state is None else state
    for taken in range(first, course.steps, SEGMENT_STEPS):
        state = trainer.advance(state, course, taken)
    return state


def test_training_learns_repeats_and_goes_on():
    dataset, course = labelled(), Course(3, 6 * SEGMENT_STEPS, 1e-2)
    trainer = trainer_of(dataset, Recipe(batch_size=32))
    before = trainer.measure(trainer.init(3).params, dataset.valid)
    state = trained(trainer, course)
    assert before < 0.8 < 0.95 < trainer.measure(state.params, dataset.valid)
    assert float(state.loss) < 0.2
    again = trained(trainer, course)
    part = trainer.init(3)
    for taken in range(0, 3 * SEGMENT_STEPS, SEGMENT_STEPS):
        part = trainer.advance(part, course, taken)
    on_disk = jax.tree.map(np.asarray, part)  # what a checkpoint holds
    resumed = trained(trainer, course, 3 * SEGMENT_STEPS, on_disk)
    for other in (again, resumed):
        jax.tree.map(np.testing.assert_array_equal, state, other)
    different = trained(trainer, course._replace(seed=4))
    assert np.any(np.asarray(different.params["output"]["kernel"]) != state.params["output"]["kernel"])


def test_text_is_learnt_and_its_state_is_carried():
    dataset, course = text(), Course(0, 6 * SEGMENT_STEPS, 2e-2)
    trainer = trainer_of(dataset, Recipe(batch_size=4, bptt=8))
    state = trainer.init(0)
    assert 4 < trainer.measure(state.params, dataset.valid) < 7  # about as many as there are words
    assert all(np.all(np.asarray(leaf) == 0) for leaf in jax.tree.leaves(state.carry))
    state = trained(trainer, course, state=state)
    assert trainer.measure(state.params, dataset.valid) < 1.2
    assert any(np.any(np.asarray(leaf) != 0) for leaf in jax.tree.leaves(state.carry))


def test_pieces_may_start_anew():
    dataset, course = text(), Course(0, 2 * SEGMENT_STEPS, 2e-2)
    anew = trainer_of(dataset, Recipe(batch_size=4, bptt=8, carry=False))
    state = trained(anew, course)
    # As if the streams were cut into pieces of their own.
    carried = trainer_of(dataset, Recipe(batch_size=4, bptt=8))
    assert float(trained(carried, course).loss) != float(state.loss)
    words = np.asarray(dataset.valid)[: 16 * 8 + 1]  # streams of one piece have nothing to go on from
    np.testing.assert_allclose(anew.measure(state.params, words), carried.measure(state.params, words))
    longer = dataset.valid
    assert anew.measure(state.params, longer) != carried.measure(state.params, longer)


def test_a_step_keeps_all_types():
    """What changes its type in the first step is compiled for twice."""
    for dataset, recipe in ((labelled(), Recipe()), (text(), Recipe(4, bptt=8))):
        trainer = trainer_of(dataset, recipe)
        before = trainer.init(0)
        after = trainer.advance(before, Course(0, SEGMENT_STEPS, 1e-2), 0)
        assert jax.tree.map(jax.typeof, before) == jax.tree.map(jax.typeof, after)


def test_measuring_does_not_depend_on_how_many_are_measured_at_once(monkeypatch):
    dataset = labelled()
    trainer = trainer_of(dataset, Recipe())
    params = trainer.init(0).params
    whole = trainer.measure(params, dataset.valid)
    monkeypatch.setattr(retraining, "EVAL_BATCH", 7)
    assert trainer.measure(params, dataset.valid) == whole


def test_better_knows_the_metric_and_nan():
    up, down = trainer_of(labelled(), Recipe()).is_better, trainer_of(text(), Recipe(4, bptt=8)).is_better
    assert up(0.6, 0.5) and not up(0.5, 0.6) and down(90.0, 100.0) and not down(100.0, 90.0)
    assert up(0.1, float("nan")) and not up(float("nan"), 0.1)


def test_an_epoch_takes_every_example_once():
    epochs = [[batch_of(0, 3 * e + s, 100, 33, 3) for s in range(3)] for e in range(2)]
    for epoch in epochs:
        taken = np.concatenate(epoch)
        assert len(set(taken.tolist())) == 99
    assert np.any(np.concatenate(epochs[0]) != np.concatenate(epochs[1]))
    assert sorted(set(batch_of(0, 5, 3, 8, 1).tolist())) == [0, 1, 2]  # fewer examples than a batch


def test_streams_go_on_where_others_end():
    streams = streams_of(np.arange(100), 3, 4)
    assert streams.shape == (3, 33)
    np.testing.assert_array_equal(streams[:, -1][:-1], streams[1:, 0])
    np.testing.assert_array_equal(streams[1], np.arange(32, 65))
    assert (
        retraining.eval_streams(np.arange(100), 4) == 16 and retraining.eval_streams(np.arange(100), 40) == 2
    )
    assert retraining.eval_streams(np.arange(3), 4) == 1
    with pytest.raises(ValueError, match="The text has 12 words; 3 streams of pieces of 4 need 13"):
        streams_of(np.arange(12), 3, 4)


def test_labels_that_were_not_measured_do_not_count():
    outputs = np.array([[0.5, -1.0], [2.0, 0.3]], np.float32)
    targets = np.array([[1.0, np.nan], [0.0, 1.0]], np.float32)
    expected = np.mean([np.log1p(np.exp(-0.5)), np.log1p(np.exp(2.0)), np.log1p(np.exp(-0.3))])
    np.testing.assert_allclose(loss_fn("binary", outputs, targets), expected, rtol=1e-6)
    nothing = jax.grad(lambda x: loss_fn("binary", x, np.full((2, 2), np.nan, np.float32)))(outputs)
    assert np.all(np.asarray(nothing) == 0)


def test_learning_rates_rise_and_fall():
    rates = learning_rates(Course(0, 200, 0.5), np.arange(200))
    assert np.argmax(rates) in (9, 10) and np.isclose(rates.max(), 0.5, rtol=0.01)
    assert rates[0] == pytest.approx(0.05) and rates[-1] < 1e-3 and np.all(np.diff(rates[11:]) <= 0)
