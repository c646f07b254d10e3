"""What all tests share: the platform, Hypothesis settings and the folder of data files."""

import importlib.metadata
import os
import pathlib

# Before JAX is imported. Golden numbers and bit-for-bit tests are stated for the CPU.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Tests of several processes compile much the same programs, and a second run the same ones again.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(pathlib.Path(__file__).parents[1] / ".pytest_cache" / "xla")
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
# Most of the time of the tests is XLA's: these halve it. XLA ends a process for flags that it does not know.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    os.environ["XLA_FLAGS"] = " ".join(
        [
            "--xla_cpu_use_fusion_emitters=false",
            "--xla_backend_optimization_level=1",
            "--xla_cpu_parallel_codegen_split_count=1",
            os.environ.get("XLA_FLAGS", ""),  # the last of a flag counts
        ]
    ).strip()

import hypothesis
import pytest

# Compiling is slow and not the example's fault; a failure must come back on the next run.
hypothesis.settings.register_profile("elenas_jax", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("elenas_jax")


@pytest.fixture(scope="session")
def data_dir() -> pathlib.Path:
    """The folder named by ELENAS_DATA_DIR; tests that need it are skipped where it is not set."""
    folder = os.environ.get("ELENAS_DATA_DIR")
    if not folder:
        pytest.skip("ELENAS_DATA_DIR is not set")
    return pathlib.Path(folder)
