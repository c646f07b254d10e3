"""Bars: thresholds of the ladder, and a known block as reference."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from configs.elenas import first_block as first_block_recipe
from elenas_jax.evaluation.cache import MemoryCache
from elenas_jax.experiment import bars
from elenas_jax.experiment.archive import Row
from elenas_jax.experiment.bars import ReferenceBar, ladder_passed, without_memory
from elenas_jax.experiment.build import build_tasks
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.ranking import memory_config, rank
from elenas_jax.experiment.run_dir import RunError
from elenas_jax.graphs import KNOWN_BLOCKS
from elenas_jax.graphs.constructor import construct
from elenas_jax.graphs.program import num_parameters
from elenas_jax.spaces.elenas import to_json
from elenas_jax.types import CRASHED, DIVERGED, OK, OUT_OF_MEMORY

TASK = {"negatives": "near_miss", "length": 10, "steps": 4, "valid_samples": 32, "threshold": 0.1}


def make_row(block="elman", status=OK, parameters=10, **metrics) -> Row:
    graph = to_json(KNOWN_BLOCKS[block])
    return Row(
        0, 0, block * 4, 1, status, "ok", 0, 0, 1.0, parameters, 1.0, 4, 1.0,
        json.dumps(metrics), json.dumps(graph),
    )  # fmt: skip


def test_a_ladder_is_passed_by_who_reaches_every_threshold():
    config = check_config({"ladder": ("adding", "reber"), "tasks": {"adding": {"threshold": 0.4}}})
    good = make_row(adding=0.4, reber=0.8)
    assert ladder_passed([good], config).metrics == {"adding": [0.4], "reber": [0.8]}
    others = [
        make_row(adding=0.39, reber=0.9),
        make_row(adding=0.9, reber=None),
        make_row(adding=0.9, reber=0.9, status=DIVERGED),
    ]
    assert ladder_passed(others, config) is None
    assert ladder_passed([*others, good], config).row is good


@pytest.fixture
def config():
    return check_config(
        {
            "ladder": ("reber",),
            "tasks": {"reber": TASK},
            # A limit is the search's; the reference may have more.
            "space": {"name": "elenas", "num_nodes": KNOWN_BLOCKS["elman"].num_nodes, "max_parameters": 9},
            "evaluator": {"hidden_features": 8, "batch_size": 8, "num_devices": 1},
        }
    )


def test_a_block_is_of_the_class_of_itself(tmp_path, config):
    def bar(**changes):
        return ReferenceBar(config, tmp_path, reference="elman", num_seeds=4, **changes)

    one = bar(parameter_share=1.0)
    metrics, parameters = one.measure_reference()
    assert metrics.shape == (4, 1) and len(np.unique(metrics)) > 1
    row = make_row(parameters=parameters, reber=1.0)
    verdict = one.first_over([row])
    np.testing.assert_allclose(verdict.metrics["reber"], metrics[:, 0])
    assert one.first_over([row]) is None  # once is enough
    assert bar(parameter_share=0.5).first_over([row]) is None
    # The reference is trained once in a folder.
    again = bar(parameter_share=1.0)
    kept = json.loads((tmp_path / "reference.json").read_text())
    assert kept["block"] == "elman" and kept["parameters"] == parameters
    kept["metrics"]["reber"] = [1.5] * 4
    (tmp_path / "reference.json").write_text(json.dumps(kept))
    assert again.first_over([make_row(parameters=parameters, reber=1.5)]) is None  # four means below
    (tmp_path / "reference.json").write_text('{"metrics": {}}')
    with pytest.raises(RunError, match=r"reference\.json is damaged"):
        again.measure_reference()


def test_who_is_far_below_is_dropped_early(tmp_path, config):
    one = ReferenceBar(config, tmp_path, reference="elman", num_seeds=7, parameter_share=1.0)
    candidate = one.space.from_json(json.loads(make_row().candidate))
    low, high = (one._train([candidate], np.array([target]))[0] for target in (0.0, 2.0))
    assert len(low) == 7 and len(high) == 3
    np.testing.assert_array_equal(low[:3], high)


@pytest.mark.parametrize(
    ("by_seed", "trained"),
    [
        ([0.96, 0.96, 0.96, 0.98, 0.98, 0.98, 0.9], 7),
        ([0.96] * 7, 6),  # less than 0.05 below the target, but more than 0.03
        ([0.94, 0.94, 0.94, 1.0, 1.0, 1.0, 1.0], 3),
    ],
)
def test_the_more_seeds_the_closer_their_mean_has_to_be(tmp_path, config, monkeypatch, by_seed, trained):
    def look_up(evaluator, graphs, seeds):
        return SimpleNamespace(metrics=np.array([[[by_seed[seed]]] for seed in seeds]))

    monkeypatch.setattr(bars, "evaluate_seeds", look_up)
    one = ReferenceBar(config, tmp_path, reference="elman", num_seeds=7, parameter_share=1.0)
    candidate = one.space.from_json(json.loads(make_row().candidate))
    assert len(one._train([candidate], np.array([1.0]))[0]) == trained


@pytest.fixture
def memory_of(tmp_path, config, monkeypatch):
    """Makes the bar of memory, told what the LSTM and a candidate reach on each task and at each length."""

    def make(reference, candidate):
        trained = []

        def look_up(evaluator, graphs, seeds):
            (task,) = (task for task in evaluator.tasks if task.name in ("reber", "memory"))
            name = task.name if task.name == "reber" else f"memory_{task.time_steps}"
            is_reference = graphs.edges.shape[1] == KNOWN_BLOCKS["lstm"].num_nodes
            trained.append(("lstm" if is_reference else "candidate", name, len(seeds)))
            value = (reference if is_reference else candidate)[name]
            return SimpleNamespace(
                metrics=np.full((len(seeds), 1, 1), value),
                parameters=np.full((10, 1), 400),
                status=np.zeros((len(seeds), 1), np.int32),
            )

        def build(config, tasks, cache):
            return SimpleNamespace(tasks=tasks)

        monkeypatch.setattr(bars, "evaluate_seeds", look_up)
        monkeypatch.setattr(bars, "build_evaluator", build)
        ladder = {"ladder": ("reber", "memory"), "tasks": {**config["tasks"], "memory": {"threshold": 0.5}}}
        return bars.memory_bar({**config, **ladder}, tmp_path), trained

    return make


ELENA2 = {20: 99.8, 30: 98.8, 40: 96.3, 50: 90.6, 60: 89.4, 70: 83.1, 80: 74.0}
LSTM = {"reber": 0.8, **{f"memory_{length}": 0.3 for length in ELENA2}}
GOOD = {"reber": 0.81, **{f"memory_{length}": least / 100 + 0.001 for length, least in ELENA2.items()}}


def test_the_bar_of_memory_is_the_lstm_everywhere_and_elena2_at_every_length(memory_of):
    row = make_row(parameters=100, reber=0.81, memory=0.9)
    bar, trained = memory_of(LSTM, GOOD)
    verdict = bar([row])
    assert verdict.row is row and list(verdict.metrics) == [
        "reber",
        *(f"memory_{k}" for k in (20, 80, 70, 60, 50, 40, 30)),
    ]
    assert (
        verdict.metrics["memory_20"] == [pytest.approx(0.999)] * 10
        and verdict.metrics["reber"] == [0.81] * 10
    )
    assert [name for who, name, _ in trained if who == "lstm"] == list(verdict.metrics)  # once each
    assert bar([row]) is None  # once is enough


@pytest.mark.parametrize(
    ("lstm", "candidate", "parameters", "last"),
    [
        ({}, {}, 101, "reber"),  # more than a quarter
        ({}, {"reber": 0.799}, 100, "reber"),  # nothing less than the LSTM
        ({}, {"memory_80": 0.739}, 100, "memory_80"),  # less than ELENA2 of the paper
        ({}, {"memory_50": 0.9}, 100, "memory_50"),
        ({"memory_60": 0.95}, {}, 100, "memory_60"),  # more than ELENA2, less than the LSTM
    ],
)
def test_who_misses_the_bar_of_memory_anywhere_is_not_over_it(memory_of, lstm, candidate, parameters, last):
    bar, trained = memory_of(LSTM | lstm, GOOD | candidate)
    assert bar([make_row(parameters=parameters, reber=0.8, memory=0.9)]) is None
    assert trained[-1][1] == last


def test_a_block_that_is_not_over_the_bar_of_memory_leaves_the_next_its_chance(memory_of):
    by_block = {}

    class Candidate(dict):
        def __getitem__(self, name):
            return by_block["next"] if name == "memory_80" else super().__getitem__(name)

    bar, _ = memory_of(LSTM, Candidate(GOOD))
    by_block["next"] = 0.2
    assert bar([make_row("elman", parameters=100, reber=0.81, memory=0.9)]) is None
    by_block["next"] = 0.9
    assert bar([make_row("elena2", parameters=100, reber=0.81, memory=0.9)]).row.hash == "elena2" * 4


def test_a_reference_that_fails_has_nothing_and_does_not_bar_others(tmp_path, config, monkeypatch):
    def look_up(evaluator, graphs, seeds):
        is_reference = len(seeds) == 4
        values = np.full((len(seeds), 1, 1), 0.9)
        status = np.zeros((len(seeds), 1), np.int32)
        if is_reference:
            values[0], status[0] = np.nan, DIVERGED
        return SimpleNamespace(metrics=values, parameters=np.full((len(seeds), 1), 10), status=status)

    def first_over():
        one = ReferenceBar(config, tmp_path, reference="elman", num_seeds=4, parameter_share=1.0)
        np.testing.assert_allclose(one.measure_reference()[0][:, 0], [0.0, 0.9, 0.9, 0.9])
        return one.first_over([make_row(reber=0.9)])

    monkeypatch.setattr(bars, "evaluate_seeds", look_up)
    assert first_over() and first_over()  # from the file as well


@pytest.mark.parametrize("status", [OUT_OF_MEMORY, CRASHED])
def test_a_reference_that_the_machine_could_not_train_is_no_bar(tmp_path, config, monkeypatch, status):
    def look_up(evaluator, graphs, seeds):
        statuses = np.array([[OK], [status], [OK], [OK]], np.int32)
        values = np.where(statuses == OK, 0.9, np.nan)[..., None]
        return SimpleNamespace(metrics=values, parameters=np.full((4, 1), 10), status=statuses)

    monkeypatch.setattr(bars, "evaluate_seeds", look_up)
    one = ReferenceBar(config, tmp_path, reference="elman", num_seeds=4)
    with pytest.raises(RunError, match="The reference, elman, was not trained: "):
        one.first_over([make_row(parameters=1, reber=0.9)])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("mean", "is_over"), [(0.891, True), (0.889, False)])
def test_the_class_of_the_lstm_ends_a_hundredth_below_it(tmp_path, config, monkeypatch, mean, is_over):
    assert ReferenceBar(config, tmp_path).num_seeds == 10

    def look_up(evaluator, graphs, seeds):
        is_reference = graphs.edges.shape[1] == KNOWN_BLOCKS["lstm"].num_nodes
        shape = (len(seeds), 1)
        values = np.full((*shape, 1), 0.9 if is_reference else mean)
        return SimpleNamespace(
            metrics=values, parameters=np.full(shape, 20), status=np.zeros(shape, np.int32)
        )

    monkeypatch.setattr(bars, "evaluate_seeds", look_up)
    found = ReferenceBar(config, tmp_path).first_over([make_row(parameters=10, reber=mean)])
    assert bool(found) == is_over


def test_the_memory_task_of_the_recipe_is_for_the_search_alone():
    recipe = check_config(first_block_recipe.get_config("lstm").to_dict())
    assert recipe == check_config(first_block_recipe.get_config("memory").to_dict())
    assert without_memory(recipe)["ladder"] == ("reber", "adding", "embedded_reber")
    assert recipe["ladder"] == ("reber", "adding", "memory", "embedded_reber")


def test_the_limit_of_the_recipe_is_a_quarter_of_the_lstm():
    recipe = check_config(first_block_recipe.get_config("memory").to_dict())
    limit = recipe["space"]["max_parameters"]
    config = check_config({"ladder": ("reber", "memory"), "tasks": {"reber": {"negatives": "near_miss"}}})
    by_task = {task.name: task for task in build_tasks(config)}
    counts = {}
    for name, task in by_task.items():
        sizes = {"in_features": task.in_features, "out_features": task.out_features}
        counts[name] = num_parameters(construct(KNOWN_BLOCKS["lstm"], **sizes, head="linear"))
    assert counts["reber"] == 18_497
    assert limit - (counts["memory"] - counts["reber"]) == counts["reber"] // 4


def test_what_was_judged_is_not_trained_again(tmp_path, config, monkeypatch):
    """In earnest: as `rank` trains, and once."""
    monkeypatch.setattr(bars, "MEMORY_STEPS", 3)
    monkeypatch.setattr(bars, "paper_means", lambda block: {4: 0.0})
    reference = {"metrics": {"reber": [0.0] * 10}, "parameters": 10**6}
    (tmp_path / "reference.json").write_text(json.dumps(reference))
    (tmp_path / "reference_memory_4.json").write_text(
        json.dumps({"metrics": {"memory": [0.0] * 10}, "parameters": 10**6})
    )
    tasks = {"ladder": ("reber", "memory"), "tasks": {**config["tasks"], "memory": {"threshold": 0.0}}}
    cache = MemoryCache()
    bar = bars.memory_bar({**config, **tasks}, tmp_path, cache)
    verdict = bar([make_row(reber=1.0, memory=1.0)])
    assert set(verdict.metrics) == {"reber", "memory_4"} and len(cache) == 20
    ranking = rank(
        {"elman": KNOWN_BLOCKS["elman"]},
        [memory_config(4, steps=3, seed=config["seed"])],
        10,
        MemoryCache(),
        lambda *cell: True,
    )
    np.testing.assert_allclose(ranking.accuracy[:, 0, 0], verdict.metrics["memory_4"])
    again = bars.memory_bar({**config, **tasks}, tmp_path, cache)
    assert again([make_row(reber=1.0, memory=1.0)]).metrics == verdict.metrics
    assert len(cache) == 20
