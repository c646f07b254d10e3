import json

import numpy as np
import pytest

from elenas_jax.evaluation import MemoryCache
from elenas_jax.evaluation.tabular import FOLDER, find_table, load_table
from elenas_jax.experiment.build import build_evaluator, build_space, build_tasks, load_matching_table
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.table import make_table
from elenas_jax.graphs import ComputationGraph, from_edges
from elenas_jax.spaces.elenas_enumeration import enumerate_blocks
from elenas_jax.spaces.elenas_sampling import make_choices

SMALL = {"steps": 3, "valid_samples": 16}
OPERATIONS = (("none", "matmul", "hadamard"), ("identity", "tanh"))
RECIPE = {
    "ladder": ("reber", "adding"),
    "tasks": {"reber": {**SMALL, "threshold": 0.5}, "adding": SMALL},
    "space": {"num_nodes": 4, "operations": OPERATIONS},
    "evaluator": {"hidden_features": 8, "batch_size": 8, "num_devices": 1},
}


def config_with(path, **changes):
    """Returns the resolved recipe with a table; changes are whole sections or keys."""
    evaluator = RECIPE["evaluator"] | {"table": str(path)} | changes.pop("evaluator", {})
    return check_config({**RECIPE, **changes, "evaluator": evaluator})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    path = folder / "small.json"
    make_table(check_config(RECIPE), folder / "run", path, replicates=2)
    return path


def all_graphs(config):
    table = load_matching_table(config)
    graphs = [from_edges(config["space"]["num_nodes"], edges) for edges in table.edges]
    return ComputationGraph(np.stack([graph.edges for graph in graphs]))


def test_the_table_holds_every_block(made):
    table, config = load_table(str(made)), config_with(made)
    space = build_space(config, build_tasks(config))
    choices = make_choices(config["space"]["num_nodes"], config["space"]["operations"])
    assert len(table.places) == len(enumerate_blocks(space, choices)) > 3
    assert table.num_replicates == 2 and np.isfinite(table.metrics).all()  # no threshold stopped anybody
    assert set(table.provenance) == {"commit", "versions", "devices", "executors"}


@pytest.mark.parametrize("replicate", [0, 1])
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.99])
def test_looking_up_gives_what_training_gives(made, replicate, threshold):
    tasks = {"reber": {**SMALL, "threshold": threshold}, "adding": SMALL}
    config = config_with(made, tasks=tasks)
    trained_config = config_with("", tasks=tasks)
    graphs = all_graphs(config)
    extra = from_edges(4, [(1, 2, "add")])  # no path from the input
    graphs = ComputationGraph(np.concatenate([graphs.edges, graphs.edges[:1], extra.edges[None]]))
    asked = np.arange(len(graphs.edges)) != 1
    found, trained = (
        build_evaluator(each, build_tasks(each), MemoryCache()).evaluate(graphs, 0, replicate, asked)
        for each in (config, trained_config)
    )
    for name in found._fields:
        if name != "seconds":
            np.testing.assert_array_equal(getattr(found, name), getattr(trained, name), err_msg=name)
    assert found.status[-1] > 0 and found.score[-1] == 0


def test_a_killed_generator_goes_on(made, tmp_path):
    class Killed(Exception):
        pass

    def kill(done, total, trained):
        raise Killed

    to = tmp_path / "again.json"
    with pytest.raises(Killed):
        make_table(check_config(RECIPE), tmp_path / "run", to, replicates=2, on_chunk=kill)
    assert not to.exists()
    counts = []
    make_table(
        check_config(RECIPE),
        tmp_path / "run",
        to,
        replicates=2,
        on_chunk=lambda done, total, trained: counts.append((done, total, trained)),
    )
    done, total, trained = counts[-1]
    assert done == total > trained > 0  # what was trained before the kill was not trained again
    old, new = (json.loads(path.read_text())["blocks"] for path in (made, to))
    assert old == new


def test_a_partial_table_says_what_it_lacks(made, tmp_path):
    content = json.loads(made.read_text())
    content["blocks"] = content["blocks"][:-1]
    part = tmp_path / "part.json"
    part.write_text(json.dumps(content))
    config = config_with(part)
    evaluator = build_evaluator(config, build_tasks(config), MemoryCache())
    with pytest.raises(ValueError, match="is not in table part"):
        evaluator.evaluate(all_graphs(config_with(made)), 0)
    with pytest.raises(ValueError, match=r"replicate is 2; table part has 0 to 1\."):
        evaluator.evaluate(all_graphs(config), 0, 2)
    with pytest.raises(ValueError, match="a table has budget 0 alone"):
        evaluator.evaluate(all_graphs(config), 1)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"space": {"num_nodes": 5, "operations": OPERATIONS}}, "space.num_nodes 4, not 5"),
        ({"space": {"num_nodes": 4}}, "space.operations"),
        ({"ladder": ("adding", "reber")}, "made with ladder"),
        ({"tasks": {"reber": {**SMALL, "steps": 4}, "adding": SMALL}}, "tasks.reber.steps 3, not 4"),
        ({"tasks": {"reber": {**SMALL, "negatives": "near_miss"}, "adding": SMALL}}, "tasks.reber.negatives"),
        ({"evaluator": {"hidden_features": 16}}, "evaluator.hidden_features 8, not 16"),
        ({"evaluator": {"budgets": (0.5, 1.0)}}, "evaluator.budgets"),
    ],
)
def test_another_space_or_ladder_is_refused(made, changes, message):
    with pytest.raises(ConfigError) as caught:
        load_matching_table(config_with(made, **changes))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_or_damaged_table_is_one_line(tmp_path):
    (tmp_path / "bad.json").write_text('{"format": 1}')
    for name, message in ((str(tmp_path / "none.json"), "no file"), ("nobody", "known are")):
        with pytest.raises(ConfigError, match=message):
            load_matching_table(config_with(name))
    with pytest.raises(ConfigError, match=r"is no table: it lacks 'columns'\."):
        load_matching_table(config_with(tmp_path / "bad.json"))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.json")), ids=lambda path: path.stem)
def test_tables_of_the_package_are_whole(path):
    table = load_table(path.stem)
    config = check_config(table.config)
    space = build_space(config, build_tasks(config))
    choices = make_choices(config["space"]["num_nodes"], config["space"]["operations"])
    assert find_table(path.stem) == path
    assert len(table.places) == len(enumerate_blocks(space, choices)) <= 1000
    assert table.num_replicates > 1 and not (table.status % 100).any()
