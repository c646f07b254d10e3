import json
import os
import pathlib
import re
import shutil
import sqlite3
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from elenas_jax.analysis import load_run, print_summary, report, report_blocks, write_report
from elenas_jax.experiment.run_dir import RunError
from elenas_jax.spaces.einspace_drawing import draw_derivation, draw_tree
from elenas_jax.spaces.einspace_grammar import make_einspace_grammar
from elenas_jax.spaces.einspace_listing import describe_derivation
from elenas_jax.spaces.einspace_seeds import make_seed
from elenas_jax.spaces.einspace_typing import infer, state_of
from tests.analysis.synthetic import write_run
from tests.analysis.test_load import DAMAGES, damage

ROOT = pathlib.Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def parse(path: pathlib.Path) -> ElementTree.Element:
    """The page is written so that an XML parser reads it too."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    return ElementTree.fromstring(text)


@pytest.fixture
def no_figures(monkeypatch):
    """Leaves out the files of figures/ that nearly all the time of a report goes into."""
    monkeypatch.setattr(report, "write_figures", lambda runs, folder: folder.mkdir(exist_ok=True))


def test_a_report_holds_everything_itself(run_path, tmp_path):
    path = write_report(shutil.copytree(run_path, tmp_path / "run"), num_blocks=3)
    assert path == tmp_path / "run" / "report.html"
    page = parse(path)
    cards = [card for card in page.iter("article") if card.find(f".//{SVG}svg") is not None]
    assert [card.get("id") for card in cards] == ["block-1", "block-2", "block-3"]
    charts = [figure.get("data-chart") for figure in page.iter("figure")]
    assert charts[:4] == ["best_so_far", "reward", "trade_off", "validity"]
    assert {"s0.entropy", "s0.gradient_norm", "s1.seconds"} <= set(charts)
    assert len(list(page.iter(f"{SVG}svg"))) == len(charts) + 3
    text = path.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)|@import|url\(|https?://(?!www\.w3\.org/2000/svg)', text)
    assert "&lt; 1" in text and "no path from input" in text and "0123abc" in text
    names = {path.name for path in (tmp_path / "run" / "figures").iterdir()}
    assert {
        "reward.svg",
        "reward.png",
        "validity.svg",
        "best_so_far.png",
        "block_1.svg",
        "block_3.svg",
    } <= names
    for picture in (tmp_path / "run" / "figures").glob("*.svg"):
        ElementTree.parse(picture)


@pytest.mark.usefixtures("no_figures")
def test_every_link_leads_to_a_place_on_the_page(run_path, tmp_path):
    page = parse(write_report(shutil.copytree(run_path, tmp_path / "run"), num_blocks=2))
    names = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(names) == len(set(names))
    links = {link.get("href", "").removeprefix("#") for tag in ("a", f"{SVG}a") for link in page.iter(tag)}
    assert links <= set(names) and {"block-1", "block-2", "best-3", "best-20", "diagnostics"} <= links


@pytest.mark.usefixtures("no_figures")
def test_the_plot_of_sizes_has_every_valid_candidate_and_the_table_the_best(run_path, tmp_path):
    page = parse(write_report(shutil.copytree(run_path, tmp_path / "run")))
    run = load_run(run_path, num_best=1000)
    data = json.loads(page.find("body/script[@id='report-data']").text)
    circles = [c for c in page.iter(f"{SVG}circle") if "point" in c.get("class", "").split()]
    assert len(circles) == len(data["points"]) == run.num_valid_blocks
    hashes = [record["hash"][:8] for record in run.best]
    assert [point[0] for point in data["points"]] == hashes
    rows = page.findall(".//table[@id='best']/tbody/tr")
    assert ["".join(row[1].itertext()) for row in rows] == hashes[:20]
    assert data["tasks"] == list(run.task_names)


@pytest.mark.usefixtures("no_figures")
def test_many_candidates_are_thinned_and_the_page_says_so(run_path, tmp_path, monkeypatch):
    monkeypatch.setattr(report_blocks, "MOST_POINTS", 30)
    text = write_report(shutil.copytree(run_path, tmp_path / "run")).read_text()
    data = json.loads(ElementTree.fromstring(text).find("body/script[@id='report-data']").text)
    assert len(data["points"]) == 30 and "(30 of them are drawn" in text
    assert data["points"][0][0] == load_run(run_path).best[0]["hash"][:8]


def test_a_folder_of_an_older_kind_is_a_report_too(run_path, tmp_path):
    copy = shutil.copytree(run_path, tmp_path / "run")
    (copy / "provenance.json").unlink()
    (copy / "metrics.jsonl").unlink()
    (copy / "config.json").write_text("{}")
    page = parse(write_report(copy))
    assert "None were written." in "".join(page.itertext())


def test_scores_that_are_no_numbers_are_left_out_of_the_plots(run_path, tmp_path):
    copy = shutil.copytree(run_path, tmp_path / "run")
    with sqlite3.connect(copy / "archive.sqlite") as connection:
        connection.execute("UPDATE candidates SET score = 9e999 WHERE generation = 3")
        connection.execute("UPDATE candidates SET score = NULL WHERE generation = 4")
    connection.close()
    page = parse(write_report(copy))
    data = json.loads(page.find("body/script[@id='report-data']").text)
    assert data["points"] and all(point[1] != "-" for point in data["points"])
    assert not re.search(r"\b(nan|inf)\b", "".join(path.get("d", "") for path in page.iter(f"{SVG}path")))


def test_writing_again_gives_the_same_and_leaves_no_old_pictures(run_path, tmp_path):
    copy = shutil.copytree(run_path, tmp_path / "run")
    first = write_report(copy, num_blocks=2).read_bytes()
    (copy / "figures" / "block_7.svg").write_text("of an earlier report")
    assert write_report(copy, num_blocks=2).read_bytes() == first
    assert sorted(path.name for path in (copy / "figures").glob("block_*")) == ["block_1.svg", "block_2.svg"]


def test_seeds_together(seeds_path, tmp_path, capsys):
    copy = shutil.copytree(seeds_path, tmp_path / "all")
    page = parse(write_report(copy))
    assert "3 seeds" in "".join(page.itertext())
    assert not (copy / "seed_0" / "report.html").exists()
    print_summary(copy)
    assert "seed" in capsys.readouterr().out


@pytest.mark.parametrize(
    "settings", ({"valid_share": 0.0}, {"num_generations": 0}), ids=("none valid", "no rows")
)
def test_nothing_found_is_a_report_too(tmp_path, capsys, settings):
    page = parse(write_report(write_run(tmp_path / "run", **settings)))
    assert "None." in "".join(page.itertext())
    print_summary(tmp_path / "run")
    assert "Best blocks: none" in capsys.readouterr().out


@pytest.mark.usefixtures("no_figures")
def test_a_single_generation_is_a_report_too(tmp_path):
    page = parse(write_report(write_run(tmp_path / "run", num_generations=1)))
    assert any("dot" in mark.get("class", "").split() for mark in page.iter(f"{SVG}circle"))


@pytest.mark.parametrize("name", ("a <b>&amp; 'c' \"d\"", "tab\tnew\nline\x07", os.fsdecode(b"bytes\xff")))
@pytest.mark.usefixtures("no_figures")
def test_odd_names_of_folders(run_path, tmp_path, name):
    path = write_report(shutil.copytree(run_path, tmp_path / name))
    assert parse(path).find("head/title") is not None


@pytest.mark.usefixtures("no_figures")
def test_a_block_without_a_drawing_is_listed(run_path, tmp_path):
    copy = shutil.copytree(run_path, tmp_path / "run")
    with sqlite3.connect(copy / "archive.sqlite") as connection:
        connection.execute("DELETE FROM blocks")
    connection.close()
    assert "No drawing is stored" in write_report(copy).read_text()


@pytest.mark.usefixtures("no_figures")
def test_a_drawing_of_another_form_is_one_line(run_path, tmp_path):
    copy = shutil.copytree(run_path, tmp_path / "run")
    with sqlite3.connect(copy / "archive.sqlite") as connection:
        connection.execute("UPDATE blocks SET drawing = '{\"nodes\": 1}'")
    connection.close()
    with pytest.raises(RunError, match="damaged: block"):
        write_report(copy)


def call(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "report.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_the_script(run_path, tmp_path):
    copy = shutil.copytree(run_path, tmp_path / "a run")
    done = call(f"--run_dir={copy}")
    assert done.returncode == 0, done.stderr
    assert f"Report: {copy / 'report.html'}" in done.stdout and "Equations of block" in done.stdout


@pytest.mark.parametrize("what", ("empty folder", "archive is text"))
def test_the_script_says_in_one_line_what_is_wrong(run_path, tmp_path, what):
    assert what in DAMAGES
    copy = shutil.copytree(run_path, tmp_path / "run")
    damage(copy, what)
    done = call(f"--run_dir={copy}")
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and str(copy) in done.stderr
    assert not (copy / "report.html").exists()


def test_the_script_explains_itself():
    done = call("--helpshort")
    assert "--run_dir" in done.stdout and "num_blocks" in done.stdout


def test_a_flag_that_is_missing_is_one_line():
    done = call()
    assert done.returncode == 2 and done.stderr == "error: --run_dir=... is missing; see --helpshort.\n"


def test_a_folder_that_cannot_be_written_is_one_line(run_path, tmp_path):
    copy = shutil.copytree(run_path, tmp_path / "run")
    (copy / "figures").write_text("in the way")  # holds for every user, a mode would not stop root
    with pytest.raises(RunError, match="Cannot write the report"):
        write_report(copy)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ({"name": "ppo", "pretrained": "runs/policy"}, "strategy ppo pre-trained in runs/policy,"),
        ({"name": "ppo", "pretrained": ""}, "strategy ppo from scratch,"),
        ({"name": "evolution"}, "strategy evolution,"),
    ],
)
@pytest.mark.usefixtures("no_figures")
def test_says_where_the_policy_comes_from(run_path, tmp_path, capsys, strategy, expected):
    copy = shutil.copytree(run_path, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"strategy": strategy}))
    assert expected in write_report(copy).read_text()
    print_summary(copy)
    assert expected in capsys.readouterr().out


def test_a_report_shows_derivations_as_it_shows_graphs(no_figures, tmp_path):
    grammar = make_einspace_grammar()
    typed = infer(make_seed("resnet10", grammar), state_of((3, 64, 64)))
    text = describe_derivation(typed)
    drawing = draw_derivation(typed) | {"tree": draw_tree(typed)}
    run = write_run(tmp_path / "run", drawings=(drawing,), texts=(text,))
    page = parse(write_report(run, num_blocks=1))
    (card,) = (card for card in page.iter("article") if card.get("id") == "block-1")
    assert [pre.text for pre in card.iter("pre")] == [text]
    network, tree = card.iter(f"{SVG}svg")
    nodes, rules = (
        [group for group in svg.iter(f"{SVG}g") if group.get("class") == "node"] for svg in (network, tree)
    )
    assert len(nodes) == 39 and {"conv 3x3, 64", "64x32x32"} <= {
        words.text for node in nodes for words in node.iter(f"{SVG}text")
    }
    assert len(rules) == len(drawing["tree"]["nodes"])
    assert "How it was derived" in {words.text for words in card.iter("summary")}
    svg = card.find(f".//{SVG}svg")
    assert svg is not None and float(svg.get("width", "")) < 1700, "long networks stand in rows"
    table = page.find(".//table[@id='best']")
    assert table is not None and text.splitlines()[-1] in "".join(table.itertext())
