"""Data files: found in the data folder, or downloaded into it once and checked.

The folder is an argument, else the environment variable ELENAS_DATA_DIR, else
`~/.cache/elenas_jax/data`. Files lie there gzipped (`ptb/ptb.train.txt.gz`) or plain. What is
downloaded is checked by the SHA-256 of its unzipped content before it gets its name; files that
are there already are taken as they are. All errors are DataError.
"""

import gzip
import hashlib
import http.client
import os
import shutil
import sys
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import IO, NamedTuple

from elenas_jax.tasks.records import DataError

TIMEOUT_SECONDS = 30
_DAMAGED = (EOFError, gzip.BadGzipFile, zlib.error)


class Source(NamedTuple):
    """Where data files come from."""

    urls: tuple[str, ...]  # the first that serves the right content is used; none: no download
    sha256: Mapping[str, str]  # name in the data folder -> checksum of the unzipped content
    by_hand: str  # what to do if it cannot be downloaded
    archive_folder: str | None = None  # urls are tar archives with the files here; None: one gzipped file


def data_folder(data_dir: str | Path | None) -> Path:
    """Returns the folder of data files; it need not exist."""
    named = data_dir or os.environ.get("ELENAS_DATA_DIR") or Path.home() / ".cache/elenas_jax/data"
    return Path(named).expanduser()


def find_file(folder: Path, name: str) -> Path | None:
    """Returns the file `name`, gzipped or plain, if there is one; it is not opened."""
    try:
        return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
    except OSError as error:
        raise DataError(f"{folder / name}: cannot be read ({error.strerror}).") from error


def read_file(data_dir: str | Path | None, name: str, source: Source) -> bytes:
    """Returns the unzipped content of a file of the data folder, downloaded first if missing.

    Args:
      data_dir: see `data_folder`.
      name: relative to it, without `.gz`.
      source: where `name` is downloaded from. Of an archive all files of `source` are kept, so
        that it is downloaded once; none is read but `name`.
    """
    folder = data_folder(data_dir)
    path = find_file(folder, name)
    if path is None:
        _download(folder, name, source)
        path = folder / f"{name}.gz"
    return read_path(path)


def read_path(path: Path) -> bytes:
    """Returns the content of a file, unzipped if it is gzipped."""
    try:
        with path.open("rb") as file:
            is_gzipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            return gzip.GzipFile(fileobj=file).read() if is_gzipped else file.read()
    except _DAMAGED as error:
        raise DataError(f"{path}: cut off or damaged ({error}); put a whole copy in its place.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def read_text(path: Path) -> str:
    """As `read_path`, for UTF-8 text."""
    return decode(read_path(path), path)


def decode(content: bytes, path: str | Path) -> str:
    """Returns UTF-8 text, without a byte order mark; `path` is for the error."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: byte {error.start} is not UTF-8 text.") from error


def _download(folder: Path, name: str, source: Source) -> None:
    """Puts `name` (of an archive, every file of `source`) into the folder, or raises DataError."""
    if not source.urls:
        raise DataError(f"{folder / name}.gz: no such file; {source.by_hand}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".download-", dir=folder)
    except OSError as error:
        raise DataError(
            f"{folder / name}.gz: no such file, and the data folder cannot be written "
            f"({error.strerror}); name another with ELENAS_DATA_DIR."
        ) from error
    failures = []
    try:
        with os.fdopen(handle, "w+b") as file:
            for url in source.urls:
                try:
                    contents = _fetch(url, file, name, source)
                except (OSError, ValueError, http.client.HTTPException, tarfile.TarError, *_DAMAGED) as error:
                    failures.append(f"{url}: {' '.join(str(error).split())}")
                else:
                    break
            else:
                raise DataError(
                    f"{folder / name}.gz: no such file, and downloading failed ({'; '.join(failures)}); "
                    f"{source.by_hand}"
                )
        for each, content in contents.items():
            if find_file(folder, each) is None:
                _write(folder / f"{each}.gz", content)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _fetch(url: str, file: IO[bytes], name: str, source: Source) -> dict[str, bytes]:
    """Streams `url` to `file` and returns checked, unzipped contents by name in the data folder."""
    print(f"downloading {url}", file=sys.stderr)
    file.seek(0)
    file.truncate()
    with urllib.request.urlopen(url, timeout=TIMEOUT_SECONDS) as response:
        shutil.copyfileobj(response, file)
    file.seek(0)
    if source.archive_folder is None:
        contents = {name: gzip.GzipFile(fileobj=file).read()}
    else:
        contents = _members(file, source)
    for each, content in contents.items():
        found, expected = hashlib.sha256(content).hexdigest(), source.sha256[each]
        if found != expected:
            raise ValueError(f"{each} has sha256 {found}, not {expected}")
    return contents


def _members(file: IO[bytes], source: Source) -> dict[str, bytes]:
    """Reads the files of `source` out of a tar archive; nothing is extracted to disk."""
    contents = {}
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        for name in source.sha256:
            member = f"{source.archive_folder}/{Path(name).name}"
            try:
                reader = archive.extractfile(member)
            except KeyError:
                reader = None
            if reader is None:
                raise ValueError(f"there is no file {member} in the archive")
            contents[name] = reader.read()
    return contents


def _write(path: Path, content: bytes) -> None:
    """Writes a gzipped file that has its name only once it is whole."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=".download-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(gzip.compress(content, compresslevel=6, mtime=0))
        os.replace(temporary, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror}).") from error
    finally:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
