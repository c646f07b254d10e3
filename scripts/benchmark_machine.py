"""What benchmarks say of the machine they run on."""

import platform
import re
import time
from pathlib import Path

import evaluation_peers as peers
import jax
import numpy as np

from elenas_jax.evaluation import parallel


def matmul_rate() -> float:
    """Returns the most GFLOP/s of products `[1024, 64] @ [64, 64]`, on all devices together."""
    devices, repeats, rows, width = parallel.count_devices(), 200, 1024, 64

    def chain(x, w):
        return jax.lax.fori_loop(0, repeats, lambda _, x: x @ w, x)

    run = parallel.map_over_devices(chain, devices, split=(True, False))
    x, w = np.ones((devices, rows, width), np.float32), np.full((width, width), 1 / width, np.float32)
    seconds = []
    for _ in range(12):
        start = time.perf_counter()
        jax.block_until_ready(run(x, w))
        seconds.append(time.perf_counter() - start)
    return 2e-9 * devices * repeats * rows * width * width / min(seconds)


def machine_line() -> str:
    """Says what the numbers are measured on."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    name = names[0] if names else platform.processor() or "unknown processor"
    devices = parallel.describe_devices(parallel.count_devices())
    torch = peers.torch_version() or "not installed"
    return f"{parallel.usable_cores()} cores, {name}; {devices}; JAX {jax.__version__}; PyTorch {torch}"
