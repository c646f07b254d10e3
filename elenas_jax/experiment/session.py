"""A session: one call that starts a run, or goes on with it, and shows what happens.

Order: the config is checked, then the run folder (nothing is written so far), then everything is
built, then the folder is locked and written.
"""

import contextlib
import importlib.util
import os
import shlex
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
from rich.console import Console

from elenas_jax.evaluation.parallel import configure_devices, count_threads
from elenas_jax.evaluation.workers import WorkerError
from elenas_jax.experiment import run_dir as files
from elenas_jax.experiment.archive import SCHEMA_VERSION, Archive, Row
from elenas_jax.experiment.build import build
from elenas_jax.experiment.checkpoint import Checkpoints
from elenas_jax.experiment.config import FREE_KEYS, check_config, default_values
from elenas_jax.experiment.loop import Experiment, Outcome, limit_reached, restore, search
from elenas_jax.experiment.plan import plan_table
from elenas_jax.experiment.progress import Progress, TensorBoard
from elenas_jax.experiment.rules import ConfigError
from elenas_jax.types import PyTree

INTERRUPTED = 130  # exit code of a process that was stopped by Ctrl-C


def run(
    config: Mapping[str, Any] | ml_collections.ConfigDict,
    path: str | os.PathLike,
    *,
    console: Console | None = None,
    until: Callable[[list[Row]], str] = lambda candidates: "",
) -> Outcome:
    """Runs the search of `config` in the folder `path`, or goes on with it.

    Args:
      config: see `config`; what it leaves out has its default.
      path: new, empty, or a run folder of the same config.
      console: where the plan and the progress are shown.
      until: a goal that ends the run, see `loop.search`.

    Returns:
      How it ended. `why` is empty if Ctrl-C (or SIGTERM) ended it; all that was done is saved then.

    Raises:
      ConfigError: if the config cannot be run; nothing was written.
      RunError: if the folder cannot be used; what is in it stays as it is.
      WorkerError: if all worker processes died and none can be started; what was trained is saved.
    """
    console = console or Console(highlight=False)
    resolved = check_config(config)
    _check_tensorboard(resolved)
    run = files.run_dir(path)
    defaults = default_values(resolved)
    if files.check_same_config(run, resolved, FREE_KEYS, defaults):
        rows = files.read_metrics(run)
        if why := limit_reached(rows, resolved):
            console.print(f"Nothing to do: {run.path} has reached {why}.", soft_wrap=True)
            return Outcome(len(rows), why)
    prepare(resolved, console)
    archive = Archive(run.archive)
    experiment = build(resolved, archive)
    with contextlib.closing(experiment.evaluator), _prepared(experiment), files.locked(run):
        stored = files.check_same_config(run, resolved, FREE_KEYS, defaults)
        if not stored:  # the first file, so that a folder without it holds nothing
            files.write_json(run.config, resolved | {"plan": experiment.evaluator.plan})
        with contextlib.closing(Checkpoints(run.checkpoints)) as checkpoints, archive:
            if checkpoints.newest() and not run.archive.exists():
                raise files.RunError(f"{run.archive} is missing; restore it or start in a new folder.")
            task_names, reasons = experiment.evaluator.task_names, experiment.space.reasons
            archive.open({"task_names": task_names, "reasons": reasons})
            state, rows = restore(experiment, run, archive, checkpoints)
            _add_session(run, experiment, console)
            if stored:  # limits and the like may have changed
                files.write_json(run.config, resolved | {"plan": stored.get("plan")})
            console.print(plan_table(experiment, run, rows))
            outcome = _search(experiment, run, archive, checkpoints, state, rows, console, until)
    if outcome.why:
        console.print(f"Done: {outcome.why} reached. Run folder: {run.path}", soft_wrap=True)
    else:
        command = shlex.join([Path(sys.executable).name, *sys.argv])
        console.print(f"Stopped; everything is saved. To go on: {command}", soft_wrap=True)
    return outcome


CACHE_BYTES = 2**30  # of single candidates' programs in the compilation cache, kept from session to session
CACHE_SECONDS = 0.5  # of compiling, from which programs are cached after the first generation


def prepare(resolved: Mapping[str, Any], console: Console) -> None:
    """Sets up devices and the compilation cache; call it before anything runs on a device."""
    if resolved["evaluator"].get("workers"):
        # An accelerator's memory is shared with the workers.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    try:
        # What is trained one by one takes one device; workers have their own.
        configure_devices(resolved["evaluator"].get("num_devices", 1) or 0)
    except ValueError as error:
        raise ConfigError(f"evaluator.num_devices: {' '.join(str(error).split())}") from error
    if resolved["compilation_cache"] == "off":
        return
    folder = Path(resolved["compilation_cache"]).expanduser()
    if resolved["compilation_cache"] == "default":
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "elenas_jax" / "xla"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError
    except OSError:
        console.print(f"Note: {folder} cannot be written, so every session compiles anew.", soft_wrap=True)
        return
    _prune(folder, CACHE_BYTES)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def _keep_large_programs_only() -> None:
    """From here on the compilation cache takes what is slow to compile: candidates' programs are many.

    What every search needs is compiled by the end of its first generation, and that is cached however small.
    """
    jax.config.update("jax_persistent_cache_min_compile_time_secs", CACHE_SECONDS)


def _prune(folder: Path, most_bytes: int) -> None:
    """Deletes single candidates from the compilation cache, oldest first: they hardly ever come back."""
    found = []
    for pattern in ("jit_fused_segment-*-cache", "jit_individual_*-cache"):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):  # another session may prune too
                found.append((path.stat().st_mtime, path.stat().st_size, path))
    surplus = sum(size for _, size, _ in found) - most_bytes
    for _, size, path in sorted(found):
        if surplus <= 0:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        surplus -= size


@contextlib.contextmanager
def _prepared(experiment: Experiment) -> Iterator[None]:
    """Has the evaluator load its data; what is wrong with them is an error of the config."""
    try:
        experiment.evaluator.prepare()
    except ValueError as error:
        raise ConfigError(" ".join(str(error).split())) from error
    yield


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """For scripts: one line and exit code 2 for errors that users can mend, 130 for Ctrl-C."""
    try:
        yield
    except (ConfigError, files.RunError, WorkerError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:  # before the search began or after it ended
        print("Stopped.", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _check_tensorboard(resolved: Mapping[str, Any]) -> None:
    if resolved["tensorboard"] and importlib.util.find_spec("tensorboardX") is None:
        raise ConfigError(
            "tensorboard=True: tensorboardX is not installed; pip install 'elenas_jax[tensorboard]'."
        )


def _add_session(run: files.RunDir, experiment: Experiment, console: Console) -> None:
    """Adds what this session runs on to provenance.json, and says so if it is not what others ran on."""
    session = files.session(experiment.evaluator.plan["devices"]) | {
        "threads": count_threads(),
        "plan": experiment.evaluator.plan,
    }
    provenance = {"seed": experiment.config["seed"], "archive_schema": SCHEMA_VERSION, "sessions": []}
    if run.provenance.exists():
        provenance = files.read_json(run.provenance)
        try:
            before = provenance["sessions"][-1]
            # "2 x cpu": how many there are changes no score.
            kinds = [each["devices"].partition(" x ")[2] for each in (before, session)]
            same = before["versions"] == session["versions"] and kinds[0] == kinds[1]
            # What an older version wrote does not say how many; there may have been as many.
            same = same and all(
                before.get(key, session[key]) == session[key] for key in ("threads", "commit")
            )
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            raise files.RunError(f"{run.provenance} is damaged: delete it to begin a new one.") from error
        if not same:
            console.print(
                f"Note: {run.path} was made with another commit, other versions, devices or threads "
                f"(see {run.provenance.name}); new scores may differ from old ones in the last bits.",
                soft_wrap=True,
            )
    provenance["sessions"].append(session)
    files.write_json(run.provenance, provenance)


def _search(
    experiment: Experiment,
    run: files.RunDir,
    archive: Archive,
    checkpoints: Checkpoints,
    state: PyTree,
    rows: list[dict[str, Any]],
    console: Console,
    until: Callable[[list[Row]], str],
) -> Outcome:
    """Runs the loop with everything that shows it and stops it."""
    folder = run.path / "tensorboard" if experiment.config["tensorboard"] else None
    with (
        contextlib.closing(TensorBoard(folder, first_generation=len(rows))) as board,
        Progress(console, experiment.config, rows) as progress,
        stopping(progress.stop_asked) as stop_requested,
    ):

        def on_generation(row: dict[str, Any]) -> None:
            _keep_large_programs_only()
            progress.generation(row)
            board.generation(row)

        return search(
            experiment,
            run,
            archive,
            checkpoints,
            state,
            rows,
            on_chunk=progress.chunk,
            on_generation=on_generation,
            stop_requested=stop_requested,
            until=until,
        )


@contextlib.contextmanager
def stopping(on_request: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether Ctrl-C was pressed, or SIGTERM came.

    A second one ends the process: what is on the disk is whole at any moment, so that loses the chunk
    in flight only.

    Args:
      on_request: called by the first one, from within the signal handler.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return

    def handle(number: int, frame: Any) -> None:
        del number, frame
        if requested.is_set():
            os._exit(INTERRUPTED)
        requested.set()
        on_request()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield requested.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
