"""Classification of time series in the UCR/UEA archives' .ts files (Bagnall et al. 2018).

Two files, NAME_TRAIN.ts and NAME_TEST.ts, gzipped (then with .gz at the end) or plain.

- Series may differ in length unless `@equalLength` is true: shorter ones than the longest of TRAIN
  are padded with zeros at the front, longer ones (in TEST) keep their last steps. The channels of
  one series have one length.
- With `@missing true` a value may be `?` or NaN: the last value before it in its channel is taken;
  where there is none, 0 on the standardised scale, which is the channel's mean.
- Channels are standardised with the mean and deviation of the series trained on.
- Validation data are a fifth of TRAIN, stratified by class, always the same.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from elenas_jax.tasks.data_files import find_file, read_text
from elenas_jax.tasks.records import DataError, Dataset, Split
from elenas_jax.tasks.sequences import LARGEST, check_classes, hold_out, measure_scale, one_hot, stack

VALID_SHARE = 0.2


class _Header(NamedTuple):
    """What precedes the data."""

    dimensions: int | None  # None: not said
    missing: bool
    equal_length: bool
    length: int | None  # of every series; None unless equal_length
    classes: tuple[str, ...]


class _Series(NamedTuple):
    """Content of a file."""

    path: Path
    header: _Header
    values: list[np.ndarray]  # [t, F] float64 each; NaN where a channel has not begun
    labels: list[str]


def load_ts(path: str | Path) -> Dataset:
    """Loads `PATH/NAME`: `[N, T, F]` series of PATH/NAME_TRAIN.ts with one-hot classes."""
    path = Path(path).expanduser()
    train_path, test_path = _find(path, "TRAIN"), _find(path, "TEST")
    series = _read(train_path)
    check_classes(str(train_path), sorted(set(series.labels)), {})
    labels = np.array(series.labels)
    is_valid = hold_out(labels, VALID_SHARE)
    if not is_valid.any():
        raise DataError(f"{train_path}: no class has two series, so none can be held out for validation.")
    scale = measure_scale([values for values, held_out in zip(series.values, is_valid) if not held_out])
    time_steps = max(map(len, series.values))
    inputs = stack(series.values, time_steps, scale)
    classes = series.header.classes
    targets = one_hot(series.labels, classes)

    def load_test() -> Split:
        test = _read(test_path)
        _check_alike(series, test)
        return Split(stack(test.values, time_steps, scale), one_hot(test.labels, classes))

    return Dataset(
        name=f"ts:{path.name}",
        is_tokens=False,
        in_features=inputs.shape[2],
        out_features=len(classes),
        time_steps=time_steps,
        loss="categorical",
        metric="accuracy",
        train=Split(inputs[~is_valid], targets[~is_valid]),
        valid=Split(inputs[is_valid], targets[is_valid]),
        load_test=load_test,
        labels=classes,
        note=(
            f"{path.name}, {len(classes)} classes, {inputs.shape[2]} channels, {time_steps} steps: "
            f"{np.sum(~is_valid):,} train and {np.sum(is_valid):,} validation series out of {train_path.name}"
        ),
    )


def _find(path: Path, part: str) -> Path:
    name = f"{path.name}_{part}.ts"
    found = find_file(path.parent, name)
    if found is None:
        raise DataError(f"{path.parent / name}: no such file, and none with .gz.")
    return found


def _check_alike(train: _Series, test: _Series) -> None:
    if sorted(train.header.classes) != sorted(test.header.classes):
        raise DataError(
            f"{test.path}: its labels are {', '.join(test.header.classes)}, but those of {train.path.name} "
            f"{', '.join(train.header.classes)}."
        )
    found, expected = test.values[0].shape[1], train.values[0].shape[1]
    if found != expected:
        raise DataError(f"{test.path}: {found} dimensions, but {train.path.name} has {expected}.")


def _read(path: Path) -> _Series:
    """Parses a file, or raises DataError with the first line that is wrong."""
    lines = [
        (number, line.strip())
        for number, line in enumerate(read_text(path).split("\n"), start=1)
        if line.strip() and not line.strip().startswith("#")
    ]
    start = next((place for place, (_, line) in enumerate(lines) if line.lower() == "@data"), None)
    if start is None:
        raise DataError(f"{path}: there is no line @data.")
    header = _read_header(path, lines[:start])
    if start + 1 == len(lines):
        raise DataError(f"{path}: there are no data below @data.")
    values: list[np.ndarray] = []
    labels = []
    for number, line in lines[start + 1 :]:
        try:
            each, label = _read_series(line, header)
            # What the header leaves open the first series decides.
            header = header._replace(
                dimensions=header.dimensions or each.shape[1],
                length=header.length or (len(each) if header.equal_length else None),
            )
        except DataError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        values.append(each)
        labels.append(label)
    return _Series(path, header, values, labels)


def _read_header(path: Path, lines: list[tuple[int, str]]) -> _Header:
    """Keys are in any case and order; those that do not matter here are passed over."""
    words: dict[str, list[str]] = {}
    places: dict[str, str] = {}
    for number, line in lines:
        key, *rest = line.split()
        if not key.startswith("@"):
            raise DataError(f"{path}, line {number}: {line[:40]!r} stands before @data; @ must begin it.")
        words[key.lower()] = rest
        places[key.lower()] = f"{path}, line {number}"

    def flag(key: str) -> bool:
        value = (words.get(key) or ["false"])[0].lower()
        if value not in ("true", "false"):
            raise DataError(f"{places[key]}: {key} is {value!r}; it must be true or false.")
        return value == "true"

    def whole_number(key: str) -> int | None:
        if key not in words:
            return None
        value = " ".join(words[key])
        if not (value.isdecimal() and int(value) > 0):
            raise DataError(f"{places[key]}: {key} is {value!r}; it must be a whole number of at least 1.")
        return int(value)

    if flag("@timestamps"):
        raise DataError(f"{places['@timestamps']}: series with time stamps are not supported.")
    if flag("@targetlabel"):
        raise DataError(f"{places['@targetlabel']}: numbers to predict are not supported, only classes.")
    if not flag("@classlabel"):
        raise DataError(f"{path}: there is no line @classLabel true followed by the labels.")
    classes = tuple(words["@classlabel"][1:])
    if len(set(classes)) < max(2, len(classes)):
        raise DataError(
            f"{places['@classlabel']}: the labels are {', '.join(classes) or 'none'}; there must be two or "
            "more different ones."
        )
    dimensions = whole_number("@dimensions")
    if flag("@univariate"):
        if dimensions not in (None, 1):
            raise DataError(f"{places['@dimensions']}: {dimensions} dimensions, but @univariate is true.")
        dimensions = 1
    equal_length = flag("@equallength")
    length = whole_number("@serieslength") if equal_length else None
    return _Header(dimensions, flag("@missing"), equal_length, length, classes)


def _read_series(line: str, header: _Header) -> tuple[np.ndarray, str]:
    """Parses `values:values:label`, a list of comma-separated values for each channel."""
    *channels, label = (part.strip() for part in line.split(":"))
    if label not in header.classes:
        raise DataError(f"label {label[:40]!r} is not in the header ({', '.join(header.classes)}).")
    if not channels or header.dimensions not in (None, len(channels)):
        raise DataError(f"{len(channels)} dimensions; there must be {header.dimensions or 'one or more'}.")
    values = [_read_channel(text, number, header) for number, text in enumerate(channels, start=1)]
    for number, each in enumerate(values, start=1):
        if len(each) != len(values[0]):
            raise DataError(
                f"channel {number} has {len(each)} steps, channel 1 {len(values[0])}; the channels of a "
                "series have one length."
            )
    return np.stack(values, axis=1), label


def _read_channel(text: str, number: int, header: _Header) -> np.ndarray:
    """Returns `[t]` values, gaps filled; NaN before the first that is there."""
    cells = text.split(",")
    try:
        values = np.array(list(map(float, cells)))
    except ValueError:
        values = np.array([_read_value(cell.strip(), number) for cell in cells])
    if np.any(np.abs(values) > LARGEST):
        raise DataError(f"channel {number} has a value beyond {LARGEST:.1e}.")
    is_missing = np.isnan(values)
    if is_missing.any() and not header.missing:
        raise DataError(
            f"channel {number}, step {np.argmax(is_missing) + 1} is missing (? or NaN), but the header does "
            "not say @missing true."
        )
    if header.length not in (None, len(values)):
        raise DataError(
            f"channel {number} has {len(values)} steps, but the header says @equalLength true and all have "
            f"{header.length}."
        )
    last_there = np.maximum.accumulate(np.where(is_missing, -1, np.arange(len(values))))
    return np.where(last_there < 0, np.nan, values[last_there])


def _read_value(cell: str, number: int) -> float:
    if cell == "?":
        return float("nan")
    try:
        return float(cell)
    except ValueError:
        raise DataError(f"channel {number} has {cell[:40]!r}; values are numbers.") from None
