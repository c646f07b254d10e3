r"""Kills a search (kill -9) at random moments, resumes it each time, and compares with one run through.

  python scripts/check_resume.py --config=configs/elenas/small.py --config.generations=6 \
      --run_dir=runs/resume --kills=5

Prints where each kill hit. Ends with code 1 unless the exports (all candidates by generation and place,
without wall-clock columns), the best blocks and the metrics are equal, byte for byte. The limit must be in
generations or evaluations: a run limited by minutes ends where the clock says.
"""

import json
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

sys.path.insert(0, str(Path(__file__).parents[1]))

from elenas_jax.experiment.archive import best_block
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.flags import parse_flags, require
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import RunDir, read_metrics, run_dir
from elenas_jax.experiment.session import one_line_errors

_CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe; overrides as for search.py.")
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Folder for both runs; emptied first.")
_KILLS = flags.DEFINE_integer("kills", 5, "How often to kill.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")


def start(folder: Path) -> subprocess.Popen:
    """Starts search.py in `folder` with the config and overrides of this command."""
    config = [argument for argument in sys.argv[1:] if argument.lstrip("-").startswith("config")]
    script = Path(__file__).with_name("search.py")
    export = folder.with_suffix(".jsonl")
    command = [sys.executable, str(script), *config, f"--run_dir={folder}", f"--export={export}"]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def count(run: RunDir) -> tuple[int, int]:
    """Returns how many generations and trainings a run has, killed or not."""
    if not run.archive.exists():
        return 0, 0
    connection = sqlite3.connect(f"{run.archive.as_uri()}?mode=ro", uri=True, timeout=60)
    try:
        trained = connection.execute("SELECT COUNT(*) FROM evaluations").fetchone()[0]
    except sqlite3.OperationalError:  # the tables are not there yet
        trained = 0
    finally:
        connection.close()
    return len(run.metrics.read_bytes().splitlines()) if run.metrics.exists() else 0, trained


def run_through(folder: Path) -> tuple[int, float]:
    """Runs a search to its end; returns its generations, and the seconds of one after the first."""
    process, first = start(folder), None
    while process.poll() is None:
        time.sleep(0.01)
        if first is None and count(run_dir(folder))[0]:
            first = time.monotonic()
    if process.returncode:
        sys.exit(process.returncode)
    total, trained = count(run_dir(folder))
    seconds = 0.0 if first is None else (time.monotonic() - first) / total
    print(f"Run through: {total} generations of about {seconds:.2f} s, {trained} trainings", flush=True)
    return total, seconds


def kill_and_resume(folder: Path, total: int, seconds: float) -> None:
    """Kills `--kills` sessions at random moments, then lets the run end.

    A moment is a generation and a while after it; some sessions are killed as they start.
    """
    moments = random.Random(_SEED.value)
    for number, share in enumerate(sorted(moments.random() for _ in range(_KILLS.value)), start=1):
        early = time.monotonic() + (moments.uniform(0.0, 10.0) if moments.random() < 0.2 else float("inf"))
        process = start(folder)
        while (
            process.poll() is None
            and time.monotonic() < early
            and count(run_dir(folder))[0] < int(share * total)
        ):
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, seconds))
        ended = process.poll() is not None
        process.kill()
        process.wait()
        generations, trained = count(run_dir(folder))
        what = "ended by itself" if ended else "killed"
        print(f"{number}: {what} with {generations} generations and {trained} trainings written", flush=True)
    process = start(folder)
    if process.wait():
        sys.exit(process.returncode)


def metrics(folder: Path) -> str:
    rows = read_metrics(run_dir(folder))
    return json.dumps([{k: v for k, v in row.items() if not k.startswith("seconds")} for row in rows])


def main(_: list[str]) -> None:
    with one_line_errors():
        require("config", "run_dir")
        config = check_config(_CONFIG.value)
        if config["minutes"] or not (config["generations"] or config["evaluations"]):
            raise ConfigError("minutes must be 0 and generations or evaluations a limit; see --helpshort.")
        root = Path(_RUN_DIR.value).absolute()
        whole, killed = root / "whole", root / "killed"
        for folder in (whole, killed):
            shutil.rmtree(folder, ignore_errors=True)
            folder.with_suffix(".jsonl").unlink(missing_ok=True)
        root.mkdir(parents=True, exist_ok=True)
        kill_and_resume(killed, *run_through(whole))
        equal = {
            "exports": whole.with_suffix(".jsonl").read_bytes() == killed.with_suffix(".jsonl").read_bytes(),
            "best blocks": json.dumps(best_block(whole)) == json.dumps(best_block(killed)),
            "metrics": metrics(whole) == metrics(killed),
        }
        for name, same in equal.items():
            print(f"{name}: {'equal' if same else 'DIFFERENT'}")
        sys.exit(0 if all(equal.values()) else 1)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
