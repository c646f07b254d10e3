"""Run folders: which files a search leaves behind, and how they are written and read.

Files: config.json (resolved, with the plan of the evaluator), provenance.json (seed, commit, and
versions and devices of every session), metrics.jsonl (a line per generation), archive.sqlite (see
`archive`), checkpoints/, figures/, report.html, retrained/ (see `retrain_best`). All of it is plain data.

This module needs nothing but the standard library, so that whatever reads run folders stays light.
"""

import contextlib
import fcntl
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

PACKAGES = ("elenas_jax", "jax", "jaxlib", "flax", "optax", "jraph", "numpy", "orbax-checkpoint")


class RunError(Exception):
    """Something about a run folder that its user can mend; the message is one line."""


class RunDir(NamedTuple):
    """The files of one run, by name."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def provenance(self) -> Path:
        return self.path / "provenance.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def archive(self) -> Path:
        return self.path / "archive.sqlite"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def figures(self) -> Path:
        return self.path / "figures"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    @property
    def lock(self) -> Path:
        return self.path / ".lock"


def run_dir(path: str | os.PathLike) -> RunDir:
    """Returns the names of the files of the run at `path`; touches nothing."""
    return RunDir(Path(path).expanduser().absolute())


def plain(value: Any) -> Any:
    """Returns `value` as JSON holds it: tuples are lists, what is not finite is None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # NumPy and JAX arrays and scalars
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_atomically(path: Path, text: str) -> None:
    """Replaces the file at `path`: a reader, or a kill, sees the old text or the new."""
    draft = path.with_name(f".{path.name}.tmp")
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error.strerror}.") from error


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(plain(value), indent=2, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise RunError(
            f"{path} is damaged: it is not JSON ({error}); restore it or start in a new folder."
        ) from error


def read_metrics(run: RunDir) -> list[dict]:
    """Returns the lines of metrics.jsonl; a last line cut short by a kill is left out."""
    if not run.metrics.exists():
        return []
    lines = run.metrics.read_bytes().split(b"\n")
    rows = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or row.get("generation") != number - 1:
                raise ValueError(f"it is not generation {number - 1}")
        except ValueError as error:
            raise RunError(f"{run.metrics} is damaged at line {number} ({error}); restore it.") from error
        rows.append(row)
    return rows


def keep_metrics(run: RunDir, num_generations: int) -> list[dict]:
    """Cuts metrics.jsonl back to its first generations and returns them."""
    rows = read_metrics(run)
    if len(rows) < num_generations:
        raise RunError(
            f"{run.metrics} is damaged: it holds {len(rows)} generations where the newest checkpoint has "
            f"{num_generations}; restore it, or delete {run.checkpoints} to count again from the archive."
        )
    rows = rows[:num_generations]
    if run.metrics.exists():
        write_atomically(run.metrics, "".join(metrics_line(row) for row in rows))
    return rows


def metrics_line(row: Mapping[str, Any]) -> str:
    return json.dumps(plain(row), allow_nan=False) + "\n"


def append_metrics(run: RunDir, row: Mapping[str, Any]) -> None:
    """Adds a generation's line, and returns when it is on the disk."""
    with open(run.metrics, "a", encoding="utf-8") as file:
        file.write(metrics_line(row))
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def locked(run: RunDir) -> Iterator[None]:
    """Makes the folder if need be and holds it for this process alone.

    The lock ends with the process, however it ends.

    Raises:
      RunError: if the folder cannot be made or written, or another process holds it.
    """
    try:
        run.path.mkdir(parents=True, exist_ok=True)
        file = open(run.lock, "a+", encoding="utf-8")  # noqa: SIM115 (held until the block ends)
    except OSError as error:
        raise RunError(
            f"Cannot write in run folder {run.path}: {error.strerror}; choose another --run_dir."
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise RunError(
                f"Run folder {run.path} is in use by process {holder}; wait for it or choose another."
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}")
        file.flush()
        yield


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns `{"evaluator.head": "linear", ...}` for a tree of dicts."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def check_same_config(
    run: RunDir, config: Mapping[str, Any], free: tuple[str, ...], defaults: Mapping[str, Any] | None = None
) -> dict | None:
    """Returns the stored config.json, or None where the folder is new.

    Args:
      run: the run folder; nothing in it is changed.
      config: the resolved config of the search that wants to go on in this folder.
      free: keys that may differ because no result depends on them.
      defaults: by full key; what a config means that was written before there was such a key, or since
        there is none any more.

    Raises:
      RunError: if the folder holds something else, or a run of another config.
    """
    try:
        names = {entry.name for entry in os.scandir(run.path)}
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(
            f"{run.path} cannot be a run folder: {error.strerror}; choose another --run_dir."
        ) from error
    if run.config.name not in names:
        ours = {run.lock.name, f".{run.config.name}.tmp"}
        if names - ours:
            raise RunError(
                f"{run.path} is not empty and has no config.json: it is no run folder; choose another."
            )
        return None
    stored = read_json(run.config)
    if not isinstance(stored, dict):
        raise RunError(
            f"{run.config} is damaged: it holds no JSON object; restore it or start in a new folder."
        )
    usual = plain(defaults or {})
    old = usual | flatten({key: value for key, value in stored.items() if key != "plan"})
    new = usual | flatten(plain(config))
    missing = object()
    differing = [
        f"{key} ({_shown(old, key)} there, {_shown(new, key)} now)"
        for key in sorted(old | new)
        if key not in free and old.get(key, missing) != new.get(key, missing)
    ]
    if differing:
        raise RunError(
            f"Run folder {run.path} belongs to another config; differing keys: {', '.join(differing)}. "
            "Use its config or another --run_dir."
        )
    return stored


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return json.dumps(flat[key]) if key in flat else "not set"


def session(devices: str) -> dict[str, Any]:
    """Returns what this process runs on: versions, devices, commit, command."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "versions": {"python": platform.python_version(), **versions},
        "devices": devices,
        "platform": platform.platform(),
        "commit": _commit(),
        "command": sys.argv,
    }


def _commit() -> str | None:
    """The git commit of this package, "+changes" if files differ from it; None outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ("git", "-C", str(here), *arguments), capture_output=True, text=True, timeout=10, check=True
        )
        return done.stdout.strip()

    try:
        if not git("ls-files", Path(__file__).name):  # installed inside somebody else's repository
            return None
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "HEAD") + ("+changes" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
