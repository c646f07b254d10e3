"""Arrays made from data files: built once, kept as .npy files and read by memory map from then on.

They lie in `derived/` of the data folder or, where that is not writable, of the user's cache
(`$XDG_CACHE_HOME/elenas_jax`, else `~/.cache/elenas_jax`). A folder has its name only once it is whole;
the name is a digest of the settings and of size and time of the files it was made from, so that other
files make other arrays. Deleting `derived/` costs the time of building, nothing else.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from elenas_jax.tasks.data_files import data_folder, find_file
from elenas_jax.tasks.records import DataError

VERSION = 1  # of what builders make; another one makes all folders anew


def derive(
    data_dir: str | Path | None,
    name: str,
    settings: Mapping[str, Any],
    sources: Sequence[str],
    build: Callable[[Path], None],
) -> Path:
    """Returns the folder of the arrays, built first where there is none.

    Args:
      data_dir: see `data_files.data_folder`.
      name: what the folder's name begins with.
      settings: all that the arrays depend on besides the sources; JSON-able.
      sources: files that they are made from, relative to the data folder, without `.gz`.
      build: writes them into the empty folder that it is given; it may download sources.
    """
    folder = data_folder(data_dir)
    roots = (folder / "derived", _user_cache() / "derived")

    def label() -> str:
        stamps = [_stamp(folder, source) for source in sources]
        identity = json.dumps([VERSION, str(folder.resolve()), settings, stamps], sort_keys=True)
        return f"{name}-{hashlib.blake2b(identity.encode(), digest_size=8).hexdigest()}"

    found = next((root / label() for root in roots if (root / label()).is_dir()), None)
    if found is not None:
        return found
    root = roots[0] if _is_writable(folder) else roots[1]
    temporary = root / f".building-{secrets.token_hex(8)}"
    try:
        temporary.mkdir(parents=True)
        build(temporary)
        target = root / label()  # sources that were missing are there now
        try:
            os.replace(temporary, target)
        except OSError:
            if not target.is_dir():  # else another process was first, with the same arrays
                raise
        return target
    except OSError as error:
        raise DataError(f"{root}: derived arrays cannot be written ({error.strerror or error}).") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _stamp(folder: Path, source: str) -> tuple[str, int, int] | None:
    path = find_file(folder, source)
    if path is None:
        return None
    status = path.stat()
    return source, status.st_size, status.st_mtime_ns


def _is_writable(folder: Path) -> bool:
    # A superuser may write where the mode forbids it, and should not.
    return folder.is_dir() and os.access(folder, os.W_OK) and bool(folder.stat().st_mode & 0o222)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").expanduser() / "elenas_jax"
