"""Several devices: the only file that knows of pmap. Processes are in `hosts.py`.

A value that lives on the devices is *replicated*: each leaf has a leading axis, one entry a
device of this process, all entries equal. Functions take all devices of the run, in the order in
which they divide a batch.
"""

import os
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssljax.data import memory
from ssljax.errors import UsageError
from ssljax.training.state import TrainState
from ssljax.training.step import Data, Metrics, Replica, Sample

PyTree = Any
AXIS = "devices"
# (state, window, feed, number of steps) -> (state, window); the window sums the steps' metrics.
# When it returns, at most two steps are left to do.
Run = Callable[[TrainState, Metrics, "Feed", int], tuple[TrainState, Metrics]]
# (weights by name: (params, batch_stats), batches of images and labels) -> by that name, means over
# exactly those images: numbers, or of `classes` a vector
Batches = Iterable[tuple[np.ndarray, np.ndarray]]
Evaluate = Callable[[Mapping[str, tuple[PyTree, PyTree]], Batches], dict[str, dict[str, Any]]]


def _own(devices: Sequence[jax.Device]) -> list[jax.Device]:
    """Those of this process."""
    return [device for device in devices if device.process_index == jax.process_index()]


def own_rows(size: int, devices: Sequence[jax.Device]) -> np.ndarray:
    """Which of `size` rows of a batch the devices of this process are given, in order."""
    shares = np.arange(size).reshape(len(devices), -1)
    return np.concatenate([x for x, d in zip(shares, devices, strict=True) if d in _own(devices)])


def cache_programs(directory: str) -> None:
    """Keeps what XLA compiles in a directory, for the next start on such a machine; "": nothing.

    Of small programs, which are many, too.
    """
    if directory:
        jax.config.update("jax_compilation_cache_dir", str(Path(directory).expanduser().absolute()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def cores() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices_for(batch_size: int) -> int:
    """The CPU devices to train on where none are asked for: the most that divide the batch, up to
    one a core; 1 where JAX has been told how many there are."""
    if jax.config.jax_num_cpu_devices > 0:  # type: ignore[attr-defined]
        return 1
    return max(n for n in range(1, cores() + 1) if batch_size % n == 0)


def split_cpu(count: int) -> None:
    """Makes the CPU `count` devices of one thread each; call it before JAX starts its backend.

    XLA's convolutions gain little from its thread pool, so a device a core is the faster way to
    use several cores for large networks.
    """
    if count > 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
        jax.config.update("jax_num_cpu_devices", count)


def require_even(devices: Sequence[jax.Device]) -> None:
    """Every process has as many devices as any other.

    Raises:
      UsageError: one has more.
    """
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        each = ", ".join(f"{count} on process {i}" for i, count in sorted(counts.items()))
        raise UsageError(f"the devices of a run are {each}; allowed: as many on each")


def require_memory(data: Data, devices: Sequence[jax.Device]) -> int:
    """How many bytes of `data` each device will hold: all of it.

    Raises:
      UsageError: that is more than a device has. CPU devices share the machine's memory.
    """
    size = sum(x.nbytes for x in data)
    for device in _own(devices):
        stats = device.memory_stats()
        if stats and "bytes_limit" in stats:
            memory.require("the data", size, stats["bytes_limit"], f"the memory of {device}")
    if devices[0].platform == "cpu":
        memory.require(
            f"the data, on each of {len(_own(devices))} CPU devices",
            size * len(_own(devices)),
            memory.host_bytes(),
            "the machine's memory",
        )
    return size


def replica(devices: Sequence[jax.Device]) -> Replica:
    """What `make_train_step` must know to run on `devices` with `make_run`."""
    return Replica(AXIS, len(devices))


def replicate(tree: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """Copies host arrays to every device."""
    own = _own(devices)
    return jax.tree.map(lambda x: _put([np.asarray(x)] * len(own), own), tree)


def spread(tree: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """Gives each device its share of host arrays that hold this process's rows."""
    own = _own(devices)
    return jax.tree.map(lambda x: _put(np.split(x, len(own)), own), tree)


def _put(parts: Sequence[np.ndarray], devices: Sequence[jax.Device]) -> jax.Array:
    """One array a device, as one array with a leading axis of devices."""
    sharding = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))
    shards = [jax.device_put(x[None], device) for x, device in zip(parts, devices, strict=True)]
    shape = (len(devices), *parts[0].shape)
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)


def fetch(tree: PyTree) -> PyTree:
    """The first device's copy of a replicated tree, as NumPy arrays on the host."""
    return jax.tree.map(lambda x: x[0], jax.device_get(jax.tree.map(_first_shard, tree)))


def _first_shard(x: jax.Array) -> jax.Array:
    return x.addressable_data(0)


def make_run(
    train_step: Callable[[TrainState, Data], tuple[TrainState, Metrics]],
    devices: Sequence[jax.Device],
    *,
    loop_on_device: bool | None = None,
) -> Run:
    """Compiles `train_step` for `devices`.

    Args:
      loop_on_device: whether the steps of one call run in a loop on the device; None: on
        accelerators only. XLA's CPU convolutions are some thirty times slower inside a loop.

    Returns:
      `run(state, window, data, steps)` with replicated data, which gives up the memory of `state`
      and `window`.
    """

    def once(state, window, data):
        state, metrics = train_step(state, data)
        return state, jax.tree.map(jnp.add, window, metrics)

    def many(state, window, data, steps):
        return jax.lax.fori_loop(0, steps, lambda _, c: once(c[0], c[1], data), (state, window))

    if loop_on_device is None:
        loop_on_device = devices[0].platform != "cpu"
    if loop_on_device:
        looped = jax.pmap(many, AXIS, devices=devices, donate_argnums=(0, 1))

        def run_looped(state, window, data, steps):
            count = replicate(np.int32(steps), devices)
            return jax.block_until_ready(looped(state, window, data, count))

        return run_looped
    step = jax.pmap(once, AXIS, devices=devices, donate_argnums=(0, 1))

    def run(state, window, data, steps):
        for _ in range(steps):
            state, window = jax.block_until_ready(step(state, window, data))
        return state, window

    return run


class Stream:
    """Batches of the host, put on the devices by a thread of its own while steps run.

    `waited` counts the seconds in which the devices had nothing to do for want of a batch.
    """

    _AHEAD = 2  # batches that lie on the devices before they are needed; steps not yet done

    def __init__(self, samples: Iterator[Sample], devices: Sequence[jax.Device]):
        self.waited = 0.0
        self._running: deque[jax.Array] = deque()
        self._ready: queue.Queue[Any] = queue.Queue(self._AHEAD)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, args=(samples, devices), daemon=True)
        self._thread.start()

    def _fill(self, samples, devices):
        try:
            for sample in samples:
                self._offer(spread(sample, devices))
                if self._closed.is_set():
                    return
            self._offer(RuntimeError("the stream of batches has ended"))
        except BaseException as error:  # raised again where the batch is missed
            self._offer(error)

    def _offer(self, item):
        while not self._closed.is_set():
            try:
                return self._ready.put(item, timeout=0.1)
            except queue.Full:
                pass

    def next(self) -> Sample:
        """The next batch, once the devices have no more than two steps left to do.

        Raises:
          Whatever the host's iterator raised.
        """
        if len(self._running) == self._AHEAD:
            jax.block_until_ready(self._running.popleft())
        if self._ready.empty():
            jax.block_until_ready(list(self._running))
            start = time.perf_counter()
            item = self._ready.get()
            self.waited += time.perf_counter() - start
        else:
            item = self._ready.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def follow(self, result: jax.Array) -> None:
        """Notes a result of the step that was begun with the last batch."""
        self._running.append(result)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join()


Feed = Data | Stream  # what steps read: all data, replicated, or batch by batch


def make_streamed_run(
    train_step: Callable[[TrainState, Sample], tuple[TrainState, Metrics]],
    devices: Sequence[jax.Device],
) -> Run:
    """As `make_run`, for steps that read the batches of a `Stream`."""

    def once(state, window, sample):
        state, metrics = train_step(state, sample)
        return state, jax.tree.map(jnp.add, window, metrics), metrics["loss/total"].count

    step = jax.pmap(once, AXIS, devices=devices, donate_argnums=(0, 1))

    def run(state, window, stream, steps):
        for _ in range(steps):
            state, window, result = step(state, window, stream.next())
            stream.follow(result)
        return state, window

    return run


def metric_shapes(
    train_step: Callable[..., tuple[TrainState, Metrics]],
    state: TrainState,
    data: Data | Sample,
    devices: Sequence[jax.Device],
) -> Metrics:
    """Shapes of the step's metrics; `state` and `data` are arrays or shapes of one device's."""

    def stacked(x):
        return jax.ShapeDtypeStruct((len(_own(devices)), *x.shape), x.dtype)

    step = jax.pmap(train_step, AXIS, devices=devices)
    _, metrics = jax.eval_shape(step, *jax.tree.map(stacked, (state, data)))
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), metrics)


def make_evaluate(
    eval_step: Callable[..., Metrics], devices: Sequence[jax.Device], *, batch_size: int
) -> Evaluate:
    """Compiles exact evaluation: every image counts once, whatever the batch size and devices.

    Returns:
      `evaluate(weights, batches)`, with replicated weights; a batch is this process's part of one
      of `batch_size` images, or fewer. All processes must give as many batches.
    """
    own = len(_own(devices))
    each = -(-own_batch(batch_size) // own)

    def step(*args):
        return jax.lax.psum(eval_step(*args), AXIS)

    mapped = jax.pmap(step, AXIS, devices=devices)

    def evaluate(weights, batches):
        sums: dict[str, dict[str, tuple[Any, Any]]] = {kind: {} for kind in weights}
        for images, labels in batches:
            mask = np.ones(len(images), np.float32)
            shares = [
                _pad(x, each * own).reshape(own, each, *x.shape[1:])
                for x in (images, labels.astype(np.int32), mask)
            ]
            for kind, (params, batch_stats) in weights.items():
                for name, part in fetch(mapped(params, batch_stats, *shares)).items():
                    total, count = sums[kind].get(name, (0, 0))
                    sums[kind][name] = total + part.total, count + part.count
        return {
            kind: {name: total / count for name, (total, count) in of_kind.items()}
            for kind, of_kind in sums.items()
        }

    return evaluate


def own_part(indices: np.ndarray) -> np.ndarray:
    """Of images to evaluate, those that this process evaluates."""
    return indices[jax.process_index() :: jax.process_count()]


def own_batch(batch_size: int) -> int:
    """How many images of an evaluation's batch are this process's."""
    return -(-batch_size // jax.process_count())


def in_step(
    batches: Batches, total: int, batch_size: int, image_shape: tuple[int, int, int]
) -> Batches:
    """The batches of this process's part of `total` images, then empty ones until the others, which
    may have an image more, have none left."""
    largest = -(-total // jax.process_count())
    left = -(-largest // own_batch(batch_size))
    for batch in batches:
        yield batch
        left -= 1
    for _ in range(left):
        yield np.zeros((0, *image_shape), np.uint8), np.zeros(0, np.int64)


def _pad(x: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((length - len(x), *x.shape[1:]), x.dtype)])
