"""Run folders for tests of the analysis."""

from pathlib import Path

import pytest

from tests.analysis.synthetic import write_run


@pytest.fixture(scope="session")
def run_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; tests that change anything copy it."""
    return write_run(tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture(scope="session")
def seeds_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of unequal length, and one that has not begun."""
    path = tmp_path_factory.mktemp("seeds")
    for seed in (0, 2, 10):
        write_run(path / f"seed_{seed}", seed=seed, num_generations=4 + seed // 2)
    (path / "seed_11").mkdir()
    return path
