"""Devices: how many there are, and how candidates are split over them.

The only module that knows of devices. On a CPU a device is a part of one host that runs its own
program; as many as there are cores fill the machine, because candidates are independent.
"""

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np


def usable_core_numbers() -> list[int]:
    """Returns the processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def usable_cores() -> int:
    """Returns how many processor cores this process may use."""
    return len(usable_core_numbers())


def pin_to_cores(cores: Sequence[int]) -> None:
    """Keeps this process to some cores, where the system can; call it before anything is computed."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def configure_devices(num_devices: int = 0) -> None:
    """Sets the number of devices of a CPU host; call it before anything is computed.

    Args:
      num_devices: 0 for all: every accelerator, or one for every usable core of a CPU host.

    Raises:
      ValueError: for a negative number.
    """
    if num_devices < 0:
        raise ValueError(f"num_devices is {num_devices}; it must be positive, or 0 for all there are.")
    # Devices fill the cores; threads that share the work of one would only wait for each other. XLA has as
    # many threads as devices, or as NPROC says if that is more, and products add up in an order that
    # depends on how many: the same number whatever the devices keeps scores the same bits, as long as there
    # are no more devices than cores. Read when the backend starts; what the user has set stays.
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    os.environ.setdefault("NPROC", str(usable_cores()))
    # Has no effect where an accelerator is the default backend. Where the backend is up already, in
    # a notebook say, its devices are what there is.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", num_devices or usable_cores())


def count_threads() -> int | None:
    """Returns how many threads XLA has on a CPU, None elsewhere: last bits of products depend on it."""
    if not is_cpu():
        return None
    return max(int(os.environ.get("NPROC") or usable_cores()), jax.local_device_count())


def count_devices(num_devices: int = 0) -> int:
    """Returns how many local devices to use.

    Raises:
      ValueError: for a negative number, or more than there are.
    """
    available = jax.local_device_count()
    if not 0 <= num_devices <= available:
        raise ValueError(f"num_devices is {num_devices}; this host has {available} (0 means all).")
    return num_devices or available


def describe_devices(num_devices: int) -> str:
    device = jax.local_devices()[0]
    return f"{num_devices} x {device.device_kind} ({device.platform})"


class Mapped:
    """A function on devices side by side; see `map_over_devices`."""

    def __init__(self, fn: Callable, num_devices: int, split: tuple[bool, ...]) -> None:
        self.fn, self.num_devices, self.split = fn, num_devices, split
        self._compiled: dict[Any, list[Any]] = {}

    def compiled(self, *arguments: Any) -> list[Any]:
        """Compiles for arguments like these; on a CPU once for each device, else one program for all."""
        leaves, structure = jax.tree.flatten(arguments)  # what is static in a program is in the structure
        key = (structure, *map(jax.typeof, leaves))
        if key not in self._compiled:
            options = compiler_options()
            if is_cpu():
                # Parts of all devices look alike, so one trace serves all.
                traced = jax.jit(self.fn).trace(*self._part(arguments, 0))
                self._compiled[key] = self._each_device(lambda device: compile_on(device, traced, options))
            else:
                in_axes = tuple(0 if each else None for each in self.split)
                mapped: Any = jax.pmap(
                    self.fn, in_axes=in_axes, devices=jax.local_devices()[: self.num_devices]
                )
                self._compiled[key] = [mapped.lower(*arguments).compile()]
        return self._compiled[key]

    def memory_needed(self, *arguments: Any) -> int:
        """Returns the bytes that a device needs for arguments like these."""
        return memory_needed(self.compiled(*arguments)[0])

    def __call__(self, *arguments: Any) -> Any:
        compiled = self.compiled(*arguments)
        if not is_cpu():
            return compiled[0](*arguments)
        found = self._each_device(
            lambda device: on_host(compiled[device](*put_on(device, self._part(arguments, device))))
        )
        return jax.tree.map(lambda *leaves: np.stack(leaves), *found)

    def _part(self, arguments: tuple, device: int) -> tuple:
        return tuple(
            jax.tree.map(lambda leaf: leaf[device], each) if is_split else each
            for each, is_split in zip(arguments, self.split, strict=True)
        )

    def _each_device(self, run: Callable[[int], Any]) -> list[Any]:
        if self.num_devices == 1:
            return [run(0)]
        with ThreadPoolExecutor(self.num_devices) as threads:
            return list(threads.map(run, range(self.num_devices)))


def map_over_devices(fn: Callable, num_devices: int, *, split: tuple[bool, ...]) -> Mapped:
    """Compiles `fn` to run on devices side by side: by pmap on accelerators.

    On a CPU each device runs a program of its own, from a thread: a program for several devices is
    compiled otherwise than one for one, and its last bits differ.

    Args:
      fn: of as many positional arguments as `split` has entries.
      num_devices: D, of the local ones the first.
      split: for each argument, whether its leaves are `[D, ...]`, a part a device, or are copied.

    Returns:
      The function, compiled when it is called; leaves of its result are `[D, ...]`.
    """
    return Mapped(fn, num_devices, split)


def is_cpu() -> bool:
    return jax.default_backend() == "cpu"


def compile_on(device: int, traced: jax.stages.Traced, options: dict[str, Any]) -> Callable:
    """Compiles a traced function on one local device; from any thread.

    Args:
      device: its place among the local ones.
      traced: `jax.jit(fn).trace(*arguments)`, of arguments that are bound to no device.
      options: of the compiler.
    """
    with jax.default_device(jax.local_devices()[device]):
        return traced.lower().compile(compiler_options=options)


# Kernels of one step are many and small: what makes them compile faster makes none of them slower
# (docs/engine_notes.md).
_LEVEL = "xla_backend_optimization_level"
_OPTIONS: dict[str, Any] = {
    "xla_cpu_use_fusion_emitters": False,
    "xla_cpu_parallel_codegen_split_count": 1,
    _LEVEL: 1,
}


@functools.cache
def compiler_options(level: int = 1) -> dict[str, Any]:
    """Returns options for many small kernels: quick to compile.

    Those that this version of XLA knows; none on other devices than CPUs.

    Args:
      level: of optimisation of machine code; 0 is the fastest to compile and several times slower to run.
    """
    return {name: value for name, value in (_OPTIONS | {_LEVEL: level}).items() if name in _known_options()}


@functools.cache
def _known_options() -> tuple[str, ...]:
    """Returns which of `_OPTIONS` this version of XLA knows."""
    if not is_cpu():
        return ()
    known = []
    lowered = jax.jit(lambda x: x).lower(0.0)
    for name, value in _OPTIONS.items():
        try:
            lowered.compile(compiler_options={name: value})
            known.append(name)
        except jax.errors.JaxRuntimeError:
            continue
    return tuple(known)


def put_on(device: int, tree: Any) -> Any:
    """Copies a pytree of arrays to a local device, by its place among them."""
    return jax.device_put(tree, jax.local_devices()[device])


def memory_limit(memory_gib: float, num_devices: int) -> int:
    """Returns the bytes that a device may use for trainings.

    Args:
      memory_gib: for all devices together; 0 is four fifths of what there is.
      num_devices: that share it.
    """
    if memory_gib:
        return int(memory_gib * 2**30) // num_devices
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return int(0.8 * stats["bytes_limit"])
    there_is = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of a container, cgroup 2 and 1
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            there_is = min(there_is, int(Path("/sys/fs/cgroup", name).read_text()))
    return int(0.8 * there_is) // num_devices


def memory_needed(compiled: Any) -> int:
    """Returns the bytes that a compiled program says it needs on a device; 0 where it does not say."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return 0
    inside = analysis.argument_size_in_bytes + analysis.output_size_in_bytes + analysis.temp_size_in_bytes
    return int(inside - analysis.alias_size_in_bytes)


def on_host(tree: Any) -> Any:
    """Brings a pytree of arrays to the host as NumPy arrays."""
    return jax.device_get(tree)
