"""Parts of a report about the search: colours, what is left out, what is missing."""

import re
import sqlite3

import pytest

from elenas_jax.analysis import load, page, report_search
from elenas_jax.experiment.run_dir import run_dir
from elenas_jax.graphs import REASONS
from tests.analysis.synthetic import write_run


def test_every_reason_has_a_colour_of_its_own():
    style = (page._ASSETS / "report.css").read_text()
    schemes = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    light, dark = (dict(re.findall(r"--(\w+): (#\w+)", scheme)) for scheme in schemes)
    names = [report_search._status_class(status) for status in range(len(REASONS))]
    failures = [report_search._status_class(100 + kind) for kind in range(report_search.NUM_FAILED)]
    for colours in (light, light | dark):
        assert len({colours[name] for name in [*names, *failures]}) == len(REASONS) + report_search.NUM_FAILED
    for name in names:
        assert f".{name} {{ --key: var(--{name}); }}" in style


def with_metrics(path, **values):
    """Loads a run with these in every line of its metrics."""
    run = load.load_run(path)
    return run._replace(generations=[row | values for row in run.generations])


def test_what_is_zero_throughout_is_left_out(run_path):
    strategy = {"idle": 0.0, "busy": 2.0}
    hovers: dict = {}
    run = with_metrics(run_path, policy_steps=0, strategy=strategy)
    body = report_search.diagnostics([run], hovers)
    assert set(hovers) >= {"s0.busy", "s1.seconds"} and not {"s0.idle", "s1.policy_steps"} & set(hovers)
    assert "busy" in body and "idle" not in body and "policy steps" not in body
    # With a seed that differs it is shown.
    report_search.diagnostics([run, with_metrics(run_path, policy_steps=3)], hovers)
    assert "s1.policy_steps" in hovers
    nothing = run._replace(generations=[{"generation": 0, "strategy": {"idle": 0.0}, "policy_steps": 0}])
    assert "None were written." in report_search.diagnostics([nothing], {})


@pytest.mark.parametrize(
    ("settings", "status", "missing"),
    (
        ({"num_generations": 0}, None, "no draws"),
        ({"num_generations": 2, "valid_share": 0.0}, None, "no valid candidates"),
        ({"num_generations": 2}, 100, "no training gave a score"),
    ),
)
def test_empty_charts_say_what_is_missing(tmp_path, settings, status, missing):
    path = write_run(tmp_path / "run", **settings)
    if status:
        with sqlite3.connect(run_dir(path).archive) as connection:
            connection.execute("UPDATE candidates SET status = ? WHERE status = 0", (status,))
        connection.close()
    body = report_search.curves([load.load_run(path)], {})
    assert body.count(f">{missing}</text>") == 2
