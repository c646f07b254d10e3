"""Labelled sequences of the user's own in an NPZ file.

Arrays by name, used as they are (neither standardised nor padded):
  train_inputs    [N, T, F] numbers, or [N, T] integer tokens; 0 is padding, at the front
  train_targets   [N] integer classes, or [N, O] floating numbers to predict
  valid_inputs, valid_targets, test_inputs, test_targets
                  optional: in place of each that is missing a tenth of the training examples is held out,
                  of every class alike
T and F are the same in all arrays of inputs. The number of tokens is the largest of the file plus 1,
and at most a million.
"""

import io
import zipfile
import zlib
from pathlib import Path

import numpy as np

from elenas_jax.tasks.data_files import read_path
from elenas_jax.tasks.records import DataError, Dataset, Split
from elenas_jax.tasks.sequences import check_classes, hold_out, one_hot

SPLITS = ("train", "valid", "test")
MOST_TOKENS = 1_000_000
HELD_OUT = 0.1  # of train, for each of valid and test that is missing
_PARTS = ("inputs", "targets")
_NAMES = tuple(f"{split}_{part}" for split in SPLITS for part in _PARTS)
# What NumPy and zipfile raise for damaged files, files with a password and Python objects.
_UNREADABLE = (OSError, ValueError, EOFError, RuntimeError, MemoryError, zipfile.BadZipFile, zlib.error)

Arrays = dict[str, tuple[np.ndarray, np.ndarray]]  # inputs and targets of each split


def load_npz(path: str | Path) -> Dataset:
    """Loads an NPZ file of the schema above."""
    path = Path(path).expanduser()
    arrays = _read_arrays(path)
    for split in SPLITS:
        if split in arrays:
            _check_split(path, split, arrays)
    train_inputs, train_targets = arrays["train"]
    is_tokens, is_classes = train_inputs.ndim == 2, train_targets.ndim == 1
    for split in SPLITS[1:]:
        if split not in arrays:
            _hold_out(path, split, arrays)
    if is_classes:
        names = {split: [str(value) for value in targets] for split, (_, targets) in arrays.items()}
        labels = tuple(str(value) for value in np.unique(arrays["train"][1]))
        check_classes(str(path), labels, names)
    else:
        labels = tuple(f"target_{number}" for number in range(train_targets.shape[1]))

    def make_split(split: str) -> Split:
        inputs, targets = arrays[split]
        return Split(
            inputs.astype(np.int32 if is_tokens else np.float32),
            one_hot(names[split], labels) if is_classes else targets.astype(np.float32),
        )

    num_tokens = 1 + max(int(inputs.max()) for inputs, _ in arrays.values())
    if is_tokens and num_tokens > MOST_TOKENS:
        raise DataError(f"{path}: the largest token is {num_tokens - 1:,}; it must be below {MOST_TOKENS:,}.")
    kind = "classes" if is_classes else "numbers to predict"
    sizes = ", ".join(f"{len(arrays[split][0]):,} {split}" for split in SPLITS)
    return Dataset(
        name=f"npz:{path.name}",
        is_tokens=is_tokens,
        in_features=num_tokens if is_tokens else train_inputs.shape[2],
        out_features=len(labels),
        time_steps=train_inputs.shape[1],
        loss="categorical" if is_classes else "squared",
        metric="accuracy" if is_classes else "r2",
        train=make_split("train"),
        valid=make_split("valid"),
        load_test=lambda: make_split("test"),
        labels=labels,
        note=f"{path.name}, {len(labels)} {kind}; series: {sizes}",
    )


def _read_arrays(path: Path) -> Arrays:
    content = io.BytesIO(read_path(path))
    if not zipfile.is_zipfile(content):
        raise DataError(f"{path}: cut off, or no NPZ file.")
    try:
        with np.load(content) as archive:
            found = {name: archive[name] for name in archive.files}
    except _UNREADABLE as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())}).") from error
    strange = sorted(set(found) - set(_NAMES))
    if strange:
        raise DataError(f"{path}: unknown array {strange[0]!r}; allowed are {', '.join(_NAMES)}.")
    arrays = {}
    for split in SPLITS:
        given = [f"{split}_{part}" for part in _PARTS if f"{split}_{part}" in found]
        if len(given) == len(_PARTS):
            arrays[split] = (found[f"{split}_inputs"], found[f"{split}_targets"])
        elif given or split == "train":
            missing = next(f"{split}_{part}" for part in _PARTS if f"{split}_{part}" not in found)
            raise DataError(f"{path}: the array {missing} is missing.")
    return arrays


def _check_split(path: Path, split: str, arrays: Arrays) -> None:
    inputs, targets = arrays[split]
    is_tokens = inputs.ndim == 2 and inputs.dtype.kind in "iu"
    is_numbers = inputs.ndim == 3 and inputs.dtype.kind in "iuf"
    if not (is_tokens or is_numbers):
        raise DataError(
            f"{path}: {split}_inputs is {_describe(inputs)}; it must be [N, T, F] numbers or [N, T] integer "
            "tokens."
        )
    is_classes = targets.ndim == 1 and targets.dtype.kind in "iu"
    if not (is_classes or (targets.ndim == 2 and targets.dtype.kind == "f")):
        raise DataError(
            f"{path}: {split}_targets is {_describe(targets)}; it must be [N] integer classes or [N, O] "
            "floating numbers."
        )
    if 0 in inputs.shape or 0 in targets.shape:
        raise DataError(
            f"{path}: {split} is empty: inputs {list(inputs.shape)}, targets {list(targets.shape)}."
        )
    if len(inputs) != len(targets):
        raise DataError(f"{path}: {split} has {len(inputs):,} inputs and {len(targets):,} targets.")
    for part, values, first in zip(_PARTS, (inputs, targets), arrays["train"]):
        if values.shape[1:] != first.shape[1:] or (values.dtype.kind == "f") != (first.dtype.kind == "f"):
            raise DataError(
                f"{path}: {split}_{part} is {_describe(values)}, but train_{part} {_describe(first)}."
            )
        with np.errstate(over="ignore"):
            wrong = np.argwhere(~np.isfinite(values.astype(np.float32)))
        if len(wrong):
            raise DataError(
                f"{path}: {split}_{part}{wrong[0].tolist()} is {values[tuple(wrong[0])]}; it must be finite."
            )
    if is_tokens and inputs.min() < 0:
        raise DataError(f"{path}: {split}_inputs has a token {inputs.min()}; they must be at least 0.")


def _hold_out(path: Path, split: str, arrays: Arrays) -> None:
    """Moves a part of train to `split`."""
    inputs, targets = arrays["train"]
    classes = targets if targets.ndim == 1 else np.zeros(len(targets), int)
    held_out = hold_out(classes, HELD_OUT)
    if not held_out.any():
        raise DataError(f"{path}: train is too small for holding out {split}; give {split}_inputs.")
    arrays[split] = (inputs[held_out], targets[held_out])
    arrays["train"] = (inputs[~held_out], targets[~held_out])


def _describe(array: np.ndarray) -> str:
    return f"{array.dtype} {list(array.shape)}"
