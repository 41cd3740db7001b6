"""The devices of a run: how many a CPU is split into, and how much memory they have."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import jax
from jax._src import xla_bridge  # no public function says whether backends are initialised

from ssljax import paths
from ssljax.data import memory
from ssljax.errors import RunError, UsageError

# Memory of the libraries, the compiler and Python, besides that of the step.
_PROGRAM_BYTES = 1_500_000_000


def local_devices(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """The devices of a run that are local to this process.

    A single process has all of them, even absent chips that would belong to several hosts.
    """
    if jax.process_count() == 1:
        return list(devices)
    return [device for device in devices if device.process_index == jax.process_index()]


def cache_programs(directory: str) -> None:
    """Caches compiled programs in a directory, for later starts on such machines; "": no cache.

    The many small programs are cached too. JAX opens URLs itself.
    """
    if directory:
        if "://" not in directory:
            directory = os.path.abspath(paths.expand(directory, "config.compilation_cache"))
        jax.config.update("jax_compilation_cache_dir", directory)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def cores() -> int:
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices_for(batch_size: int) -> int:
    """The default number of CPU devices: the largest divisor of the batch, up to one per core.

    It is 1 if the number of CPU devices is already configured in JAX.
    """
    if jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
        return 1
    return max(n for n in range(1, cores() + 1) if batch_size % n == 0)


def split_cpu(count: int) -> None:
    """Splits the CPU into `count` devices of one thread each, if no backend is initialised yet.

    XLA's convolutions gain little from its thread pool, so one device per core is the faster way to
    use several cores for large networks.
    """
    if count > 1 and not xla_bridge.backends_are_initialized():
        flags = os.environ.get("XLA_FLAGS", "").split()
        one_thread = "--xla_cpu_multi_thread_eigen=false"
        os.environ["XLA_FLAGS"] = " ".join(dict.fromkeys([*flags, one_thread]))
        jax.config.update("jax_num_cpu_devices", count)


@contextmanager
def telling_of_full_memory() -> Iterator[None]:
    """Turns JAX's out-of-memory errors of devices into an error of one line.

    Raises:
      RunError: a step or an evaluation does not fit into the memory of a device.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise RunError(
            f"a device's memory is full; a smaller config.batch_size, uratio or eval_batch_size "
            f"needs less ({reason})"
        ) from error


def require_even(devices: Sequence[jax.Device]) -> None:
    """Requires that all processes have equally many devices.

    Raises:
      UsageError: their numbers of devices differ.
    """
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{count} on process {i}" for i, count in sorted(counts.items()))
        raise UsageError(f"the devices of a run are {each}; allowed: equally many on each")


def memory_of(device: jax.Device) -> int | None:
    """The bytes of a device that programs may use; None: the device is a CPU, or absent."""
    try:
        stats = device.memory_stats()
    except jax.errors.JaxRuntimeError:
        return None
    return stats.get("bytes_limit") if stats else None


def require_room(what: str, size: int, devices: Sequence[jax.Device]) -> None:
    """Requires that `size` bytes of `what` fit on each device. CPU devices share host memory.

    Raises:
      UsageError: a device has too little memory.
    """
    for device in local_devices(devices):
        if limit := memory_of(device):
            memory.require(what, size, limit, f"the memory of {device}")
    if devices[0].platform == "cpu":
        memory.require(
            f"{what}, on each of {len(local_devices(devices))} CPU devices",
            size * len(local_devices(devices)),
            memory.host_bytes(),
            "the machine's memory",
        )


def require_step(step: int, beside: int, batch_size: int, devices: Sequence[jax.Device]) -> None:
    """Requires that a step fits into the machine's memory.

    Accelerators are not checked: on them, XLA can reduce the memory below the estimate.

    Args:
      step: estimated bytes that a step needs on each device.
      beside: further bytes on each device.
      batch_size: labelled images per step, to suggest a smaller number.

    Raises:
      UsageError: the step does not fit.
    """
    if devices[0].platform != "cpu":
        return
    count, limit = len(local_devices(devices)), memory.host_bytes()
    room = limit - beside * count - _PROGRAM_BYTES
    if step * count > room:
        fitting = int(batch_size * max(0, room) / (step * count))
        raise UsageError(
            f"a step needs about {memory.describe(step)} on each of {count} CPU devices, and the "
            f"program and its data {memory.describe(limit - room)}; this process may use "
            f"{memory.describe(limit)}. A config.batch_size of about {fitting} would fit; a "
            "smaller config.uratio, image_size or network needs less, too"
        )
