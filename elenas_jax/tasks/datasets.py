"""The table of data sets, and how one is loaded by its name."""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from elenas_jax.tasks.labelled_csv import load_csv
from elenas_jax.tasks.labelled_npz import load_npz
from elenas_jax.tasks.penn_treebank import load_ptb
from elenas_jax.tasks.records import DataError, Dataset, Split
from elenas_jax.tasks.sequential_mnist import load_mnist_pixels, load_mnist_rows
from elenas_jax.tasks.time_series import load_ts
from elenas_jax.tasks.tox21 import load_tox21

__all__ = ("DATASETS", "DataError", "Dataset", "Split", "load_dataset")

# Loaders by how their names are written. The first argument is the data folder, or, where the
# name has a colon, the path that follows it; the others are settings.
DATASETS: dict[str, Callable[..., Dataset]] = {
    "ptb": load_ptb,
    "tox21": load_tox21,
    "mnist_rows": load_mnist_rows,
    "mnist_pixels": load_mnist_pixels,
    "csv:PATH": load_csv,
    "npz:PATH": load_npz,
    "ts:PATH/NAME": load_ts,
}


def load_dataset(name: str, data_dir: str | Path | None = None, **settings: Any) -> Dataset:
    """Loads training and validation data; test data wait for `Dataset.load_test`.

    Args:
      name: written as a key of `DATASETS`, with a real path for the part in capitals.
      data_dir: folder of the data files; None is the environment variable ELENAS_DATA_DIR, else
        `~/.cache/elenas_jax/data`. Without meaning for names with a path.
      **settings: keyword arguments of the data set's loader.

    Raises:
      DataError: for an unknown name or setting, and for data that cannot be used.
    """
    kind, colon, path = name.partition(":")
    usages = {usage.partition(":")[0]: usage for usage in DATASETS}
    if kind not in usages:
        raise DataError(f"Unknown data set {name!r}; known are {', '.join(DATASETS)}.")
    usage = usages[kind]
    takes_path = ":" in usage
    if takes_path != bool(path) or (colon and not path):
        raise DataError(f"Data set {name!r} is written {usage}.")
    loader = DATASETS[usage]
    allowed = list(inspect.signature(loader).parameters)[1:]
    for setting in settings:
        if setting not in allowed:
            known = f"allowed are {', '.join(allowed)}" if allowed else "it has none"
            raise DataError(f"{kind}: unknown setting {setting!r}; {known}.")
    return loader(path if takes_path else data_dir, **settings)
