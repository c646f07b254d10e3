"""What a config is turned into: settings that several objects share."""

import numpy as np
import pytest

from elenas_jax.evaluation.cache import MemoryCache
from elenas_jax.evaluation.ladder import ladder_score
from elenas_jax.experiment.build import build, build_evaluator, build_space, build_strategy, build_tasks
from elenas_jax.experiment.config import check_config, default_config, default_values
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import flatten
from elenas_jax.experiment.table import all_blocks
from elenas_jax.graphs import KNOWN_BLOCKS, ComputationGraph
from elenas_jax.graphs.liveness import TOO_MANY_PARAMETERS
from elenas_jax.spaces import SPACES
from elenas_jax.tasks import TASKS
from elenas_jax.tasks.image_table import IMAGE_SETS
from tests.evaluation.toy_networks import make_task
from tests.tasks.image_files import write_arrays


def limited(most, **changes):
    tasks = {"reber": {"length": 10, "steps": 4, "valid_samples": 32}}
    space = {"name": "elenas", "num_nodes": 8, "max_parameters": most}
    return check_config({"ladder": ("reber",), "tasks": tasks, "space": space} | changes)


def test_space_and_evaluator_keep_to_the_limit_of_parameters():
    config = limited(100)
    tasks = build_tasks(config)
    elman = KNOWN_BLOCKS["elman"]
    assert int(build_space(config, tasks).status(elman)) == TOO_MANY_PARAMETERS
    found = build_evaluator(config, tasks, MemoryCache()).evaluate(
        ComputationGraph(np.asarray(elman.edges)[None]), 0
    )
    assert found.status.tolist() == [TOO_MANY_PARAMETERS] and not found.train_steps.any()


def test_what_no_limit_of_parameters_goes_with():
    with pytest.raises(ConfigError, match="max_parameters=-1"):
        limited(-1)
    config = limited(100, evaluator={"table": "elenas_v1"})
    with pytest.raises(ConfigError, match=r"max_parameters=100: with a table .* must be 0"):
        build_evaluator(config, build_tasks(config), MemoryCache())
    with pytest.raises(ConfigError, match="a table is of all blocks"):
        all_blocks(config, build_space(config, build_tasks(config)))


@pytest.mark.parametrize("name", ["random_search", "evolution", "successive_halving"])
def test_stages_are_for_strategies_that_grow_graphs(name):
    space = {"name": "elenas", "num_nodes": 8, "stages": (6, 8)}
    config = check_config({"space": space, "strategy": {"name": name}})
    with pytest.raises(ConfigError, match=rf"space.stages=\(6, 8\): {name} .* reinforce, ppo"):
        build_strategy(config, build_space(config, build_tasks(config)))


INDIVIDUAL = {
    "ladder": ("reber",),
    "tasks": {"reber": {"length": 10, "steps": 64, "valid_samples": 64}},
    "space": {"name": "elenas", "num_nodes": 8, "hidden_features": 5, "head": "none"},
    "evaluator": {"name": "individual", "batch_size": 32, "epochs": 2, "budgets": (0.5, 1.0)},
}


def test_settings_of_networks_belong_to_the_space_where_the_evaluator_has_none():
    config = check_config(INDIVIDUAL)
    assert config["space"]["hidden_features"] == 5 and config["space"]["head"] == "none"
    experiment = build(config, MemoryCache())
    assert experiment.evaluator.task_names == ("reber",)
    assert "epochs: 1 / 2" in experiment.evaluator.plan["training"]
    other = INDIVIDUAL | {"space": INDIVIDUAL["space"] | {"hidden_features": 6}}
    keys = [
        build(check_config(each), MemoryCache()).evaluator.cache_key(b"x", 0, 0)
        for each in (INDIVIDUAL, other)
    ]
    assert keys[0] != keys[1]
    with pytest.raises(ConfigError, match=r"space.head is no key of a config with space.name='elenas'"):
        check_config({"space": {"name": "elenas", "head": "none"}})


def test_a_space_gets_what_its_maker_takes(monkeypatch):
    taken = {}

    def make(*, width: int = 3, in_shape: tuple[int, ...], out_features: int, threshold: float = 0.5):
        taken.update(width=width, in_shape=in_shape, out_features=out_features, threshold=threshold)
        return "a space"

    monkeypatch.setitem(SPACES, "one", make)
    config = check_config({"ladder": ("reber",), "space": {"name": "one", "width": 4}})
    assert config["space"] == {"name": "one", "width": 4} and config["evaluator"]["name"] == "individual"
    assert build_space(config, build_tasks(config)) == "a space"
    assert taken == {"width": 4, "in_shape": (32, 7), "out_features": 1, "threshold": 0.8}
    config = check_config({"ladder": ("reber", "adding"), "space": {"name": "one"}})
    with pytest.raises(ConfigError, match=r"inputs of adding are \(32, 2\), of reber \(32, 7\)"):
        build_space(config, build_tasks(config))


def test_data_sets_are_for_the_individual_evaluator(monkeypatch):
    monkeypatch.setitem(TASKS, "toy_data", make_task)
    config = check_config({"ladder": ("toy_data",)})
    with pytest.raises(ConfigError, match=r"'toy_data' is a data set; evaluator.name='population' takes"):
        build_evaluator(config, build_tasks(config), MemoryCache())
    with pytest.raises(ConfigError, match=r"'toy_data' is a data set; space.name='elenas' takes"):
        build_space(config, build_tasks(config))


def test_numbers_of_a_task_of_arrays_follow_from_them(tmp_path):
    write_arrays(tmp_path / "mine", (1, 4, 4), 4, (8, 4, 4))
    settings = {"path": str(tmp_path / "mine")}
    given = {"ladder": ("npy",), "space": {"name": "einspace"}, "tasks": {"npy": settings}}
    config = check_config(default_config(given))
    assert config == check_config(config) and config["tasks"]["npy"]["untrained"] is None
    (task,) = tasks = build_tasks(config)
    assert (task.threshold, task.untrained, task.weight) == (0.9, 0.25, 1.0)
    assert ladder_score([0.95], tasks) > 1 and ladder_score([0.25], tasks) == 0
    settings |= {"threshold": 0, "untrained": 0.5}
    (task,) = build_tasks(check_config(given))
    assert (task.threshold, task.untrained, task.weight) == (0.0, 0.5, 1.0)


def test_scores_of_other_tasks_are_in_their_configs():
    """As in the configs of runs of before, which go on."""
    config = check_config({"ladder": ("reber",)})
    assert config["tasks"]["reber"] == {
        "negatives": "random",
        "length": 32,
        "train_samples": 20_000,
        "valid_samples": 2_000,
        "threshold": 0.8,
        "untrained": 0.5,
        "weight": 0.1,
        "steps": None,
    }
    config = check_config({"ladder": ("cifar10",), "space": {"name": "einspace"}})
    numbers = {"threshold": IMAGE_SETS["cifar10"].reference, "untrained": 0.1, "weight": 1.0}
    assert numbers.items() <= config["tasks"]["cifar10"].items()


def test_defaults_of_keys_that_older_runs_lack():
    resolved = check_config({"strategy": {"name": "evolution"}})
    defaults = default_values(resolved)
    assert defaults["strategy.start"] == "sample" and defaults["strategy.frozen"] is False
    assert defaults["evaluator.name"] == "population" and defaults["seed"] == 0
    assert flatten(resolved).keys() - defaults.keys() == {"ladder", "space.name", "strategy.name"}
