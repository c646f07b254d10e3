"""Results: small tables as JSON files, with what made them, shown in Markdown between markers.

`results/NAME.json` holds title, columns, rows (lists of cells: text, numbers, or null for what is
missing), note (the protocol in words), seeds ({"there": 2, "planned": 10}, or null where nothing was
repeated), config (resolved, or null), and where it comes from: command, commit, date, machine, versions.
A page shows it where it says

  <!-- results:NAME -->
  <!-- end results:NAME -->
"""

import datetime
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from elenas_jax.experiment.run_dir import RunError, plain, read_json, session, write_atomically, write_json

_ROOT = Path(__file__).resolve().parents[2]
_MARKER = re.compile(r"^<!-- (end )?results:(\S+) -->[ \t]*$", re.MULTILINE)


class Result(NamedTuple):
    """A table and what made it; fields are those of the file."""

    title: str
    columns: list[str]
    rows: list[list[Any]]  # cells: text, numbers, None for what is missing
    note: str  # the protocol, in words
    seeds: dict[str, int] | None  # there, planned; None where nothing was repeated
    config: dict[str, Any] | None  # resolved
    command: str
    commit: str | None
    date: str  # YYYY-MM-DD
    machine: dict[str, Any]  # cores, cpu, devices
    versions: dict[str, str]


_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "title": ((str,), "text"),
    "columns": ((list,), "a list of names"),
    "rows": ((list,), "a list of rows"),
    "note": ((str,), "text"),
    "seeds": ((dict, type(None)), "an object or null"),
    "config": ((dict, type(None)), "an object or null"),
    "command": ((str,), "text"),
    "commit": ((str, type(None)), "text or null"),
    "date": ((str,), "text"),
    "machine": ((dict,), "an object"),
    "versions": ((dict,), "an object"),
}


def short_commit(commit: str | None) -> str:
    """Returns a commit as people write it, with "+changes" where files differed from it; "?" if unknown."""
    return commit[:7] + ("+changes" if "+" in commit else "") if commit else "?"


def make_result(
    *,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    note: str,
    cores: int,
    devices: str,
    seeds: Mapping[str, int] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Result:
    """Returns a result of this process: command, commit, date, machine and versions are added.

    Args:
      title, columns, rows, note, seeds, config: as in `Result`.
      cores: that this process may use.
      devices: in words, as `parallel.describe_devices` says it.

    Raises:
      RunError: for a table that is none.
    """
    ours = session(devices)
    return check_result(
        {
            "title": title,
            "columns": list(columns),
            "rows": plain(rows),
            "note": note,
            "seeds": plain(seeds),
            "config": plain(config),
            "command": _command(ours["command"]),
            "commit": ours["commit"],
            "date": datetime.date.today().isoformat(),
            "machine": {"cores": cores, "cpu": processor_name(), "devices": devices},
            "versions": ours["versions"],
        },
        "The result",
    )


def check_result(data: Any, name: str) -> Result:
    """Returns the result that a JSON value holds.

    Args:
      data: as read from a file.
      name: what an error calls it.

    Raises:
      RunError: for the first thing that is missing, unknown or of another kind.
    """
    if not isinstance(data, Mapping):
        raise RunError(f"{name} is no result: it must be an object with {', '.join(_KINDS)}.")
    for key in data:
        if key not in _KINDS:
            raise RunError(f"{name}: {key!r} is no key of a result; they are {', '.join(_KINDS)}.")
    for key, (kinds, words) in _KINDS.items():
        if key not in data:
            raise RunError(f"{name}: {key!r} is missing.")
        if not isinstance(data[key], kinds):
            raise RunError(f"{name}: {key!r} must be {words}, not {data[key]!r:.60}.")
    if not data["columns"] or not all(isinstance(column, str) for column in data["columns"]):
        raise RunError(f"{name}: 'columns' must be a list of names, not {data['columns']!r:.60}.")
    for number, row in enumerate(data["rows"], start=1):
        if not isinstance(row, list) or len(row) != len(data["columns"]):
            raise RunError(f"{name}: row {number} must be a list of {len(data['columns'])} cells.")
        for column, cell in zip(data["columns"], row, strict=True):
            if isinstance(cell, bool) or not isinstance(cell, (str, int, float, type(None))):
                raise RunError(f"{name}: row {number}, {column!r} must be text, a number or null.")
    seeds = data["seeds"]
    if seeds is not None and not (
        set(seeds) == {"there", "planned"} and all(type(count) is int for count in seeds.values())
    ):
        raise RunError(f'{name}: \'seeds\' must be {{"there": 2, "planned": 10}} or null.')
    for key in ("cores", "cpu"):
        if key not in data["machine"]:
            raise RunError(f"{name}: 'machine' lacks {key!r}.")
    return Result(**data)


def load_result(path: Path) -> Result:
    """Reads a result.

    Raises:
      RunError: if there is none, or it is damaged.
    """
    return check_result(read_json(path), str(path))


def write_result(path: Path, result: Result) -> None:
    """Writes a result, atomically; the folder is made if need be.

    Raises:
      RunError: if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot make the folder {path.parent}: {error.strerror}.") from error
    write_json(path, result._asdict())


def to_markdown(result: Result) -> str:
    """Returns title, table, note, and a line on where it comes from, as Markdown."""
    cells = [[_cell(cell) for cell in row] for row in result.rows]
    numeric = [all(_is_number(row[place]) for row in result.rows) for place in range(len(result.columns))]
    lines = [f"**{_cell(result.title)}**", "", _line(_cell(column) for column in result.columns)]
    lines.append(_line("---:" if is_number else "---" for is_number in numeric))
    lines += [_line(row) for row in cells]
    note = " ".join(result.note.split())
    if result.seeds and result.seeds["there"] < result.seeds["planned"]:
        note += f" Not full: {result.seeds['there']} of {result.seeds['planned']} seeds are there."
    elif result.seeds:
        note += f" Seeds: {result.seeds['there']}."
    lines += ["", note.strip(), "", f"*Made by* `{result.command}` *{_source(result)}*"]
    return "\n".join(lines)


def render(text: str, folder: Path) -> str:
    """Returns a page with every result between its markers.

    Args:
      text: of the page.
      folder: of the results.

    Raises:
      RunError: if a marker has no end or no file, or a file is damaged.
    """
    parts, place = [], 0
    opened: re.Match[str] | None = None
    for marker in _MARKER.finditer(text):
        is_end, name = bool(marker[1]), marker[2]
        if is_end != (opened is not None) or (opened and opened[2] != name):
            expected = f"<!-- end results:{opened[2]} -->" if opened else "<!-- results:... -->"
            line = text.count("\n", 0, marker.start()) + 1
            raise RunError(f"Line {line}: {marker[0].strip()} stands where {expected} should.")
        if opened:
            table = to_markdown(load_result(_file_of(name, folder)))
            parts += [text[place : opened.end()], "\n", table, "\n"]
            place, opened = marker.start(), None
        else:
            opened = marker
    if opened:
        raise RunError(f"<!-- results:{opened[2]} --> has no <!-- end results:{opened[2]} -->.")
    return "".join([*parts, text[place:]])


def shown_results(text: str) -> set[str]:
    """Returns the names of the results that a page has markers for."""
    return {name for _, name in _MARKER.findall(text)}


def render_page(page: Path, folder: Path, *, write: bool) -> bool:
    """Renders the results into a page; returns whether it was up to date.

    Args:
      page: a Markdown file.
      folder: of the results.
      write: whether a page that is not gets written.
    """
    try:
        text = page.read_text(encoding="utf-8")
    except OSError as error:
        raise RunError(f"Cannot read {page}: {error.strerror}.") from error
    try:
        rendered = render(text, folder)
    except RunError as error:
        raise RunError(f"{page}: {error}") from error
    if write and rendered != text:
        write_atomically(page, rendered)
    return rendered == text


def processor_name() -> str:
    """Returns the model of this machine's processor."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    return names[0] if names else platform.processor() or "unknown processor"


def _command(arguments: Sequence[str]) -> str:
    """Returns the command line as it is typed in the repository; folders of a machine are left out."""
    words = []
    for word in arguments:
        head, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
        parts = [_without_machine(part) for part in value.split(",")]
        words.append(head + equals + ",".join(parts))
    return " ".join(
        ["python", *(word if re.fullmatch(r"[\w./=,:+-]+", word) else f"'{word}'" for word in words)]
    )


def _without_machine(part: str) -> str:
    path = Path(part)
    if not path.is_absolute():
        return part
    return os.path.relpath(path, _ROOT) if path.is_relative_to(_ROOT) else path.name


def _file_of(name: str, folder: Path) -> Path:
    path = folder / f"{name}.json"
    if not path.is_file():
        raise RunError(f"<!-- results:{name} -->: there is no {path}.")
    return path


def _source(result: Result) -> str:
    commit = f"commit {short_commit(result.commit)}" if result.commit else ""
    jax = f"JAX {result.versions['jax']}" if "jax" in result.versions else ""
    machine = f"{result.machine['cores']} cores of {result.machine['cpu']}"
    return "on " + ", ".join(part for part in (machine, jax, result.date, commit) if part) + "."


def _is_number(cell: Any) -> bool:
    return not isinstance(cell, str) or re.match(r"[-+]?\d", cell) is not None or cell == "-"


def _cell(cell: Any) -> str:
    if cell is None:
        return "-"
    if isinstance(cell, str):
        return " ".join(cell.split()).replace("|", r"\|")
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:.4g}"


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"
