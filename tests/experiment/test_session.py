"""Sessions: what is checked before anything is written, and what a person sees."""

import io
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import jax
import pytest
from rich.console import Console

from elenas_jax.evaluation.workers import WorkerError
from elenas_jax.experiment import run_dir as files
from elenas_jax.experiment import session
from elenas_jax.experiment.archive import export_rows
from elenas_jax.experiment.config import check_config
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.experiment.run_dir import RunError
from tests.experiment.test_loop import contents
from tests.experiment.toy import ToyEvaluator, run_toy, use_toy

PREPARE = session.prepare
CONFIG = {"generations": 3, "ladder": ("reber",), "strategy": {"name": "random_search"}}


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    """Sessions that search among the toy's numbers, whatever the config says."""

    use_toy(monkeypatch)


def run(path, **changes) -> str:
    """Runs a session and returns what it printed."""
    text = io.StringIO()
    session.run({**CONFIG, **changes}, path, console=Console(file=text, width=200))
    return text.getvalue()


def snapshot(path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(Path(path).rglob("*")) if file.is_file()}


def fails(path, kind=RunError, **changes) -> str:
    """Returns the message of a session that fails: one line, and no file is changed."""
    before = snapshot(path)
    with pytest.raises(kind) as caught:
        run(path, **changes)
    after = snapshot(path)
    noise = (".lock", "-shm", "-wal")
    assert {k: v for k, v in before.items() if not k.endswith(noise)} == {
        k: v for k, v in after.items() if not k.endswith(noise)
    }
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_run_folder(tmp_path):
    shown = run(tmp_path / "a" / "run")
    folder = files.run_dir(tmp_path / "a" / "run")
    for word in (
        "random_search",
        "3 generations",
        "2 x toy",
        "6 at a time",
        "GiB",
        "generation 3/3",
        "Done: 3 generations",
    ):
        assert word in shown
    config = files.read_json(folder.config)
    assert config["ladder"] == ["reber"] and config["plan"]["executor"] == "toy"
    assert config["evaluator"]["hidden_features"] == 64
    provenance = files.read_json(folder.provenance)
    assert provenance["seed"] == 0 and len(provenance["sessions"]) == 1
    assert provenance["sessions"][0]["versions"]["jax"] == jax.__version__
    assert [row["generation"] for row in files.read_metrics(folder)] == [0, 1, 2]


def test_goes_on_with_other_limits(tmp_path):
    run(tmp_path)
    before = snapshot(tmp_path)
    assert "Nothing to do" in run(tmp_path)
    assert snapshot(tmp_path) == before
    shown = run(tmp_path, generations=5)
    assert "goes on after 3 generations" in shown
    run_dir = files.run_dir(tmp_path)
    assert files.read_json(run_dir.config)["generations"] == 5
    assert len(files.read_json(run_dir.provenance)["sessions"]) == 2


def test_says_that_the_number_of_threads_has_changed(tmp_path, monkeypatch):
    """Last bits of scores depend on it."""
    monkeypatch.setattr(session, "count_threads", lambda: 2)
    run(tmp_path)
    assert "Note" not in run(tmp_path, generations=4)
    monkeypatch.setattr(session, "count_threads", lambda: 3)
    assert "another commit, other versions, devices or threads (see provenance.json)" in run(
        tmp_path, generations=5
    )
    folder = files.run_dir(tmp_path)
    provenance = files.read_json(folder.provenance)
    assert [each["threads"] for each in provenance["sessions"]] == [2, 2, 3]
    del provenance["sessions"][-1]["threads"]  # as an older version wrote it
    files.write_json(folder.provenance, provenance)
    assert "Note" not in run(tmp_path, generations=6)


@pytest.mark.parametrize("kind", (ConfigError, RunError, WorkerError))
def test_errors_that_users_can_mend_are_one_line(capsys, kind):
    with pytest.raises(SystemExit) as caught, session.one_line_errors():
        raise kind("this is\nwrong")
    assert caught.value.code == 2 and capsys.readouterr().err == "error: this is wrong\n"


def test_a_folder_of_another_config(tmp_path):
    run(tmp_path)
    message = fails(tmp_path, seed=1, evaluator={"hidden_features": 32})
    assert "seed (0 there, 1 now)" in message and "evaluator.hidden_features (64 there, 32 now)" in message


def test_a_folder_of_before_there_was_a_key(tmp_path):
    """What a stored config lacks has its default; that is what the run was made with."""
    run(tmp_path, strategy={"name": "evolution"})
    stored = files.read_json(files.run_dir(tmp_path).config)
    del stored["evaluator"]["name"], stored["strategy"]["frozen"], stored["strategy"]["start"]
    files.write_json(files.run_dir(tmp_path).config, stored)
    message = fails(tmp_path, strategy={"name": "evolution", "frozen": True}, generations=5)
    assert "strategy.frozen (false there, true now)" in message
    assert "start" not in message and "evaluator" not in message
    assert "goes on after 3 generations" in run(tmp_path, strategy={"name": "evolution"}, generations=5)


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    assert "no config.json" in fails(tmp_path)
    file = tmp_path / "thesis.tex"
    assert "cannot be a run folder" in fails(file)


def test_a_bad_config_makes_no_folder(tmp_path):
    assert "'generations'" in fails(tmp_path / "run", ConfigError, generation=3)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    assert "Cannot write" in fails(tmp_path / "run")


def test_a_place_that_cannot_be_written():
    if Path("/proc/self").exists():
        assert "Cannot write in run folder /proc/run" in fails("/proc/run")


@pytest.mark.parametrize("damage", ("cut", "overwritten", "emptied", "missing", "another database"))
def test_a_damaged_archive(tmp_path, damage):
    run(tmp_path)
    archive = files.run_dir(tmp_path).archive
    content = archive.read_bytes()
    assert len(content) > 8192
    if damage == "cut":
        archive.write_bytes(content[:4096])
    elif damage == "overwritten":
        archive.write_bytes(content[:4096] + os.urandom(len(content) - 4096))
    elif damage == "emptied":
        archive.write_bytes(b"")
    else:
        archive.unlink()
    if damage == "another database":
        connection = sqlite3.connect(archive)
        connection.execute("CREATE TABLE recipes(name TEXT)")
        connection.commit()
        connection.close()
    with pytest.raises(RunError) as caught:
        run(tmp_path, generations=5)
    assert str(archive) in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_checkpoint(tmp_path):
    run(tmp_path)
    newest = files.run_dir(tmp_path).checkpoints / "3"
    for file in newest.rglob("*"):
        if file.is_file() and file.stat().st_size:
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 0xFF
            file.write_bytes(content)
    message = fails(tmp_path, generations=5)
    assert "Checkpoint 3 is damaged" in message and str(newest) in message


@pytest.mark.parametrize("name", ("config.json", "metrics.jsonl", "provenance.json"))
def test_damaged_text(tmp_path, name):
    run(tmp_path)
    (tmp_path / name).write_text("{" + (tmp_path / name).read_text())
    assert str(tmp_path / name) in fails(tmp_path, generations=5)


def test_two_processes_in_one_folder(tmp_path):
    run(tmp_path)
    held = (
        "from elenas_jax.experiment.run_dir import locked, run_dir\n"
        f"with locked(run_dir({str(tmp_path)!r})): print(1, flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", held], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "1\n"
        assert f"in use by process {process.pid}" in fails(tmp_path, generations=5)
        process.kill()
    assert "Done" in run(tmp_path, generations=5)


def test_ctrl_c_ends_cleanly(tmp_path, monkeypatch):
    real, count = ToyEvaluator._train, [0]

    def train(self, key):
        count[0] += 1
        if count[0] == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(ToyEvaluator, "_train", train)
        shown = run(tmp_path / "a", generations=6)
    assert "Stopped; everything is saved. To go on:" in shown
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    run(tmp_path / "a", generations=6)
    run(tmp_path / "b", generations=6)
    assert export_rows(tmp_path / "a") == export_rows(tmp_path / "b")


def test_tensorboard(tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    run(tmp_path / "a", tensorboard=True)
    assert list((tmp_path / "a" / "tensorboard").glob("events.*"))
    monkeypatch.setattr(session.importlib.util, "find_spec", lambda name: None)
    assert "pip install" in fails(tmp_path / "b", ConfigError, tensorboard=True)


def test_a_terminal_gets_a_live_line(tmp_path):
    text = io.StringIO()
    session.run(CONFIG, tmp_path, console=Console(file=text, width=200, force_terminal=True))
    assert "generation 3/3" in text.getvalue() and "\x1b[" in text.getvalue()


def test_killed_processes_change_nothing(tmp_path):
    """A real kill -9 of a process that searches, at three moments; the toy writes as a real search does."""
    run_toy(tmp_path / "whole", generations=30)
    command = [sys.executable, "-m", "tests.experiment.toy", str(tmp_path / "killed"), "30"]
    metrics = files.run_dir(tmp_path / "killed").metrics
    for generations in (1, 8, 20):
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if metrics.exists() and metrics.read_bytes().count(b"\n") >= generations:
                break
            time.sleep(0.003 * generations)  # not in step with the generations
        process.kill()
        process.wait()
    run_toy(tmp_path / "killed", generations=30)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert (
        json.loads((tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()[-1])["generation"] == 29
    )


def test_a_compilation_cache_that_cannot_be_written(tmp_path):
    resolved = check_config({"compilation_cache": str(tmp_path / "file" / "xla")})
    (tmp_path / "file").write_text("no folder")
    text = io.StringIO()
    PREPARE(resolved, Console(file=text, width=200))
    assert "cannot be written" in text.getvalue()


def test_the_compilation_cache_keeps_its_newest_files(tmp_path):
    for age, name in enumerate(
        ("jit_fused_segment-new-cache", "jit_fused_segment-old-cache", "jit_ask-other-cache")
    ):
        (tmp_path / name).write_bytes(bytes(100))
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    session._prune(tmp_path, 150)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "jit_ask-other-cache",
        "jit_fused_segment-new-cache",
    ]
    session._prune(tmp_path / "missing", 0)


def test_small_programs_are_cached_in_the_first_generation_only(tmp_path):
    name = "jax_persistent_cache_min_compile_time_secs"
    before = getattr(jax.config, name)
    try:
        PREPARE(check_config({"compilation_cache": str(tmp_path / "xla")}), Console(file=io.StringIO()))
        assert getattr(jax.config, name) == 0.0
        run(tmp_path / "run")
        assert getattr(jax.config, name) == session.CACHE_SECONDS
    finally:
        jax.config.update(name, before)
        jax.config.update("jax_compilation_cache_dir", None)


def test_a_goal_ends_a_run_which_can_go_on_later(tmp_path):
    seen = []

    def until(candidates):
        seen.append({row.generation for row in candidates})
        return "a goal" if len(seen) == 2 else ""

    outcome = session.run(CONFIG, tmp_path, console=Console(file=io.StringIO()), until=until)
    assert (outcome.why, outcome.num_generations) == ("a goal", 2)
    assert seen == [{0}, {1}]
    assert session.run(CONFIG, tmp_path, console=Console(file=io.StringIO())).why == "3 generations"
