"""Compilation settings for tests, in this process and in processes that tests start."""

import os
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Tests compile much and compute little. The last flag is set by `devices.split_cpu`, so that
# processes started by tests share compiled programs with the tests.
FAST = (
    "--xla_backend_optimization_level=0",
    # Newer versions do not support it, and abort on unknown flags.
    *(["--xla_cpu_use_fusion_emitters=false"] if version("jaxlib") < "0.11" else []),
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_multi_thread_eigen=false",
)
_GIVEN = os.environ.get("XLA_FLAGS", "").split()
# Compiled programs are shared between tests.
ENVIRONMENT = {
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "xla"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "XLA_FLAGS": " ".join(dict.fromkeys([*_GIVEN, *FAST])),  # repeated flags change the key
}
# For processes that import TensorFlow but not TensorBoard: without Keras, 2 s faster.
NO_KERAS = {"TF_USE_LEGACY_KERAS": "1"}
