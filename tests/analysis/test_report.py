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

from elenas_jax.analysis import print_summary, write_report
from elenas_jax.experiment.run_dir import RunError
from tests.analysis.synthetic import write_run
from tests.analysis.test_load import DAMAGES, damage

ROOT = pathlib.Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def parse(path: pathlib.Path) -> ElementTree.Element:
    """The page is written so that an XML parser reads it too."""
    text = path.read_text(encoding="utf-8")
    assert text.startswith("<!DOCTYPE html>")
    return ElementTree.fromstring(text)


def test_a_report_holds_everything_itself(run_path, tmp_path):
    path = write_report(shutil.copytree(run_path, tmp_path / "run"), num_blocks=3)
    assert path == tmp_path / "run" / "report.html"
    page = parse(path)
    images = [image.get("src", "") for image in page.iter("img")]
    assert len(images) == 3 and all(source.startswith("data:") for source in images)
    assert len(list(page.iter(f"{SVG}svg"))) == 3
    text = path.read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)|@import|url\(', text)
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


@pytest.mark.parametrize("name", ("a <b>&amp; 'c' \"d\"", "tab\tnew\nline\x07", os.fsdecode(b"bytes\xff")))
def test_odd_names_of_folders(run_path, tmp_path, name):
    path = write_report(shutil.copytree(run_path, tmp_path / name))
    assert parse(path).find("head/title") is not None


def test_a_block_without_a_drawing_is_listed(run_path, tmp_path):
    copy = shutil.copytree(run_path, tmp_path / "run")
    with sqlite3.connect(copy / "archive.sqlite") as connection:
        connection.execute("DELETE FROM blocks")
    connection.close()
    assert "No drawing is stored" in write_report(copy).read_text()


def test_a_drawing_of_another_form_is_one_line(run_path, tmp_path):
    copy = shutil.copytree(run_path, tmp_path / "run")
    with sqlite3.connect(copy / "archive.sqlite") as connection:
        connection.execute("UPDATE blocks SET drawing = '{\"nodes\": 1}'")
    connection.close()
    with pytest.raises(RunError, match="damaged: block"):
        write_report(copy)


def report(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / "report.py"), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_the_script(run_path, tmp_path):
    copy = shutil.copytree(run_path, tmp_path / "a run")
    done = report(f"--run_dir={copy}")
    assert done.returncode == 0, done.stderr
    assert f"Report: {copy / 'report.html'}" in done.stdout and "Equations of block" in done.stdout


@pytest.mark.parametrize("what", ("empty folder", "archive is text"))
def test_the_script_says_in_one_line_what_is_wrong(run_path, tmp_path, what):
    assert what in DAMAGES
    copy = shutil.copytree(run_path, tmp_path / "run")
    damage(copy, what)
    done = report(f"--run_dir={copy}")
    assert done.returncode == 2 and done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and str(copy) in done.stderr
    assert not (copy / "report.html").exists()


def test_the_script_explains_itself():
    done = report("--helpshort")
    assert "--run_dir" in done.stdout and "num_blocks" in done.stdout


def test_a_flag_that_is_missing_is_one_line():
    done = report()
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
def test_says_where_the_policy_comes_from(run_path, tmp_path, capsys, strategy, expected):
    copy = shutil.copytree(run_path, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"strategy": strategy}))
    assert expected in write_report(copy).read_text()
    print_summary(copy)
    assert expected in capsys.readouterr().out
