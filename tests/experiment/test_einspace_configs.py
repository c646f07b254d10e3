"""Recipes of einspace: every data set and every search, with the published numbers."""

import importlib.util
import pathlib

import pytest

from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.rules import ConfigError

FOLDER = pathlib.Path(__file__).parents[2] / "configs" / "einspace"


def load(name):
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def published():
    return load("published")


@pytest.fixture(scope="module")
def reduced():
    return load("reduced")


def test_the_recipe_of_every_data_set(published):
    """Table 3.1 of the specification: batch, learning rate, weight decay, epochs of search and at the end."""
    for dataset in published.RECIPES:
        search = "scratch" if dataset in published.SEQUENCES else "mix"
        resolved = check_config(published.get_config(f"{dataset},{search}"))
        evaluator = resolved["evaluator"]
        assert resolved["ladder"] == (dataset,) and evaluator["name"] == "individual"
        keys = ("batch_size", "learning_rate", "weight_decay", "epochs", "eval_epochs")
        expected = {
            "satellite": (4096, 0.1, 5e-4, 25, 200),
            "deepsea": (256, 0.1, 5e-4, 25, 200),
            "ecg": (256, 0.1, 5e-4, 25, 200),
            "fsd50k": (256, 0.1, 5e-4, 25, 200),
            "darcy": (4, 0.001, 5e-4, 25, 200),
            "psicov": (8, 0.001, 5e-4, 25, 200),
            "cosmic": (8, 0.001, 5e-4, 25, 200),
        }.get(dataset, (256, 0.04, 3e-4, 8, 64))
        if dataset in ("cifar10", "cifar100", "spherical", "ninapro"):
            expected = (128, 0.1, 5e-4, 25, 200)
        assert tuple(evaluator[key] for key in keys) == expected
        assert (evaluator["optimiser"], evaluator["momentum"], evaluator["schedule"]) == (
            "sgd",
            0.9,
            "cosine",
        )


def test_every_published_search(published):
    """Section 2.2 of the specification."""
    expected = {
        "mix": 500,
        "resnet18": 500,
        "wideresnet": 500,
        "scratch": 1000,
        "random_mutation": 1000,
        "random_search": 1000,
    }
    assert {*published.SEARCHES} == {*expected}
    for search, candidates in expected.items():
        resolved = check_config(published.get_config(f"addnist,{search}"))
        strategy, space = resolved["strategy"], resolved["space"]
        assert resolved["generations"] * strategy["batch_size"] == candidates
        assert (space["name"], space["rules"], space["computation_probability"]) == (
            "einspace",
            "strict",
            0.32,
        )
        if search != "random_search":
            assert (strategy["population_size"], strategy["tournament_size"]) == (100, 10)
            assert strategy["start"] == ("sample" if search == "scratch" else "starts")
            assert strategy["frozen"] == (search == "random_mutation")
            assert len(space["seeds"]) == {"scratch": 0, "mix": 4}.get(search, 1)
    assert check_config(published.get_config()) == check_config(published.get_config("addnist,mix"))


def test_reduced_searches_cost_the_same(reduced):
    resolved = {search: check_config(reduced.get_config(search)) for search in reduced.SEARCHES}
    for each in resolved.values():
        assert each["evaluations"] == 64 and each["evaluator"] == resolved["mix"]["evaluator"]
        assert each["tasks"]["addnist"]["num_train"] == 2000
    assert resolved["mix"]["strategy"]["start"] == "starts" and resolved["scratch"]["space"]["seeds"] == ()


def test_small_networks_are_searched_alike(reduced):
    small = load("small")
    resolved = {search: check_config(small.get_config(search)) for search in small.SEARCHES}
    for section in ("ladder", "tasks", "evaluator", "evaluations"):
        assert len({str(config[section]) for config in resolved.values()}) == 1
    assert {config["space"]["max_activations"] for config in resolved.values()} == {150_000}
    # The best of a population has about ten children while it lives.
    strategy = resolved["scratch"]["strategy"]
    size, tournament = strategy["population_size"], strategy["tournament_size"]
    assert 9.5 < size * (1 - (1 - 1 / size) ** tournament) < 10.5
    with pytest.raises(ConfigError, match=r"'mix'; allowed are scratch, random_search"):
        small.get_config("mix")


@pytest.mark.parametrize(
    "argument, message",
    [
        ("mnist", "The data set is 'mnist'; allowed are addnist, language,"),
        ("addnist,best", "The search is 'best'; allowed are mix, resnet18,"),
        ("deepsea", "deepsea is in one dimension; the searches without seeds are scratch, random_search."),
    ],
)
def test_mistakes_are_one_line(published, reduced, argument, message):
    with pytest.raises(ConfigError) as error:
        published.get_config(argument)
    assert str(error.value).startswith(message)
    with pytest.raises(ConfigError, match="The search is 'best'; allowed are mix, scratch, random_search"):
        reduced.get_config("best")
