"""Executes the notebooks, small, and holds that they are committed without what came out."""

import pathlib
import re

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMALL = {"GENERATIONS": 1, "CANDIDATES": 64}  # the constants of first cells, as they are here
# Notebooks that share a folder, and what must come out of each.
SESSIONS: dict[str, dict[str, tuple[str | re.Pattern[str], ...]]] = {
    "search": {
        "01_first_search": ("image/png", "image/svg+xml", "generation 1/1", "y = "),
        "02_reading_a_run": ("Nothing to do", "metrics.reber", "image/png", "image/svg+xml", "config.seed"),
    },
    "candidates": {
        "03_a_thousand_candidates": (", 8, 16, 1)", "no path from input", "answers differ by", "y = "),
    },
    "operation": {
        "04_your_own_operation": (
            "sin(",
            "jnp.sin(",
            "image/svg+xml",
            re.compile(r"[1-9]\d* of the \d+ best blocks use the new operation"),
        ),
    },
    "task": {
        "05_your_own_task": ("more A", "linear_attention", "image/png", "image/svg+xml"),
    },
}


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def make_small(book: nbformat.NotebookNode) -> None:
    """Gives the constant of the first code cell its small value."""
    first = next(cell for cell in book.cells if cell.cell_type == "code")
    (name,) = re.findall(r"^([A-Z]+) = \d+$", first.source, re.MULTILINE)
    first.source = re.sub(r"^[A-Z]+ = \d+$", f"{name} = {SMALL[name]}", first.source, flags=re.MULTILINE)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("session", SESSIONS)
def test_notebooks_run(session, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(ROOT / ".pytest_cache"))  # of what searches compile
    for variable in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable))
    for name, expected in SESSIONS[session].items():
        book = read(name)
        make_small(book)
        NotebookClient(
            book, kernel_name="python3", timeout=600, resources={"metadata": {"path": str(tmp_path)}}
        ).execute()
        came_out = str([cell.outputs for cell in book.cells if cell.cell_type == "code"])
        for text in expected:
            found = text.search(came_out) if isinstance(text, re.Pattern) else text in came_out
            assert found, f"{name} shows no {text!r}"


def test_all_notebooks_are_executed():
    assert [path.stem for path in NOTEBOOKS] == sorted(name for group in SESSIONS.values() for name in group)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_without_outputs(path):
    book = read(path.stem)
    assert set(book.metadata) == {"kernelspec"} and book.metadata.kernelspec.name == "python3"
    for cell in book.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
        assert not cell.metadata


def test_the_second_notebook_reads_the_run_of_the_first():
    configs = []
    for name in ("01_first_search", "02_reading_a_run"):
        code = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "code")
        configs.append(re.findall(r"^config = .*?^\)$", code, re.MULTILINE | re.DOTALL))
        assert len(configs[-1]) == 1 and 'run(config, "runs/notebook_search")' in code
    assert configs[0] == configs[1]
