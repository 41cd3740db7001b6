"""How programs are compiled in tests, here and in the processes that tests start."""

import os
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Tests compile much and compute little. The last one is what `devices.split_cpu` sets: programs of
# the processes that tests start are those of the tests.
FAST = (
    "--xla_backend_optimization_level=0",
    # Newer versions do not know it, and end a process that is given an unknown flag.
    *(["--xla_cpu_use_fusion_emitters=false"] if version("jaxlib") < "0.11" else []),
    "--xla_cpu_parallel_codegen_split_count=1",
    "--xla_cpu_multi_thread_eigen=false",
)
_GIVEN = os.environ.get("XLA_FLAGS", "").split()
# What one test compiled, the others load.
ENVIRONMENT = {
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".pytest_cache" / "xla"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    "XLA_FLAGS": " ".join(dict.fromkeys([*_GIVEN, *FAST])),  # what is said twice is another key
}
# For a process that imports TensorFlow and no TensorBoard: without Keras it takes two seconds less.
NO_KERAS = {"TF_USE_LEGACY_KERAS": "1"}
