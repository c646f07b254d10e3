"""Trainings outside of searches, kept in a folder: what was trained is not trained again.

The folder holds config.json and an archive without candidates, which is a cache of evaluators.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from elenas_jax.experiment import run_dir as files
from elenas_jax.experiment.archive import Archive
from elenas_jax.graphs import REASONS
from elenas_jax.graphs.liveness import TOO_MANY_PARAMETERS


@contextlib.contextmanager
def kept_trainings(
    path: Path, config: Mapping[str, Any], free: tuple[str, ...], names: Sequence[str]
) -> Iterator[Archive]:
    """Opens the folder for this process alone.

    Args:
      path: new, empty, or a folder of the same config.
      config: all that results depend on, and perhaps more.
      free: keys of the config that may differ from session to session.
      names: of the metrics of a training.

    Raises:
      RunError: if the folder cannot be used; what is in it stays as it is.
    """
    run = files.run_dir(path)
    files.check_same_config(run, config, free)
    with files.locked(run):
        files.check_same_config(run, config, free)
        files.write_json(run.config, config)
        with Archive(run.archive) as archive:
            archive.open({"task_names": list(names), "reasons": list(REASONS[:TOO_MANY_PARAMETERS])})
            yield archive
