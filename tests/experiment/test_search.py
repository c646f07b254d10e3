"""scripts/search.py as a user runs it: real trainings, a real kill -9, repeated seeds."""

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from elenas_jax.experiment.archive import best_block, export_rows
from elenas_jax.experiment.run_dir import read_json, read_metrics, run_dir

ROOT = Path(__file__).parents[2]
RECIPE = """
from elenas_jax.experiment.config import default_config

def get_config():
    return default_config(
        generations=3,
        minutes=1000.0,
        ladder=("reber",),
        tasks={"reber": {"steps": 128, "valid_samples": 64}},
        space={"num_nodes": 8},
        strategy={"name": "random_search", "batch_size": 8},
        evaluator={"hidden_features": 8, "batch_size": 8, "candidates_per_device": 2, "num_devices": 2},
    )
"""


@pytest.fixture(scope="module")
def search(tmp_path_factory):
    """Returns a function that starts scripts/search.py in a folder with the recipe above."""
    home = tmp_path_factory.mktemp("search")
    (home / "recipe.py").write_text(RECIPE)

    def start(folder, *more: str) -> subprocess.Popen:
        command = [sys.executable, str(ROOT / "scripts" / "search.py"), f"--config={home / 'recipe.py'}"]
        command += [f"--config.compilation_cache={home / 'xla'}", f"--run_dir={folder}", *more]
        environment = os.environ | {"JAX_PLATFORMS": "cpu"}
        return subprocess.Popen(
            command, cwd=home, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    return start


def finish(process: subprocess.Popen) -> str:
    shown, _ = process.communicate(timeout=280)
    assert process.returncode == 0, shown
    return shown


def num_trainings(folder: Path) -> int:
    archive = run_dir(folder).archive
    if not archive.exists():
        return 0
    connection = sqlite3.connect(f"{archive.as_uri()}?mode=ro", uri=True, timeout=60)
    try:
        return connection.execute("SELECT COUNT(*) FROM evaluations").fetchone()[0]
    except sqlite3.OperationalError:  # the tables are not there yet
        return 0
    finally:
        connection.close()


@pytest.mark.slow
def test_kill_9_changes_nothing(search, tmp_path):
    shown = finish(search(tmp_path / "seeds", "--seeds=0,1", f"--export={tmp_path / 'whole.jsonl'}"))
    assert "random_search in elenas, seed 0" in shown and "seed 1" in shown and "generation 3/3" in shown
    whole, other = (tmp_path / "seeds" / f"seed_{seed}" for seed in (0, 1))
    assert [row["hash"] for row in export_rows(whole)] != [row["hash"] for row in export_rows(other)]

    killed = tmp_path / "killed"
    process = search(killed)
    while process.poll() is None and not num_trainings(killed):
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert num_trainings(killed) > 0 and len(read_metrics(run_dir(killed))) < 3
    finish(search(killed, f"--export={tmp_path / 'killed.jsonl'}"))

    assert (tmp_path / "killed.jsonl").read_bytes() == (tmp_path / "whole_0.jsonl").read_bytes()
    assert best_block(killed) == best_block(whole) is not None
    assert len(read_json(run_dir(killed).provenance)["sessions"]) == 2
