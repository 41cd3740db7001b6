"""Four CPU devices, so that device-parallel code is really parallel, and a tiny recipe."""

import os
from pathlib import Path

# What one test compiled, the others (and the processes they start) load.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(Path(__file__).parents[1] / ".pytest_cache" / "xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# Tests compile much and compute little.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import jax
import ml_collections
import pytest
from helpers.tiny import tiny_config

from ssljax import log
from ssljax.data import datasets
from ssljax.run import metrics

jax.config.update("jax_num_cpu_devices", 4)


@pytest.fixture
def config() -> ml_collections.ConfigDict:
    """A fresh tiny FixMatch config."""
    return tiny_config()


@pytest.fixture(scope="session")
def cifar10() -> datasets.Dataset:
    """The real CIFAR-10, where TFDS has prepared it: in $TFDS_DATA_DIR, or beside the project."""
    beside = Path(__file__).parents[2] / "shared" / "data" / "tfds"
    data_dir = Path(os.environ.get("TFDS_DATA_DIR", beside))
    if not (data_dir / "cifar10").is_dir():
        pytest.skip("no prepared CIFAR-10 in $TFDS_DATA_DIR")
    return datasets.cifar10(str(data_dir))


@pytest.fixture(autouse=True)
def no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests write metrics.jsonl only: importing TensorFlow takes seconds."""
    monkeypatch.setattr(metrics, "_tensorboard", lambda workdir: None)


@pytest.fixture(autouse=True)
def lines_are_shown() -> None:
    """Notes and progress are printed, as for the command line."""
    log.show_lines()
