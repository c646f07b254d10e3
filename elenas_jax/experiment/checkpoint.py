"""Checkpoints: states of searches and of trainings on disk. The only module that knows Orbax.

A checkpoint is atomic (written beside, then renamed), the newest `NUM_KEPT` stay, and restoring
gives the same bits. The leaves of a state are saved as one array of bytes, with their dtypes and
shapes beside it: Orbax refuses arrays without elements and typed keys, and notices files that are
cut or missing but not bits that changed, for which a digest is kept.
"""

import contextlib
import hashlib
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from elenas_jax.experiment.run_dir import RunError
from elenas_jax.types import PyTree

NUM_KEPT = 3


class Checkpoints:
    """The checkpoints of one run. A step is the number of generations told, or of epochs or updates done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        options = ocp.CheckpointManagerOptions(max_to_keep=NUM_KEPT, enable_async_checkpointing=False)
        try:
            path.mkdir(exist_ok=True)
            for entry in path.iterdir():  # what a kill left half-written; Orbax would clean up in a thread
                if not entry.name.isdecimal():
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            with self._quiet():
                self._manager = ocp.CheckpointManager(path, options=options)
        except OSError as error:
            raise RunError(f"Cannot write {path}: {error.strerror}.") from error

    def newest(self) -> int | None:
        """Returns the newest step, None if there is none."""
        return self._manager.latest_step()

    def save(self, step: int, state: PyTree) -> PyTree:
        """Saves `state` and returns it as `restore` would.

        Going on from what comes back makes a run and its resumption start each generation from the
        same arrays: weak types and placement do not survive a checkpoint.
        """
        leaves, structure = jax.tree.flatten(state)
        arrays = [_to_host(leaf) for leaf in leaves]
        packed = _pack(arrays)
        about = {"leaves": _leaves(arrays), "digest": _digest(packed)}
        args = ocp.args.Composite(state=ocp.args.ArraySave(packed), about=ocp.args.JsonSave(about))
        try:
            with self._quiet():
                saved = self._manager.save(step, args=args)
        except Exception as error:  # as in `restore`
            raise RunError(f"Cannot write checkpoint {step} in {self.path}: {_one_line(error)}.") from error
        if not saved:
            raise RunError(f"Cannot write checkpoint {step} in {self.path}: Orbax declined to save it.")
        return jax.tree.unflatten(
            structure, [_as_before(a, leaf) for a, leaf in zip(arrays, leaves, strict=True)]
        )

    def restore(self, step: int, like: PyTree) -> PyTree:
        """Returns the state of `step`, bit for bit.

        Args:
          step: one that exists.
          like: a state of the same strategy; gives structure, shapes, dtypes and kinds of keys.

        Raises:
          RunError: if the checkpoint is damaged or belongs to another kind of state.
        """
        where = self.path / str(step)
        advice = f"delete this folder to go on from the one before, what follows comes out the same: {where}"
        args = ocp.args.Composite(state=ocp.args.ArrayRestore(), about=ocp.args.JsonRestore())
        leaves, structure = jax.tree.flatten(like)
        arrays = [_to_host(leaf) for leaf in leaves]
        try:
            with self._quiet():
                restored = self._manager.restore(step, args=args)
            packed, about = np.asarray(restored["state"]), restored["about"]
            same_kind = about["leaves"] == _leaves(arrays)
            same_bits = about["digest"] == _digest(packed)
        except Exception as error:  # Orbax raises many kinds, some of them plain ValueErrors of its stores
            raise RunError(f"Checkpoint {step} is damaged ({_one_line(error)}); {advice}") from error
        if not same_bits:
            raise RunError(f"Checkpoint {step} is damaged (its contents do not match their digest); {advice}")
        if not same_kind:
            raise RunError(
                f"Checkpoint {step} holds another kind of state than this strategy's; use another --run_dir."
            )
        arrays = _unpack(packed, arrays)
        return jax.tree.unflatten(
            structure, [_as_before(a, leaf) for a, leaf in zip(arrays, leaves, strict=True)]
        )

    def close(self) -> None:
        self._manager.close()

    @staticmethod
    @contextlib.contextmanager
    def _quiet():
        """Keeps Orbax's reports of its own progress out of ours."""
        before = logging.get_verbosity()
        logging.set_verbosity(logging.FATAL)
        try:
            yield
        finally:
            logging.set_verbosity(before)


def _leaves(arrays: list[np.ndarray]) -> list[list]:
    return [[array.dtype.name, *array.shape] for array in arrays]


def _pack(arrays: list[np.ndarray]) -> np.ndarray:
    """All arrays as one `[bytes + 1]` uint8 array; the 1 because Orbax refuses an empty one."""
    return np.frombuffer(b"".join(array.tobytes() for array in arrays) + b"\0", np.uint8)


def _unpack(packed: np.ndarray, like: list[np.ndarray]) -> list[np.ndarray]:
    ends = np.cumsum([array.nbytes for array in like], dtype=np.int64)
    parts = [packed[end - array.nbytes : end].tobytes() for end, array in zip(ends, like, strict=True)]
    return [np.frombuffer(part, a.dtype).reshape(a.shape).copy() for part, a in zip(parts, like, strict=True)]


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _to_host(leaf: Any) -> np.ndarray:
    """A leaf as a NumPy array; of a typed key its words."""
    return np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf)


def _as_before(array: np.ndarray, leaf: Any) -> Any:
    """`array` as the kind of thing that `leaf` is."""
    if _is_key(leaf):
        return jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(leaf))
    if isinstance(leaf, jax.Array):
        return jax.device_put(array)  # unlike jnp.asarray compiles nothing
    return type(leaf)(array) if isinstance(leaf, (bool, int, float)) else array


def _digest(packed: np.ndarray) -> str:
    return hashlib.blake2b(packed.tobytes(), digest_size=16).hexdigest()


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 160 else text[:157] + "..."
