"""Four CPU devices, so that device-parallel code is really parallel, and a tiny recipe."""

import ctypes
import gc
import math
import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from helpers import compilation

os.environ.update(compilation.ENVIRONMENT)

import jax
import ml_collections
import pytest

from helpers.tiny import tiny_config
from ssljax import log, requirements
from ssljax.data import datasets
from ssljax.errors import UsageError
from ssljax.run import metrics

jax.config.update("jax_num_cpu_devices", 4)
jax.config.update("jax_numpy_rank_promotion", "raise")  # a missing axis is no broadcast


@pytest.fixture(autouse=True, scope="module")
def programs_are_freed() -> Iterator[None]:
    """Frees what tests compiled when it is much: all of it would be gigabytes."""
    yield
    if _gibibytes_now() > 1.2:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


def _gibibytes_now() -> float:
    """The memory of this process; unknown: endless."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return math.inf
    return pages * resource.getpagesize() / 2**30


@pytest.fixture
def config() -> ml_collections.ConfigDict:
    """A fresh tiny FixMatch config."""
    return tiny_config()


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experiments are built, but their steps are not traced, which takes a second each."""
    for check in ("require_room", "check_batch_stats"):
        monkeypatch.setattr(requirements, check, lambda *_: None)


@pytest.fixture(scope="session")
def cifar10() -> datasets.Dataset:
    """The real CIFAR-10, where TFDS has prepared it: in $TFDS_DATA_DIR, or beside the project."""
    beside = Path(__file__).parents[2] / "shared" / "data" / "tfds"
    data_dir = Path(os.environ.get("TFDS_DATA_DIR", beside))
    if not (data_dir / "cifar10").is_dir():
        pytest.skip("no prepared CIFAR-10 in $TFDS_DATA_DIR")
    return datasets.cifar10(str(data_dir))


@pytest.fixture(autouse=True, scope="session")
def no_tensorboard() -> Iterator[None]:
    """Tests write metrics.jsonl only: importing TensorFlow takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "_tensorboard", lambda workdir: None)
        yield


@pytest.fixture(autouse=True)
def lines_are_shown() -> None:
    """Notes and progress are printed, as for the command line."""
    log.show_lines()


# Each is a worker's in one piece: what takes minutes must not begin when the others are done.
LONGEST = (
    "test_step", "test_npu_run", "test_export", "test_hosts", "test_loop", "test_npu_steps",
    "test_augment", "test_streaming", "test_npu_bundle", "test_ops", "test_launch", "test_seeds",
    "test_stops", "test_configs",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest modules come first."""
    order = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_collection_finish() -> None:
    """Keeps the garbage collector from looking at all that is imported, again and again."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tells the process that prints how much memory this one needed."""
    if hasattr(session.config, "workeroutput"):
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        session.config.workeroutput["gibibytes"] = kibibytes / 2**20


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[Any]:
    """Skips exports that no released converter can make of programs of this JAX."""
    try:
        return (yield)
    except UsageError as error:
        if "allowed: an older jax" in str(error):
            pytest.skip(str(error))
        raise


pytest_runtest_call = pytest_runtest_setup


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Prints it."""
    if gibibytes := getattr(node, "workeroutput", {}).get("gibibytes"):
        print(f"\n{node.gateway.id}: at most {gibibytes:.2f} GiB of memory")
