"""Training of one network: against a plain loop in NumPy, and what happens when something goes wrong."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenas_jax.evaluation import network_training, parallel
from elenas_jax.evaluation.examples import Stored
from elenas_jax.evaluation.network_training import compile_network, fit, measure_network
from elenas_jax.evaluation.recipes import Course, Recipe, learning_rates
from elenas_jax.experiment.checkpoint import Checkpoints
from elenas_jax.types import DIVERGED, OK, TIMED_OUT
from tests.evaluation.toy_networks import FLAWS, build, make_dataset, make_task

RECIPE = Recipe(learning_rate=0.2, weight_decay=0.01, batch_size=16, epochs=4)
COURSE = Course(4, 3)
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def examples():
    return Stored(make_task(), make_dataset(), jax.random.key(0), RECIPE.batch_size)


def compiled(examples, flaw="none", width=2, depth=1, recipe=RECIPE):
    network = build(np.array([width, depth, FLAWS.index(flaw)]), make_task())
    return compile_network(network, examples, recipe)


def test_as_a_plain_loop_in_numpy(examples):
    """A linear softmax classifier with momentum, coupled decay, the cosine, and part of a batch dropped."""
    program = compiled(examples, depth=0)
    fitted = fit(program, examples, RECIPE, COURSE, KEY, 0)
    data = make_dataset()
    (layer,) = program.init(KEY).params["layers"]
    params = {name: np.asarray(value, np.float64) for name, value in layer.items()}
    velocity = {name: np.zeros_like(value) for name, value in params.items()}
    for epoch, rate in enumerate(learning_rates(RECIPE, 4)):
        (segment,) = examples.segments(0, epoch, 3)
        for rows in segment.rows[:3]:
            x, y = data.train.inputs[rows], data.train.targets[rows]
            logits = x @ params["w"] + params["b"]
            share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
            error = (share - y) / len(x)
            for name, gradient in (("w", x.T @ error), ("b", error.sum(axis=0))):
                gradient = gradient + 0.01 * params[name]
                velocity[name] = 0.9 * velocity[name] + gradient
                params[name] = params[name] - rate * velocity[name]
    assert fitted.status == OK and fitted.steps == 12
    for name, value in params.items():
        np.testing.assert_allclose(fitted.state.params["layers"][0][name], value, rtol=2e-4, atol=1e-5)
    logits = data.valid.inputs @ params["w"] + params["b"]
    right = np.mean(logits.argmax(axis=1) == data.valid.targets.argmax(axis=1))
    assert measure_network(program, fitted.state, examples, 0) == pytest.approx(right)
    assert right > 0.6 and int(fitted.state.network["steps"]) == 12


@pytest.mark.parametrize("flaw", ["none", "convolves", "diverges late"])
def test_a_training_goes_on_from_any_epoch_to_the_same_bits(examples, flaw, tmp_path):
    program, states = compiled(examples, flaw), {}
    whole = fit(program, examples, RECIPE, COURSE, KEY, 1, on_epoch=states.__setitem__)
    assert list(states) == ([1, 2] if flaw == "diverges late" else [1, 2, 3, 4])
    with contextlib.closing(Checkpoints(tmp_path / "kept")) as checkpoints:
        for epoch, state in states.items():
            checkpoints.save(epoch, state)
            begun = (epoch, checkpoints.restore(epoch, program.init(KEY)))
            again = fit(program, examples, RECIPE, COURSE, KEY, 1, begun=begun)
            assert (again.status, again.steps) == (whole.status, whole.steps)
            jax.tree.map(np.testing.assert_array_equal, again.state, whole.state)


def test_the_same_training_twice_is_the_same_to_the_bit(examples):
    program, again = compiled(examples), compiled(examples)
    one, other = (fit(each, examples, RECIPE, COURSE, KEY, 0) for each in (program, again))
    jax.tree.map(np.testing.assert_array_equal, one.state, other.state)
    elsewhere = fit(program, examples, RECIPE, COURSE, KEY, 1)  # another order of examples
    assert not np.array_equal(one.state.params["layers"][0]["w"], elsewhere.state.params["layers"][0]["w"])


def test_counts(examples):
    program = compiled(examples, width=5, depth=1)
    assert program.parameters == 4 * 5 + 5 + 5 * 3 + 3
    assert program.flops == 2 * (4 * 5 + 5 * 3)
    assert program.memory > 0 and program.seconds > 0


def test_step_by_step_is_the_same_training_as_in_a_loop(examples, monkeypatch):
    stepped = fit(compiled(examples, "convolves"), examples, RECIPE, COURSE, KEY, 0)
    monkeypatch.setattr(network_training, "has_convolution", lambda jaxpr: False)
    looped = fit(compiled(examples, "convolves"), examples, RECIPE, COURSE, KEY, 0)
    assert int(stepped.state.step) == int(looped.state.step) == 12
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), stepped.state, looped.state)


def test_what_is_called_step_by_step(examples, monkeypatch):
    calls = []
    real = parallel.compile_on

    def compile_on(device, traced, options):
        calls.append(traced.fun_name)
        return real(device, traced, options)

    monkeypatch.setattr(parallel, "compile_on", compile_on)
    compiled(examples)
    compiled(examples, "convolves")
    assert calls[::2] == ["individual_segment", "individual_step"]


@pytest.mark.parametrize("convolves", (False, True))
def test_a_loss_that_is_not_finite_ends_a_training(examples, monkeypatch, convolves):
    monkeypatch.setattr(network_training, "has_convolution", lambda jaxpr: convolves)
    fitted = fit(compiled(examples, "diverges"), examples, RECIPE, COURSE, KEY, 0)
    assert (fitted.state, fitted.status, fitted.steps) == (None, DIVERGED, 1)
    fitted = fit(compiled(examples, "diverges late"), examples, RECIPE, COURSE, KEY, 0)
    # Two epochs of three steps were finished.
    assert fitted.status == OK and fitted.steps == 8 and int(fitted.state.step) == 6
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(fitted.state.params))


def test_patience(examples, monkeypatch):
    metrics = iter([0.5, 0.6, 0.6, 0.4, 0.9])
    monkeypatch.setattr(network_training, "measure_network", lambda *arguments: next(metrics))
    recipe = RECIPE._replace(patience=2)
    fitted = fit(compiled(examples), examples, recipe, Course(9, 3), KEY, 0)
    assert fitted.steps == 4 * 3 and int(fitted.state.step) == 12  # the last epoch counts, not the best
    assert next(metrics) == 0.9
    with pytest.raises(ValueError, match="patience is 2; only trainings without it"):
        fit(compiled(examples), examples, recipe, Course(9, 3), KEY, 0, begun=(1, fitted.state))


def test_time_runs_out(examples):
    fitted = fit(compiled(examples), examples, RECIPE, COURSE, KEY, 0, seconds=0.0)
    assert fitted.status == TIMED_OUT and fitted.steps == 3


def test_outputs_of_another_size(examples):
    with pytest.raises(ValueError, match=r"outputs are \(4,\), the targets \(3,\)"):
        compiled(examples, "wrong outputs")


def test_outputs_may_have_another_shape(examples):
    """A dense prediction is as many numbers as its targets."""
    network = build(np.array([2, 1, 0]), make_task())

    def apply(params, state, inputs, **options):
        outputs, state = network.apply(params, state, inputs, **options)
        return outputs[:, None, :], state

    program = compile_network(network._replace(apply=apply), examples, RECIPE)
    fitted = fit(program, examples, RECIPE, COURSE, KEY, 0)
    same = compiled(examples)
    expected = measure_network(same, fit(same, examples, RECIPE, COURSE, KEY, 0).state, examples, 0)
    assert measure_network(program, fitted.state, examples, 0) == expected > 0.5
