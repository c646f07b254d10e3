"""The executors against each other, and which takes what."""

import json
import os
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from elenas_jax.evaluation import batched, fused, interpreted, make_population_evaluator, parallel, together
from elenas_jax.evaluation.executors import (
    FUSED_STEPS,
    SEGMENT_STEPS,
    Outcome,
    Setting,
    Trials,
    choose_executor,
)
from elenas_jax.evaluation.together import train_together
from elenas_jax.evaluation.trainer import stack_graphs
from elenas_jax.evaluation.training import TRAIN
from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph, from_edges
from elenas_jax.graphs.constructor import construct_batch
from elenas_jax.graphs.program import LAYOUTS, find_layout
from elenas_jax.tasks import make_task
from elenas_jax.types import CRASHED, OK, OUT_OF_MEMORY

WIDTH, BATCH, LENGTH, STEPS = 8, 8, 10, 12
GROUPS = {"row": ("elman", "elena1", "elena2", "mgu"), "sequence": ("linear_attention",)}


def make_setting(devices=1, memory=2**40):
    task = make_task("reber", length=LENGTH, valid_samples=2 * BATCH)
    return Setting(task, BATCH, 1e-2, task.in_features, WIDTH, devices, 8, memory)


def construct_graphs(graphs):
    task = make_setting().task
    program = jax.device_get(
        construct_batch(
            ComputationGraph(stack_graphs(graphs)),
            in_features=task.in_features,
            out_features=task.out_features,
            hidden_features=WIDTH,
            head="linear",
            time_steps=LENGTH,
        )
    )
    assert (program.status == OK).all()
    return program


def make_trials(names, steps=STEPS):
    program = construct_graphs([KNOWN_BLOCKS[name] for name in names])
    keys = jax.vmap(lambda c: jax.random.fold_in(jax.random.key(5), c))(np.arange(len(names)))
    return Trials(
        program, np.asarray(jax.random.key_data(keys)), np.full(len(names), steps), np.zeros(len(names), int)
    )


def batches(replicate, kind, first):
    rng = np.random.default_rng((kind, first, replicate))
    task = make_setting().task
    inputs = rng.normal(size=(SEGMENT_STEPS, BATCH, LENGTH, task.in_features)).astype(np.float32)
    return inputs, (inputs[:, :, -2, :1] > 0).astype(np.float32)


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize("layout", GROUPS)
def test_executors_agree(layout, level):
    trials = make_trials(GROUPS[layout], steps=SEGMENT_STEPS + 6)
    assert {LAYOUTS[index] for index in find_layout(trials.program)} == {layout}
    slow = interpreted.train(trials, make_setting(), batches)
    fast = fused.train(trials, make_setting(), batches, level=level)
    assert slow.finite.all() and fast.finite.all()
    np.testing.assert_allclose(slow.losses, fast.losses, rtol=1e-4)
    np.testing.assert_allclose(slow.metrics, fast.metrics, atol=1 / (2 * BATCH) + 1e-9)
    assert len(np.unique(fast.losses)) == len(trials.steps)
    first = fused.train(trials._replace(steps=trials.steps * 0 + 1), make_setting(), batches)
    if layout == "row":  # the Elman network; not every block learns in so few steps
        assert fast.losses[0] < 0.7 * first.losses[0]
    assert (fast.losses != first.losses).all()


def test_a_candidate_stops_at_its_own_steps_and_at_a_loss_that_is_not_finite():
    trials = make_trials(("elman", "elman"))._replace(steps=np.array([3, 7]))

    def poisoned(replicate, kind, first):
        inputs, targets = batches(replicate, kind, first)
        inputs[5:] = np.inf if kind == TRAIN else inputs[5:]
        return inputs, targets

    for executor in (interpreted, fused):
        outcome = executor.train(trials, make_setting(), poisoned)
        assert outcome.finite.tolist() == [True, False]
        assert np.isfinite(outcome.metrics).tolist() == [True, False]


def test_another_seed_of_a_candidate_compiles_nothing(monkeypatch):
    fused.forget_compiled()
    compiled = []
    original = fused._compile
    monkeypatch.setattr(fused, "_compile", lambda *args: compiled.append(1) or original(*args))
    trials = make_trials(("elman", "elena2"))
    first = fused.train(trials, make_setting(), batches)
    other = fused.train(trials._replace(weights=trials.weights + 1), make_setting(), batches)
    again = fused.train(trials, make_setting(), batches)
    assert len(compiled) == 2
    assert (first.losses != other.losses).all()
    np.testing.assert_array_equal(first.losses, again.losses)


def test_candidates_are_compiled_while_the_caller_does_other_work():
    fused.forget_compiled()
    trials = make_trials(("elman", "elena2"))
    with fused.compiling(trials, make_setting(), batches) as finish:
        deadline = time.monotonic() + 120
        while not all(future.done() for future in fused._COMPILATIONS.futures.values()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        outcome = finish()
    assert len(fused._COMPILATIONS.futures) == 2
    np.testing.assert_array_equal(outcome.losses, fused.train(trials, make_setting(), batches).losses)


def test_what_was_not_compiled_when_the_caller_failed_is_forgotten():
    fused.forget_compiled()
    trials = make_trials(("elman", "elena2"))
    with pytest.raises(KeyboardInterrupt), fused.compiling(trials, make_setting(), batches):
        raise KeyboardInterrupt
    assert not any(future.cancelled() for future in fused._COMPILATIONS.futures.values())
    assert np.isfinite(fused.train(trials, make_setting(), batches).losses).all()


def test_parts_of_two_executors_train_together_as_each_does_alone():
    trials = make_trials(("elman", "elena2"))
    parts = [("fused", trials), ("interpreted", trials), ("fused", make_trials(("elena1",)))]
    found = train_together(parts, make_setting(), batches)
    for (name, own), outcome in zip(parts, found, strict=True):
        alone = {"fused": fused, "interpreted": interpreted}[name].train(own, make_setting(), batches)
        np.testing.assert_array_equal(outcome.losses, alone.losses)
        np.testing.assert_array_equal(outcome.metrics, alone.metrics)


def test_what_is_fused_is_compiled_while_others_train(monkeypatch):
    fused.forget_compiled()
    has_begun = threading.Event()
    original = fused._compile
    monkeypatch.setattr(fused, "_compile", lambda *args: has_begun.set() or original(*args))

    def wait(trials, *_):
        assert has_begun.wait(60)
        zeros = np.zeros(len(trials.steps))
        return Outcome(zeros, zeros == 0, zeros, 0.0, {})

    monkeypatch.setitem(together.TRAIN_WITH, "interpreted", wait)
    parts = [("interpreted", make_trials(("elman",))), ("fused", make_trials(("elena2",)))]
    first, second = train_together(parts, make_setting(), batches)
    assert not first.errors and not second.errors and second.losses[0] > 0


@pytest.mark.parametrize("broken", ["interpreted", "fused"])
def test_a_part_that_fails_is_tried_one_by_one_and_harms_no_other(monkeypatch, broken):
    fused.forget_compiled()
    parts = [("interpreted", make_trials(("elman", "elena1"))), ("fused", make_trials(("elena2", "mgu")))]
    sound = train_together(parts, make_setting(), batches)
    at = ["interpreted", "fused"].index(broken)
    victim, plain, draw = parts[at][1].weights[1], interpreted.train, fused.init_params

    def train(trials, *args):
        if (trials.weights == victim).all(axis=1).any():
            raise RuntimeError("no such weights")
        return plain(trials, *args)

    def init_params(key, *args):  # before anything is compiled
        if (jax.random.key_data(key) == victim).all():
            raise RuntimeError("no such weights")
        return draw(key, *args)

    if broken == "interpreted":
        monkeypatch.setitem(together.TRAIN_WITH, broken, train)
    else:
        monkeypatch.setattr(fused, "init_params", init_params)
    found = train_together(parts, make_setting(), batches)
    assert list(found[at].errors) == [1] and not found[1 - at].errors
    assert found[at].finite.tolist() == [True, False]
    np.testing.assert_array_equal(found[at].losses[0], sound[at].losses[0])
    np.testing.assert_array_equal(found[1 - at].losses, sound[1 - at].losses)


def test_fused_candidates_join_a_chunk_of_others():
    names, told = ("elman", "linear_attention", "elena2"), []  # the second is fused at any number of steps
    settings = dict(steps=[4], hidden_features=WIDTH, batch_size=BATCH, num_devices=1)

    def evaluate(names):
        evaluator = make_population_evaluator([make_setting().task], run_key=jax.random.key(0), **settings)
        graphs = ComputationGraph(stack_graphs([KNOWN_BLOCKS[name] for name in names]))
        return evaluator.evaluate(graphs, 0, on_chunk=lambda *all: told.append(all))

    together = evaluate(names)
    assert told == [(3, 3)]
    alone = [evaluate([name]).metrics[0] for name in names]
    np.testing.assert_array_equal(together.metrics, alone)


def test_what_could_not_be_compiled_is_a_status_and_is_tried_again(monkeypatch):
    fused.forget_compiled()
    task = make_setting().task
    settings = dict(steps=[2], hidden_features=WIDTH, batch_size=BATCH, executor="fused", num_devices=1)
    graphs = ComputationGraph(stack_graphs([KNOWN_BLOCKS[name] for name in ("elman", "elena2")]))

    def evaluate():
        return make_population_evaluator([task], run_key=jax.random.key(0), **settings).evaluate(graphs, 0)

    original = fused.make_segment

    def broken(schedule, *args, **kwargs):
        if len(schedule.parameters) == 3:
            raise RuntimeError("no such kernel")
        return original(schedule, *args, **kwargs)

    monkeypatch.setattr(fused, "make_segment", broken)
    assert sorted(evaluate().status.tolist()) == [OK, CRASHED]
    monkeypatch.setattr(fused, "make_segment", original)
    assert evaluate().status.tolist() == [OK, OK]


def test_memory_splits_a_chunk_and_what_fits_nowhere_is_a_status():
    trials = make_trials(("elman", "elena1", "elman", "elena1"))
    whole = interpreted.train(trials, make_setting(), batches)
    needed = [value for key, value in interpreted._NEEDED.items() if key[-1] == 8]
    halved = interpreted.train(trials, make_setting(memory=min(needed) - 1), batches)
    np.testing.assert_array_equal(whole.losses, halved.losses)
    assert {key[-1] for key in interpreted._NEEDED} >= {8, 4}
    with pytest.raises(MemoryError, match=r"RESOURCE_EXHAUSTED.* takes .* GiB, allowed are"):
        interpreted.train(trials, make_setting(memory=1000), batches)
    fused.train(trials, make_setting(), batches)  # compiled and kept, and still too large
    errors = fused.train(trials, make_setting(memory=1000), batches).errors
    assert sorted(errors) == [0, 1, 2, 3]
    assert all("RESOURCE_EXHAUSTED" in str(error) for error in errors.values())
    evaluator = make_population_evaluator(
        [make_setting().task],
        run_key=jax.random.key(0),
        steps=[1],
        hidden_features=WIDTH,
        batch_size=BATCH,
        memory_gib=1e-6,
    )
    graphs = ComputationGraph(stack_graphs([KNOWN_BLOCKS["elman"]]))
    assert evaluator.evaluate(graphs, 0).status.tolist() == [OUT_OF_MEMORY]


def test_tasks_of_one_name_have_their_own_data():
    tasks = [
        make_task("reber", length=LENGTH, valid_samples=64, threshold=0.0, negatives=kind)
        for kind in ("random", "near_miss")
    ]
    settings = dict(run_key=jax.random.key(0), hidden_features=WIDTH, batch_size=BATCH, num_devices=1)
    graphs = ComputationGraph(stack_graphs([KNOWN_BLOCKS["elman"]]))
    both = make_population_evaluator(tasks, steps=[60, 60], **settings).evaluate(graphs, 0)
    alone = make_population_evaluator(tasks[1:], steps=[60], **settings).evaluate(graphs, 0)
    assert both.metrics[0, 1] == alone.metrics[0, 0] != both.metrics[0, 0]


def test_scores_of_fused_candidates_are_the_same_bits_on_1_and_2_devices_and_in_any_company():
    code = """
import json
import os
from elenas_jax.evaluation import parallel
parallel.configure_devices(2)
from elenas_jax.evaluation import fused
from tests.evaluation.test_executors import batches, make_setting, make_trials
found = []
for devices, names in ((1, ["elena2"]), (2, ["elman", "elena2"]), (2, ["elena1", "elman", "elena2"])):
    fused.forget_compiled()
    trials = make_trials(names)
    trials = trials._replace(weights=trials.weights * 0 + 9)
    found.append(float(fused.train(trials, make_setting(devices), batches).losses[-1]).hex())
print(json.dumps(found))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(set(json.loads(out.stdout.splitlines()[-1]))) == 1


def test_the_executor_follows_from_program_and_steps_alone():
    for kind, loops in (("loop", True), ("no loop", False)):
        assert choose_executor("auto", "row", loops, FUSED_STEPS[kind] - 1) == "interpreted"
        assert choose_executor("auto", "row", loops, FUSED_STEPS[kind]) == "fused"
        assert choose_executor("auto", "matrix", loops, 1) == "fused"
        assert choose_executor("interpreted", "matrix", loops, 10**6) == "interpreted"
        assert choose_executor("batched", "row", loops, 1) == "batched"
        assert choose_executor("batched", "matrix", loops, 1) == "fused"
    assert choose_executor("auto", "sequence", False, 1) == "fused"
    with pytest.raises(
        ValueError, match="executor is 'fast'; allowed are 'auto', 'interpreted', 'fused', 'batched'"
    ):
        make_population_evaluator(
            [make_setting().task], run_key=jax.random.key(0), steps=[1], batch_size=BATCH, executor="fast"
        )


def test_accelerators_are_given_large_kernels(monkeypatch):
    monkeypatch.setattr(parallel, "is_cpu", lambda: False)
    assert (
        choose_executor("auto", "row", True, 1) == choose_executor("auto", "row", False, 10**6) == "batched"
    )
    assert choose_executor("auto", "matrix", True, 1) == "fused"
    assert choose_executor("interpreted", "row", True, 1) == "interpreted"


def test_the_batched_executor_agrees_and_every_candidate_takes_its_own_steps():
    trials = make_trials(("elman", "elena2", "elman"), steps=SEGMENT_STEPS + 6)
    trials = trials._replace(steps=np.array([SEGMENT_STEPS + 6, 3, 9]))

    def poisoned(replicate, kind, first):
        inputs, targets = batches(replicate, kind, first)
        inputs[5:] = np.inf if kind == TRAIN and first else inputs[5:]
        return inputs, targets

    for data in (batches, poisoned):
        slow, fast = (each.train(trials, make_setting(), data) for each in (interpreted, batched))
        np.testing.assert_array_equal(slow.finite, fast.finite)
        assert slow.finite.all() == (data is batches)
        np.testing.assert_allclose(slow.losses[1:], fast.losses[1:], rtol=1e-4)
        np.testing.assert_allclose(slow.metrics, fast.metrics, atol=1 / (2 * BATCH) + 1e-9)
    with pytest.raises(ValueError, match="whose values are rows"):
        batched.train(make_trials(("linear_attention",)), make_setting(), batches)
    with pytest.raises(MemoryError, match="RESOURCE_EXHAUSTED"):
        batched.train(trials, make_setting(memory=1000), batches)


def test_padding_of_parameters_stays_zero_in_the_batched_executor():
    """Layer norm mixes columns: what its cotangent is in the padding must not reach a parameter's."""
    products = [(0, 2, "matmul"), (1, 2, "matmul"), (3, 4, "matmul"), (0, 6, "matmul"), (5, 6, "matmul")]
    others = [(6, 2, "recursion"), (2, 4, "add"), (4, 6, "add"), (6, 6, "layer_norm")]
    block = from_edges(7, products + others)
    setting = make_setting()._replace(width=16)  # blocks are 8 wide
    program = construct_graphs([block, KNOWN_BLOCKS["elman"]])
    trials = Trials(
        program, np.arange(4, dtype=np.uint32).reshape(2, 2), np.array([20, 20]), np.zeros(2, int)
    )
    slow, fast = (each.train(trials, setting, batches) for each in (fused, batched))
    np.testing.assert_allclose(slow.losses, fast.losses, rtol=1e-4)


def test_a_loop_may_read_nothing_from_outside():
    """A cycle without input and parameters, which is added to what comes from the input."""
    cycle = [(4, 2, "recursion"), (2, 2, "sigmoid"), (2, 4, "add")]
    block = from_edges(7, [*cycle, (0, 6, "matmul"), (1, 6, "matmul"), (4, 6, "recursion")])
    program = construct_graphs([block])
    trials = Trials(program, np.arange(2, dtype=np.uint32)[None], np.array([20]), np.zeros(1, int))
    slow, fast, together = (
        each.train(trials, make_setting(), batches) for each in (interpreted, fused, batched)
    )
    assert not fast.errors
    np.testing.assert_allclose(fast.losses, slow.losses, rtol=1e-4)
    np.testing.assert_allclose(together.losses, slow.losses, rtol=1e-4)


def test_programs_alike_but_for_their_heads_are_compiled_apart():
    """Their arrays look alike to a compiler; what differs is static."""
    task = make_setting().task
    graphs = ComputationGraph(stack_graphs([KNOWN_BLOCKS["elena1"]]))
    settings = dict(run_key=jax.random.key(0), steps=[2], hidden_features=WIDTH, batch_size=BATCH)
    for head in ("none", "linear"):
        found = make_population_evaluator([task], head=head, executor="interpreted", **settings).evaluate(
            graphs, 0
        )
        assert found.status.tolist() == [OK]


def test_the_plan_and_the_cache_keys_name_the_executors():
    def make(executor, steps=600):
        return make_population_evaluator(
            [make_setting().task],
            run_key=jax.random.key(0),
            steps=[steps],
            batch_size=BATCH,
            executor=executor,
        )

    assert make("auto").plan["executors"] == "reber fused, interpreted for rows without a loop"
    two = make_population_evaluator(
        [make_setting().task], run_key=jax.random.key(0), steps=[600], batch_size=BATCH, budgets=(0.1, 1.0)
    )
    assert two.plan["executors"] == (
        "reber interpreted, fused for matrices / fused, interpreted for rows without a loop"
    )
    assert make("interpreted").plan["executors"] == "reber interpreted"
    assert make("auto", 1000).cache_key(b"x", 0, 0) == make("fused", 1000).cache_key(b"x", 0, 0)
    assert make("auto").cache_key(b"x", 0, 0) != make("interpreted").cache_key(b"x", 0, 0)


def test_sums_do_not_depend_on_the_number_of_devices():
    """XLA has as many threads as devices, or more, and long products add up in an order that follows."""
    code = """
import sys
from elenas_jax.evaluation import parallel
parallel.configure_devices(int(sys.argv[1]))
import os
import jax, numpy as np
print(os.environ["NPROC"], parallel.count_threads())
rng = np.random.default_rng(0)
a, b = rng.normal(size=(2, 1024, 64)).astype(np.float32)
products = [jax.jit(lambda a, b: a[:, :n].T @ b)(a, b) for n in (7, 64)]
print(b"".join(np.asarray(each).tobytes() for each in products).hex())
"""
    environment = {name: value for name, value in os.environ.items() if name not in ("NPROC", "XLA_FLAGS")}

    def run(devices):
        command = [sys.executable, "-c", code, str(devices)]
        return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout

    # With more devices than cores there are more threads; how many are asked for stays the same.
    cores = parallel.usable_cores()
    assert run(1).split()[0] == run(cores + 1).split()[0] == str(cores)
    assert [int(run(devices).split()[1]) for devices in (1, cores + 1)] == [cores, cores + 1]
    assert run(1) == run(cores)


def test_candidates_are_dealt_to_devices_by_cost():
    costs = np.array([4000.0, 1000.0, 1000.0])
    assert fused._deal(["a", "b", "c"], costs, 2) == [[0], [1, 2]]
    assert fused._deal(["a", "b", "a"], costs, 2) == [[0, 2], [1]]  # compiled once
    assert fused._deal(["a", "a"], costs[:2], 2) == [[0], [1]]
