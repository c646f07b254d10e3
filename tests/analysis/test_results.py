"""Results: files that are checked, and pages that show them between markers."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from elenas_jax.analysis import results
from elenas_jax.analysis.results import (
    check_result,
    load_result,
    make_result,
    render,
    render_page,
    to_markdown,
    write_result,
)
from elenas_jax.experiment.run_dir import RunError

ROOT = Path(__file__).parents[2]
PAGE = "# Title\n\n<!-- results:one -->\nold\n<!-- end results:one -->\n\nEnd.\n"


def some_result(**changes):
    fields = {
        "title": "One table",
        "columns": ["block", "parameters", "20"],
        "rows": [["a|b", 12345, "73.1 ± 20.2"], ["c", None, "-"], ["d", 7, 0.123456]],
        "note": "Mean over\nruns.",
        "seeds": {"there": 2, "planned": 10},
        "config": {"steps": 4},
        "cores": 2,
        "devices": "2 x cpu (cpu)",
    }
    return make_result(**fields | changes)


@pytest.fixture
def folder(tmp_path):
    write_result(tmp_path / "results" / "one.json", some_result())
    return tmp_path / "results"


def test_a_result_says_what_made_it(folder):
    result = load_result(folder / "one.json")
    assert result == some_result()
    assert result.machine["cores"] == 2 and result.machine["cpu"]
    assert result.versions["jax"] and result.command.startswith("python ")
    assert [path.name for path in folder.iterdir()] == ["one.json"]  # nothing half written


def test_markdown_is_a_table_with_its_source():
    text = to_markdown(some_result()._replace(commit="0123456789+changes", date="2026-11-28"))
    assert text.splitlines()[:6] == [
        "**One table**",
        "",
        "| block | parameters | 20 |",
        "| --- | ---: | ---: |",
        r"| a\|b | 12,345 | 73.1 ± 20.2 |",
        "| c | - | - |",
    ]
    assert "| d | 7 | 0.1235 |" in text
    assert "Mean over runs. Not full: 2 of 10 seeds are there." in text
    assert "commit 0123456+changes" in text and "2026-11-28" in text
    full = to_markdown(some_result(seeds={"there": 10, "planned": 10}))
    assert "Seeds: 10." in full and "Not full" not in full
    assert "eeds" not in to_markdown(some_result(seeds=None))


def test_commands_name_no_folder_of_a_machine(monkeypatch):
    arguments = [
        str(ROOT / "scripts" / "rank_memory.py"),
        f"--blocks=lstm,{ROOT / 'found.json'},/somewhere/else.json",
        "--run_dir=/somewhere/run",
        "--lengths=20,30",
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    assert some_result().command == (
        "python scripts/rank_memory.py --blocks=lstm,found.json,else.json --run_dir=run --lengths=20,30"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": [["a", 1]]}, "row 1 must be a list of 3 cells"),
        ({"rows": [["a", [1], 2]]}, "row 1, 'parameters' must be text, a number or null"),
        ({"columns": []}, "'columns' must be a list of names"),
        ({"note": 3}, "'note' must be text, not 3"),
        ({"seeds": {"there": 2}}, "'seeds' must be"),
        ({"machine": {"cores": 2}}, "'machine' lacks 'cpu'"),
        ({"colums": []}, "'colums' is no key of a result"),
    ],
)
def test_what_is_wrong_is_one_line(change, message):
    data = json.loads(json.dumps(some_result()._asdict()))
    with pytest.raises(RunError, match=message) as error:
        check_result(data | change, "one.json")
    assert str(error.value).startswith("one.json: ") and "\n" not in str(error.value)


def test_missing_keys_and_other_values_are_said():
    data = some_result()._asdict()
    del data["title"]
    with pytest.raises(RunError, match="'title' is missing"):
        check_result(data, "x")
    with pytest.raises(RunError, match="x is no result"):
        check_result([1], "x")


def test_only_what_is_between_markers_changes(folder):
    once = render(PAGE, folder)
    assert once.startswith("# Title\n\n<!-- results:one -->\n**One table**")
    assert once.endswith("\n<!-- end results:one -->\n\nEnd.\n") and "old" not in once
    assert render(once, folder) == once
    assert render("No markers.", folder) == "No markers."


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<!-- results:two -->\n<!-- end results:two -->\n", "there is no .*two.json"),
        ("<!-- results:one -->\n", "has no <!-- end results:one -->"),
        ("<!-- end results:one -->\n", "Line 1: .* stands where <!-- results:"),
        ("<!-- results:one -->\n<!-- results:one -->\n", "Line 2: .* stands where <!-- end results:one -->"),
        ("\n<!-- results:one -->\n<!-- end results:two -->\n", "Line 3: "),
    ],
)
def test_markers_that_do_not_fit_are_said(folder, page, message):
    with pytest.raises(RunError, match=message):
        render(page, folder)


def test_a_stale_page_is_found_and_written(folder, tmp_path):
    page = tmp_path / "README.md"
    page.write_text(PAGE)
    assert not render_page(page, folder, write=False)
    assert page.read_text() == PAGE
    assert not render_page(page, folder, write=True)
    assert render_page(page, folder, write=False)
    write_result(folder / "one.json", some_result(title="Another"))
    assert not render_page(page, folder, write=False)
    with pytest.raises(RunError, match="Cannot read"):
        render_page(tmp_path / "none.md", folder, write=False)


def test_the_script_finds_a_stale_page(folder, tmp_path):
    page = tmp_path / "README.md"
    page.write_text(PAGE)
    write_result(folder / "two.json", some_result())
    command = [
        sys.executable,
        "scripts/render_results.py",
        "--check",
        f"--page={page}",
        f"--results={folder}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "not up to date" in done.stderr, done.stderr
    assert "does not show two.json" in done.stdout
    assert page.read_text() == PAGE


def test_the_readme_is_up_to_date():
    assert render_page(ROOT / "README.md", ROOT / "results", write=False)


def test_the_processor_has_a_name():
    assert results.processor_name()
