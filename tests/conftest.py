"""Sets up four CPU devices, so that device-parallel code runs in parallel, and a tiny recipe."""

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
jax.config.update("jax_numpy_rank_promotion", "raise")  # a missing axis must not be broadcast


@pytest.fixture(autouse=True, scope="module")
def programs_are_freed() -> Iterator[None]:
    """Frees compiled programs when they take much memory; all of them would take gigabytes."""
    yield
    if _gibibytes_now() > 2:
        jax.clear_caches()
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)


def _gibibytes_now() -> float:
    """Returns the memory of this process; infinity if unknown."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return math.inf
    return pages * resource.getpagesize() / 2**30


@pytest.fixture
def config() -> ml_collections.ConfigDict:
    """Returns a fresh config of a tiny FixMatch recipe."""
    return tiny_config()


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Experiments are built, but their steps are not traced, which takes a second each."""
    for check in ("require_room", "check_batch_stats"):
        monkeypatch.setattr(requirements, check, lambda *_: None)


@pytest.fixture(scope="session")
def cifar10() -> datasets.Dataset:
    """The real CIFAR-10 if TFDS has prepared it: in $TFDS_DATA_DIR, or beside the project."""
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
    """Prints notes and progress, as on the command line."""
    log.show_lines()


# Each module runs on one worker: the longest must not start when the others are done.
LONGEST = (
    "test_step", "test_npu_run", "test_export", "test_hosts", "test_loop", "test_npu_steps",
    "test_augment", "test_streaming", "test_npu_bundle", "test_ops", "test_launch", "test_seeds",
    "test_stops", "test_configs",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Moves the longest modules to the front."""
    order = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(order)))


def pytest_collection_finish() -> None:
    """Lets the garbage collector run less often and skip what is imported, which saves time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 10, 10)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Reports this worker's peak memory to the main process."""
    if hasattr(session.config, "workeroutput"):
        kibibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        session.config.workeroutput["gibibytes"] = kibibytes / 2**20


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Iterator[Any]:
    """Skips exports for which no released converter supports programs of this JAX."""
    try:
        return (yield)
    except UsageError as error:
        if "allowed: an older jax" in str(error):
            pytest.skip(str(error))
        raise


pytest_runtest_call = pytest_runtest_setup


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Prints the worker's peak memory."""
    if gibibytes := getattr(node, "workeroutput", {}).get("gibibytes"):
        print(f"\n{node.gateway.id}: at most {gibibytes:.2f} GiB of memory")
