"""Scripts that compare strategies: what they refuse to compare, before anything is trained."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("script", ["compare_strategies.py", "replay_table.py"])
@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--seeds=3", "error: --seeds=3: single seeds are not compared."),
        ("--strategies=ppo,ppo", "error: --strategies=ppo,ppo: name each strategy once."),
    ],
)
def test_single_seeds_and_repeated_names_are_refused(script, argument, message, tmp_path):
    ended = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), argument],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode and message in ended.stderr
    assert not list(tmp_path.iterdir())
