import xml.etree.ElementTree as ElementTree

import pytest

from elenas_jax.analysis import load, tables
from tests.analysis.synthetic import write_run


@pytest.fixture(scope="module")
def runs(run_path):
    return (load.load_run(run_path),)


def test_best_blocks(runs, seeds_path):
    blocks = tables.best_blocks(runs, 4)
    assert [block["rank"] for block in blocks] == [1, 2, 3, 4]
    assert [block["hash"] for block in blocks] == [row["hash"] for row in runs[0].best[:4]]
    assert all(block["text"] and block["drawing"] for block in blocks)
    of_seeds = tables.best_blocks(load.load_runs(seeds_path), 30)
    assert [b["score"] for b in of_seeds] == sorted((b["score"] for b in of_seeds), reverse=True)
    assert {block["seed"] for block in of_seeds} <= {0, 2, 10}


def test_counts_add_up(runs):
    records = tables.count_statuses(runs)
    assert sum(record["count"] for record in records) == 240
    assert sum(record["share"] for record in records) == pytest.approx(1)
    assert records[0]["status_text"] == "ok" and records[-1]["status_text"] == "diverged"
    kinds = [row[0] for row in tables.reasons_table(runs).rows]
    assert kinds == sorted(kinds, key=("valid", "invalid", "failed").index)


def test_a_metric_not_reached_is_a_dash(runs):
    columns = tables.best_blocks_table(runs, 1000).columns
    cells = {row[columns.index("embedded_reber")] for row in tables.best_blocks_table(runs, 1000).rows}
    assert "-" in cells and "nan" not in cells


def test_text_is_aligned(runs, seeds_path):
    for table in (
        tables.best_blocks_table(load.load_runs(seeds_path)),
        tables.reasons_table(runs),
        tables.summary_table(runs),
    ):
        _, header, rule, *rows = tables.to_text(table).splitlines()
        assert len(rows) == len(table.rows)
        assert all(len(line) <= len(rule) for line in (header, *rows))


def test_html_is_well_formed_and_escaped():
    table = tables.Table("a", ("name", "value"), [("<b>&", "1")], frozenset({"value"}))
    root = ElementTree.fromstring(tables.to_html(table))
    assert [cell.text for cell in root.iter("td")] == ["<b>&", "1"]


def test_nothing_found(tmp_path):
    runs = (load.load_run(write_run(tmp_path / "run", valid_share=0.0)),)
    assert tables.best_blocks(runs) == []
    assert tables.to_text(tables.best_blocks_table(runs)) == "Best blocks: none"
    assert "None" in tables.to_html(tables.best_blocks_table(runs))
    assert tables.summary_table(runs).rows[0][-2] == "-"


@pytest.mark.parametrize(
    ("total", "text"), ((0.4, "0 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min"))
)
def test_duration(total, text):
    assert tables.duration(total) == text


def test_show_prints_plain_lines_where_there_is_no_terminal(runs, capsys):
    tables.show(tables.reasons_table(runs))
    assert capsys.readouterr().out == tables.to_text(tables.reasons_table(runs)) + "\n"
