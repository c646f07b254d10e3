import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.experiment.space_check import Built, check_space, output_shape, shape_task
from elenas_jax.types import Network, SearchSpace

SHAPE = (2, 3)
REASONS = ("valid", "too wide")
TASKS = (shape_task(SHAPE, 5, as_sequence=False),)


def network(width, outputs=5):
    """A linear map by way of `width` features."""

    def init(key):
        del key
        return {"in": jnp.zeros((3, width)), "out": jnp.zeros((width, outputs))}, {}

    def apply(params, state, inputs, *, train=False, key=None):
        del train, key
        return jnp.mean(inputs, axis=1) @ params["in"] @ params["out"], state

    return Network(init, apply)


def toy(**changes) -> SearchSpace:
    """A space of widths from 1 to 9, of which 9 is invalid and never drawn."""
    space = SearchSpace(
        name="toy",
        reasons=REASONS,
        sample=lambda key: jax.random.randint(key, (), 1, 9),
        mutate=lambda key, candidate: candidate % 8 + 1,
        crossover=lambda key, candidate, other: other,
        status=lambda candidate: jnp.where(candidate < 9, 0, 1),
        canonical=lambda candidate: bytes([int(candidate)]),
        to_graph=lambda candidate: None,
        build=lambda candidate, task: network(int(candidate), task.out_features),
        describe=lambda candidate: f"width {candidate}",
        drawing=lambda candidate: {},
        to_json=int,
        from_json=np.int32,
        known=lambda key: 1,
        growth=None,
    )
    return space._replace(**changes)


def failures(space, infer=None, num=30):
    found = list(check_space(space, TASKS, jax.random.key(0), num, infer))
    assert len(found) == num
    return [failure for each in found for failure in each]


def inferred(width):
    return Built(network(int(width)), (5,), 8 * int(width))


def test_a_space_that_keeps_its_promises():
    assert failures(toy()) == []
    assert failures(toy(), inferred) == []


@pytest.mark.parametrize(
    ("changes", "what", "detail"),
    [
        (dict(sample=lambda key: jnp.int32(9)), "sample not valid", "invalid: too wide"),
        (dict(mutate=lambda key, candidate: jnp.int32(9)), "mutation not valid", "invalid: too wide"),
        (dict(mutate=lambda key, candidate: candidate), "mutation changes nothing", "width "),
        (dict(from_json=lambda data: 1), "sample not the same after JSON", ""),
        (
            dict(build=lambda candidate, task: network(2, 4)),
            "sample has other outputs than its task",
            "(4,) for 5 on widths",
        ),
        (
            dict(build=lambda candidate, task: network(2)._replace(apply=lambda *_: 1 / 0)),
            "sample cannot be built",
            "ZeroDivisionError: division by zero",
        ),
    ],
)
def test_broken_promises_are_found(changes, what, detail):
    found = failures(toy(**changes))
    assert what in {failure.what for failure in found}
    assert all(failure.detail.startswith(detail) for failure in found if failure.what == what)
    assert found[0].number == 0


def test_other_shapes_and_parameters_than_inferred_are_found():
    found = failures(toy(), lambda width: inferred(width)._replace(shape=(6,)))
    assert {failure.what for failure in found} >= {"sample has another shape than inferred"}
    assert found[0].detail == "(5,), not (6,)"
    found = failures(toy(), lambda width: inferred(width)._replace(parameters=1))
    assert found[0].what == "sample has other parameters than inferred"
    assert len(found) == 8, "one for each different network, samples and mutations"


def test_samples_are_those_of_the_key():
    def numbers(seed):
        space = toy(status=lambda candidate: jnp.where(candidate % 2, 1, 0))
        found = check_space(space, TASKS, jax.random.key(seed), 20)
        return [each[0].number for each in found if each and each[0].what == "sample not valid"]

    assert numbers(0) == numbers(0) != numbers(1)


def test_shapes_are_traced_without_running():
    def apply(params, state, inputs, *, train=False, key=None):
        assert isinstance(inputs, jax.core.Tracer)
        return jnp.zeros((inputs.shape[0], 7, 4)), state

    huge = Network(lambda key: ({"kernel": jnp.zeros((10**6, 10**6))}, {}), apply)
    assert output_shape(huge, (3, 10**6)) == ((7, 4), 10**12)
    with pytest.raises(ValueError, match="for 2 examples"):
        output_shape(huge._replace(apply=lambda *_: (jnp.zeros(4), {})), SHAPE)


def test_tasks_of_widths_have_nothing_to_train_on():
    task = shape_task((32, 7), 1, as_sequence=True)
    assert (task.in_shape, task.in_features, task.time_steps, task.out_features) == ((32, 7), 7, 32, 1)
    with pytest.raises(ValueError, match="nothing to train on"):
        task.sample(jax.random.key(0), 1)
    with pytest.raises(ValueError, match="nothing to train on"):
        TASKS[0].load()


def test_starts_stand_in_for_samples():
    space = toy(
        sample=lambda key: 1 / 0,
        mutate=lambda key, candidate: jnp.where(candidate == 3, candidate, 2),
        starts=np.array([4, 3], np.int32),
    )
    found = list(check_space(space, TASKS, jax.random.key(0), 4, starts=True))
    assert [[failure.what for failure in each] for each in found] == 2 * [[], ["mutation changes nothing"]]
    with pytest.raises(ValueError, match="without starts"):
        next(check_space(toy(), TASKS, jax.random.key(0), 4, starts=True))
