"""Labelled sequences of the user's own in a CSV file.

Comma-separated, gzipped or plain, one row per time step, with a header:
  series     which series the step belongs to, any name
  split      train, valid or test, the same in all rows of a series. Optional: without the column
             the series are ordered by a hash of their names, and 80% train, 10% validate, 10% test
  step       number by which the steps of a series are ordered. Optional: else the order of the file
  label      class of the series, in each of its rows; or, instead of it,
  target_*   one or more columns of numbers to predict, the same in all rows of a series
  all else   numeric features, at least one column
Features and numbers to predict are standardised with the mean and deviation of the training series.
Series shorter than the longest of train are padded with zeros at the front, longer ones keep their
last steps.
"""

import csv
import hashlib
import io
import itertools
from pathlib import Path
from typing import NamedTuple

import numpy as np

from elenas_jax.tasks.data_files import read_text
from elenas_jax.tasks.records import DataError, Dataset, Split
from elenas_jax.tasks.sequences import LARGEST, check_classes, measure_scale, one_hot, stack, standardise

SPLITS = ("train", "valid", "test")
HELD_OUT = 0.1  # for validation, and as much for test, where there is no column split
_RESERVED = ("series", "split", "step", "label")


class _Table(NamedTuple):
    path: Path
    columns: dict[str, list[str]]
    lines: list[int]  # line number in the file of each row
    groups: dict[str, list[int]]  # rows of each series, in order


def load_csv(path: str | Path) -> Dataset:
    """Loads a CSV file of the schema above: `[N, T, F]` features with classes or numbers."""
    table = _read_table(Path(path).expanduser())
    target_columns = [column for column in table.columns if column.startswith("target_")]
    features = [name for name in table.columns if name not in (*_RESERVED, *target_columns)]
    if ("label" in table.columns) == bool(target_columns):
        raise DataError(f"{table.path}: there must be a column label or columns target_*, and not both.")
    if not features:
        raise DataError(f"{table.path}: there is no column of features.")
    values = np.stack([_numbers(table, name) for name in features], axis=1)
    series = {name: values[rows] for name, rows in table.groups.items()}
    members = _split_series(table)
    for split in SPLITS:
        if not members[split]:
            raise DataError(f"{table.path}: there is no series of the split {split}.")
    if target_columns:
        labels, targets = tuple(target_columns), _number_targets(table, target_columns, members)
        kind = f"{len(labels)} numbers to predict, standardised"
    else:
        labels, targets = _class_targets(table, members)
        kind = f"{len(labels)} classes"
    train_series = [series[name] for name in members["train"]]
    scale = measure_scale(train_series)
    time_steps = max(map(len, train_series))

    def make_split(split: str) -> Split:
        names = members[split]
        inputs = stack([series[name] for name in names], time_steps, scale)
        return Split(inputs, np.stack([targets[name] for name in names]))

    sizes = ", ".join(f"{len(members[split]):,} {split}" for split in SPLITS)
    return Dataset(
        name=f"csv:{table.path.name}",
        is_tokens=False,
        in_features=len(features),
        out_features=len(labels),
        time_steps=time_steps,
        loss="squared" if target_columns else "categorical",
        metric="r2" if target_columns else "accuracy",
        train=make_split("train"),
        valid=make_split("valid"),
        load_test=lambda: make_split("test"),
        labels=labels,
        note=f"{table.path.name}, {kind}, {len(features)} features, standardised; series: {sizes}",
    )


def _read_table(path: Path) -> _Table:
    """Reads cells and groups rows by series; values are not looked at yet."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""))
    lines, rows = [], []
    try:
        header = [name.strip() for name in next(reader, [])]
        for row in reader:
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{path}, line {reader.line_num}: {len(row)} cells, but the header has {len(header)}."
                )
            lines.append(reader.line_num)
            rows.append(row)
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from error
    if "series" not in header:
        raise DataError(
            f"{path}: the column series is missing; the header has {', '.join(header) or 'none'}."
        )
    if "" in header or len(set(header)) < len(header):
        raise DataError(f"{path}: columns must have different names, none of them empty.")
    if not rows:
        raise DataError(f"{path}: there are no rows below the header.")
    columns = {name: [cell.strip() for cell in cells] for name, cells in zip(header, zip(*rows, strict=True))}
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(columns["series"]):
        if not name:
            raise DataError(f"{path}, line {lines[place]}: series is empty.")
        groups.setdefault(name, []).append(place)
    table = _Table(path, columns, lines, groups)
    if "step" not in columns:
        return table
    steps = _numbers(table, "step")
    for name, members in groups.items():
        members.sort(key=lambda row: steps[row])
        for before, after in itertools.pairwise(members):
            if steps[before] == steps[after]:
                raise DataError(
                    f"{path}: series {name!r} has step {columns['step'][after]} twice (lines {lines[before]} "
                    f"and {lines[after]})."
                )
    return table


def _numbers(table: _Table, column: str) -> np.ndarray:
    """Returns a column as `[rows]` float64, all of at most `LARGEST`."""
    cells = table.columns[column]
    try:
        values = np.array(list(map(float, cells)))
    except ValueError:
        values = np.array([_number_or_nan(cell) for cell in cells])
    wrong = np.flatnonzero(~(np.abs(values) <= LARGEST))  # NaN too
    if len(wrong):
        raise DataError(
            f"{table.path}, line {table.lines[wrong[0]]}: {column} is {cells[wrong[0]]!r}; "
            f"it must be a number of at most {LARGEST:.1e}."
        )
    return values


def _number_or_nan(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _one_value(table: _Table, column: str, series: str) -> str:
    """Returns what a column says of a series, the same in all its rows."""
    rows = sorted(table.groups[series])
    cells = table.columns[column]
    for row in rows:
        if cells[row] != cells[rows[0]]:
            raise DataError(
                f"{table.path}: series {series!r} has two values of {column}: {cells[rows[0]]!r} "
                f"(line {table.lines[rows[0]]}) and {cells[row]!r} (line {table.lines[row]})."
            )
    if not cells[rows[0]]:
        raise DataError(f"{table.path}, line {table.lines[rows[0]]}: {column} is empty.")
    return cells[rows[0]]


def _split_series(table: _Table) -> dict[str, list[str]]:
    """Returns the names of the series of each split."""
    members: dict[str, list[str]] = {split: [] for split in SPLITS}
    if "split" not in table.columns:
        ordered = sorted(table.groups, key=lambda name: hashlib.sha256(name.encode()).digest())
        number = max(1, round(HELD_OUT * len(ordered)))
        first = len(ordered) - 2 * number
        if first < 1:
            raise DataError(f"{table.path}: {len(ordered)} series; without a column split there must be 3.")
        return {
            "train": ordered[:first],
            "valid": ordered[first : first + number],
            "test": ordered[first + number :],
        }
    for name, rows in table.groups.items():
        split = _one_value(table, "split", name)
        if split not in SPLITS:
            raise DataError(
                f"{table.path}, line {table.lines[rows[0]]}: split is {split!r}; it must be "
                f"{', '.join(SPLITS)}."
            )
        members[split].append(name)
    return members


def _class_targets(
    table: _Table, members: dict[str, list[str]]
) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Returns the classes and each series' one-hot target."""
    label = {name: _one_value(table, "label", name) for name in table.groups}
    classes = tuple(sorted({label[name] for name in members["train"]}))
    check_classes(
        str(table.path), classes, {split: [label[name] for name in members[split]] for split in SPLITS}
    )
    targets = one_hot(list(label.values()), classes)
    return classes, dict(zip(label, targets))


def _number_targets(
    table: _Table, columns: list[str], members: dict[str, list[str]]
) -> dict[str, np.ndarray]:
    """Returns each series' numbers, standardised by those of train."""
    for column in columns:
        _numbers(table, column)
    numbers = {
        name: np.array([float(_one_value(table, column, name)) for column in columns])
        for name in table.groups
    }
    scale = measure_scale([numbers[name][None] for name in members["train"]])
    return {name: standardise(value, scale) for name, value in numbers.items()}
