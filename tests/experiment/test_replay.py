import functools
import io
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from elenas_jax.analysis.replays import Panel, write_replay_figure
from elenas_jax.evaluation.cache import Record
from elenas_jax.evaluation.tabular import write_text
from elenas_jax.experiment.archive import export_rows
from elenas_jax.experiment.build import build_space, build_tasks
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.replay import Curves, make_ground, replay, summarise
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import plain
from elenas_jax.experiment.session import run
from elenas_jax.experiment.table import all_blocks, table_row
from elenas_jax.graphs import ComputationGraph, canonical_hash
from elenas_jax.spaces.elenas_sampling import draw, make_choices
from elenas_jax.strategies import make_evolution, make_random_search

SEEDS = (0, 1, 2)
STRATEGIES = {
    "random_search": {"batch_size": 4},
    "evolution": {"population_size": 8, "batch_size": 4, "tournament_size": 3},
}


def recipe(path, name):
    return check_config(
        {
            "ladder": ("reber", "adding"),
            "space": {"num_nodes": 5, "operations": (("none", "matmul", "recursion"), ("identity",))},
            "strategy": {"name": name, **STRATEGIES[name]},
            "evaluator": {"table": str(path)},
            "compilation_cache": "off",
        }
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A table of all blocks whose metrics nobody measured."""
    config = recipe("", "random_search")
    rng, rows = np.random.default_rng(0), []
    for graph in all_blocks(config, build_space(config, build_tasks(config))):
        metrics = rng.uniform(0.4, 1.0, (2, 2)).tolist()
        rows.append(
            table_row(graph, [Record(0.0, tuple(each), 0, 10, 1.0, 2, 0.0) for each in metrics], "linear")
        )
    file = tmp_path_factory.mktemp("table") / "made_up.json"
    file.write_text(write_text(plain(config), {}, 2, rows))
    return file


@pytest.fixture(scope="module")
def ground(path):
    return make_ground(recipe(path, "random_search"))


def test_a_replay_meets_what_a_run_meets(ground, path, tmp_path):
    config, num = recipe(path, "evolution"), 12
    curves = replay(config, ground, [0], num)
    limits = {"evaluations": num, "seed": 0}
    text = io.StringIO()
    run({**config, **limits}, tmp_path, console=Console(file=text, width=200))
    assert "nothing is trained" in text.getvalue()
    rows = export_rows(tmp_path)
    new = [place for place, row in enumerate(rows) if row["is_new"]][:num]
    hashes = list(ground.table.places)
    assert [rows[place]["hash"] for place in new] == [hashes[row] for row in curves.rows[0]]
    scores = np.array([rows[place]["score"] for place in new])
    np.testing.assert_array_equal(curves.best[0], np.maximum.accumulate(scores).astype(np.float32))
    assert curves.draws[0].tolist() == [place + 1 for place in new]


def test_replays_depend_on_their_seed_alone(ground, path):
    config = recipe(path, "evolution")
    together, again = replay(config, ground, SEEDS, 15), replay(config, ground, SEEDS[::-1], 15)
    for ours, other in zip(together, again, strict=True):
        np.testing.assert_array_equal(ours, other[::-1])
    assert len({tuple(row) for row in together.rows.tolist()}) == len(SEEDS)
    for rows, best in zip(together.rows, together.best, strict=True):
        assert len(set(rows.tolist())) == 15 and (np.diff(best) >= 0).all()


def test_a_strategy_that_tells_on_the_host_finds_the_same(ground):
    def on_host(space):
        strategy = make_evolution(space, **STRATEGIES["evolution"])

        def tell(key, state, proposal, evaluation):
            evaluation = evaluation._replace(status=np.asarray(evaluation.status))
            return strategy.tell(key, state, proposal, evaluation)

        return strategy._replace(tell=tell)

    traced = functools.partial(make_evolution, **STRATEGIES["evolution"])
    for ours, other in zip(replay(on_host, ground, [3], 15), replay(traced, ground, [3], 15), strict=True):
        np.testing.assert_array_equal(ours, other)


def test_statuses_are_those_of_the_space(ground, path):
    config = recipe(path, "random_search")
    space = build_space(config, build_tasks(config))
    choices = make_choices(5, config["space"]["operations"])
    graphs = jax.jit(jax.vmap(lambda key: draw(choices, key)))(jax.random.split(jax.random.key(0), 200))
    expected = jax.jit(jax.vmap(space.status))(graphs)
    np.testing.assert_array_equal(jax.jit(jax.vmap(ground.space.status))(graphs), expected)
    rows = ground.rows[np.asarray(jax.jit(jax.vmap(ground.number))(graphs))]
    for edges, row, status in zip(np.asarray(graphs.edges), rows, np.asarray(expected)):
        if status == 0:
            assert row == ground.table.places[canonical_hash(ComputationGraph(edges))]
        else:
            assert row == -status


def test_a_search_that_finds_no_more_is_refused(ground, path):
    num = len(ground.table.places) + 1
    with pytest.raises(ValueError, match=f"{num} were wanted"):
        replay(recipe(path, "random_search"), ground, [0], num)


def test_a_summary_by_hand(ground):
    # Two searches of three blocks; the second sees the other replicate.
    scores = np.zeros((2, 4), np.float32)
    scores[:] = [[0.125, 0.5, 0.25, 0.875], [0.375, 0.25, 0.75, 0.25]]
    made_up = ground._replace(evaluations=ground.evaluations._replace(score=scores))
    rows = np.array([[0, 1, 2], [1, 2, 3]], np.int32)
    best = np.array([[0.125, 0.5, 0.5], [0.25, 0.75, 0.75]], np.float32)
    draws = np.array([[1, 2, 5], [2, 3, 9]])
    found = summarise(Curves(best, rows, draws), made_up, (0, 3), 3)
    # Means of blocks: 0.25, 0.375, 0.5, 0.5625. Handed over are block 1, the third, and block 2, the second.
    assert found["best"] == [0.5, 0.75] and found["mean"] == 0.625
    assert found["regret"] == ((0.875 - 0.5) + (0.75 - 0.75)) / 2
    assert found["rank"] == 2.5 and found["draws"] == 7.0


def test_candidates_that_were_left_out_are_no_draws(ground):
    def every_other(space):
        strategy = make_random_search(space, batch_size=4)

        def ask(key, state):
            proposal, state = strategy.ask(key, state)
            return proposal._replace(valid_candidates=jnp.arange(4) % 2 == 0), state

        return strategy._replace(ask=ask)

    some = replay(every_other, ground, [0], 6)
    everything = replay(functools.partial(make_random_search, batch_size=4), ground, [0], 12)
    # The same candidates are drawn; every second one of them is asked for, so 1, 2, 3 for 1, 3, 5.
    drawn = {int(row): int(place) for row, place in zip(everything.rows[0], everything.draws[0], strict=True)}
    asked = {row: (place + 1) // 2 for row, place in drawn.items() if place % 2}
    found = dict(zip(some.rows[0].tolist(), some.draws[0].tolist(), strict=True))
    assert len(asked.keys() & found.keys()) >= 2
    assert all(found[row] == place for row, place in asked.items() if row in found)


def test_summary_and_figure(ground, path, tmp_path):
    curves = replay(recipe(path, "random_search"), ground, SEEDS, 20)
    summary = summarise(curves, ground, SEEDS, 20)
    assert summary["mean"] == pytest.approx(curves.best[:, -1].mean())
    assert 0 <= summary["regret"] < 2 and 1 <= summary["rank"] <= len(ground.table.places)
    for name in ("a.svg", "b.png"):
        panel = Panel("Evaluations", np.arange(1, curves.best.shape[1] + 1), {"random_search": curves.best})
        write_replay_figure(tmp_path / name, [panel], 1.5, "Replays")
        assert (tmp_path / name).stat().st_size > 1000


def test_a_table_of_shorter_trainings_is_refused(path, tmp_path):
    written = json.loads(path.read_text())
    written["config"]["evaluator"]["budgets"] = [0.5]
    (tmp_path / "short.json").write_text(json.dumps(written))
    with pytest.raises(ConfigError, match=r"trained on a part of the steps: budgets \(0\.5,\)"):
        make_ground(recipe(tmp_path / "short.json", "random_search"))
