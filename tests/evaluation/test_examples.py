"""Examples: every epoch in a new order, the same for all candidates; drawn ones as populations get them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.evaluation.examples import Drawn, Stored, batches_of, check_tasks, measure
from elenas_jax.evaluation.executors import SEGMENT_STEPS
from elenas_jax.evaluation.trainer import sample_batches
from elenas_jax.evaluation.training import TRAIN, VALIDATION, data_key
from elenas_jax.tasks import make_sequence_task
from elenas_jax.tasks.records import Scaling, Split
from tests.evaluation.toy_networks import TRAIN as NUM_TRAIN
from tests.evaluation.toy_networks import VALID, make_dataset, make_task

KEY = jax.random.key(3)


def rows_of(examples, replicate, epoch):
    segments = list(examples.segments(replicate, epoch, examples.steps_per_epoch))
    return np.concatenate([segment.rows[: segment.num_steps] for segment in segments])


def test_epochs_go_through_all_examples_and_drop_the_last_part_of_a_batch():
    examples = Stored(make_task(), make_dataset(), KEY, 8)
    assert examples.steps_per_epoch == 6
    first = rows_of(examples, 0, 0)
    assert first.shape == (6, 8) and len(set(first.flat)) == 48 < NUM_TRAIN
    assert first.min() >= 0 and first.max() < NUM_TRAIN
    assert not np.array_equal(first, rows_of(examples, 0, 1))
    assert not np.array_equal(first, rows_of(examples, 1, 0))
    np.testing.assert_array_equal(first, rows_of(Stored(make_task(), make_dataset(), KEY, 8), 0, 0))


def test_long_epochs_come_in_segments():
    dataset = make_dataset()
    examples = Stored(make_task(), dataset, KEY, 1)
    assert [segment.num_steps for segment in examples.segments(0, 0, NUM_TRAIN)] == [NUM_TRAIN]
    many = Split(np.tile(dataset.train.inputs, (2, 1)), np.tile(dataset.train.targets, (2, 1)))
    examples = Stored(make_task(), dataset, KEY, 1, many)
    segments = list(examples.segments(0, 0, 100))
    assert [segment.num_steps for segment in segments] == [SEGMENT_STEPS, 100 - SEGMENT_STEPS]
    assert {segment.rows.shape for segment in segments} == {(SEGMENT_STEPS, 1)}
    assert len({int(row) for s in segments for row in s.rows[: s.num_steps, 0]}) == 100


def test_every_validation_example_counts_once():
    examples = Stored(make_task(), make_dataset(), KEY, 8)
    batches = list(examples.batches(0))
    assert [inputs.shape[0] for inputs, _ in batches] == [8, 8, 8]
    assert [len(targets) for _, targets in batches] == [8, 8, 7]
    valid = make_dataset().valid

    def outputs_of(inputs):
        return jnp.asarray(inputs)[:, :3]

    found = measure(outputs_of, examples.batches(0), lambda outputs, targets: float(outputs.sum()))
    np.testing.assert_allclose(found, valid.inputs[:, :3].sum(), rtol=1e-5)
    assert sum(len(targets) for _, targets in batches_of(valid, VALID)) == VALID


def test_stored_images_are_scaled_on_the_device():
    dataset = make_dataset()
    images = np.arange(NUM_TRAIN * 4, dtype=np.uint8).reshape(NUM_TRAIN, 1, 2, 2)
    scaling = Scaling(np.array([2.0], np.float32), np.array([4.0], np.float32), 1)
    split = Split(images, dataset.train.targets)
    task = make_task()._replace(in_shape=(1, 4, 4))
    examples = Stored(task, dataset._replace(train=split, valid=split, scaling=scaling), KEY, 8)
    segment = next(examples.segments(0, 0, 1))
    assert segment.inputs.dtype == jnp.uint8
    scaled = examples.inputs_of(segment.inputs[:2])
    assert scaled.shape == (2, 1, 4, 4) and float(scaled[1, 0, 1, 1]) == (4 - 2) / 4


def test_drawn_examples_are_those_of_populations():
    task = make_sequence_task("reber", length=10)
    examples = Drawn(task, KEY, 4, 70)
    key = jax.random.fold_in(data_key(KEY, 2), TRAIN)
    segments = list(examples.segments(2, 0, 70))
    assert [segment.num_steps for segment in segments] == [64, 6]
    for first, segment in zip((0, 64), segments):
        inputs, targets = sample_batches(task.sample, 4, task.in_features, key, first)
        np.testing.assert_array_equal(np.asarray(segment.inputs)[segment.rows], inputs)
        np.testing.assert_array_equal(np.asarray(segment.targets)[segment.rows], targets)
    # The next epoch goes on where this one ended.
    inputs, _ = sample_batches(task.sample, 4, task.in_features, key, 70)
    np.testing.assert_array_equal(next(examples.segments(2, 1, 70)).inputs[:4], inputs[0])
    key = jax.random.fold_in(data_key(KEY, 2), VALIDATION)
    batches = list(examples.batches(2))
    assert len(batches) == task.valid_samples // 4
    inputs, targets = sample_batches(task.sample, 4, task.in_features, key, 64)
    np.testing.assert_array_equal(batches[65][0], inputs[1])
    np.testing.assert_array_equal(batches[65][1], targets[1])


def test_what_cannot_be_searched_on():
    task, dataset = make_task(), make_dataset()
    with pytest.raises(ValueError, match="toy_data has 50 training examples; batch_size is 51"):
        Stored(task, dataset, KEY, 51)
    with pytest.raises(ValueError, match="tokens or text"):
        Stored(task, dataset._replace(is_tokens=True), KEY, 8)
    with pytest.raises(ValueError, match=r"inputs \(4,\) and targets \(3,\); the task has \(5,\) and \(3,\)"):
        Stored(task._replace(in_shape=(5,)), dataset, KEY, 8)
    with pytest.raises(ValueError, match="toy_data: perplexity is lower when better"):
        check_tasks([task._replace(metric="perplexity")])
    with pytest.raises(ValueError, match="no tasks"):
        check_tasks([])
