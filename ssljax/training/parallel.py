"""Several devices: the only file that uses pmap. Processes are in `hosts.py`.

A value on the devices is *replicated*: each leaf has a leading axis with one entry per local
device, and all entries are equal. Functions take all devices of the run, in the order in which they
divide a batch.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssljax.data.batches import RawBatch, TrainingData
from ssljax.data.datasets import Batches
from ssljax.training.devices import local_devices
from ssljax.training.monitors import Metrics
from ssljax.training.replica import Replica
from ssljax.training.state import TrainState, Weights
from ssljax.training.stream import Feed

PyTree = Any
AXIS = "devices"


class TrainSteps(NamedTuple):
    """Steps that are compiled for the devices of a run.

    They are called with (state, metric sums, feed, number of steps) and return (state, metric
    sums) after these steps. When they return, at most two steps are still running.
    """

    program: Any  # a mapped function, or the compiled form of it
    # (program, state, metric sums, feed, number of steps) -> (state, metric sums)
    run: Callable[[Any, TrainState, Metrics, Feed, int], tuple[TrainState, Metrics]]
    # (state, metric sums, data or batch), arrays or shapes of one device -> the lowered program of
    # a call. `.compile()` compiles it, even for absent devices.
    lower: Callable[[PyTree, PyTree, PyTree], jax.stages.Lowered]

    def __call__(
        self, state: TrainState, metric_sums: Metrics, feed: Feed, steps: int
    ) -> tuple[TrainState, Metrics]:
        return self.run(self.program, state, metric_sums, feed, steps)


class Evaluated(NamedTuple):
    """The results of an evaluation for one batch."""

    sums: Metrics  # over exactly the batch's images, of all processes; on the host
    predicted: np.ndarray  # [n] int32, the predicted class of each image of this process
    confidence: np.ndarray  # [n] float32, its probability


# (name -> weights, images, labels) -> (name -> results)
Evaluate = Callable[[Mapping[str, Weights], np.ndarray, np.ndarray], dict[str, Evaluated]]


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """An evaluation that is compiled for the devices of a run, see `compile_evaluate`."""

    run: Evaluate
    # (weights, image shape), arrays or shapes of one device -> the lowered program
    lower: Callable[[PyTree, tuple[int, ...]], jax.stages.Lowered]

    def __call__(
        self, weights: Mapping[str, Weights], images: np.ndarray, labels: np.ndarray
    ) -> dict[str, Evaluated]:
        return self.run(weights, images, labels)


def local_rows(size: int, devices: Sequence[jax.Device]) -> np.ndarray:
    """The rows, of `size` rows of a batch, that belong to the local devices, in order."""
    shares = np.arange(size).reshape(len(devices), -1)
    return np.concatenate(
        [x for x, d in zip(shares, devices, strict=True) if d in local_devices(devices)]
    )


def replica(devices: Sequence[jax.Device]) -> Replica:
    """The argument of `make_train_step` for `compile_steps` on `devices`."""
    return Replica(AXIS, len(devices))


def replicate(tree: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """Copies host arrays to every local device."""
    local = local_devices(devices)
    return jax.tree.map(lambda x: _put([np.asarray(x)] * len(local), local), tree)


def spread(tree: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """Distributes host arrays with the rows of this process over its devices."""
    local = local_devices(devices)
    return jax.tree.map(lambda x: _put(np.split(x, len(local)), local), tree)


def _put(parts: Sequence[np.ndarray], devices: Sequence[jax.Device]) -> jax.Array:
    """Puts one array on each device, and returns them as one array with a leading device axis."""
    sharding = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))
    shards = [jax.device_put(x[None], device) for x, device in zip(parts, devices, strict=True)]
    shape = (len(devices), *parts[0].shape)
    return jax.make_array_from_single_device_arrays(shape, sharding, shards)


def fetch(tree: PyTree) -> PyTree:
    """The first device's copy of a replicated tree, as NumPy arrays on the host."""
    return jax.tree.map(lambda x: x[0], jax.device_get(jax.tree.map(_first_shard, tree)))


def _first_shard(x: jax.Array) -> jax.Array:
    return x.addressable_data(0)


def compile_steps(
    train_step: Callable[[TrainState, TrainingData], tuple[TrainState, Metrics]],
    devices: Sequence[jax.Device],
    *,
    loop_on_device: bool | None = None,
) -> TrainSteps:
    """Compiles `train_step` for `devices`.

    Args:
      loop_on_device: whether the steps of one call run in a loop on the device; None: on
        accelerators only. XLA's CPU convolutions are some thirty times slower inside a loop.

    Returns:
      `steps(state, metric_sums, data, count)` with replicated data, which donates the memory of
      `state` and `metric_sums`.
    """

    def once(state, metric_sums, data):
        state, metrics = train_step(state, data)
        return state, jax.tree.map(jnp.add, metric_sums, metrics)

    def many(state, metric_sums, data, steps):
        return jax.lax.fori_loop(
            0, steps, lambda _, c: once(c[0], c[1], data), (state, metric_sums)
        )

    if loop_on_device is None:
        loop_on_device = devices[0].platform != "cpu"
    if loop_on_device:
        looped = jax.pmap(many, AXIS, devices=devices, donate_argnums=(0, 1))

        def run_looped(program, state, metric_sums, data, steps):
            count = replicate(np.int32(steps), devices)
            return jax.block_until_ready(program(state, metric_sums, data, count))

        return TrainSteps(looped, run_looped, _lower(looped, devices, np.int32(1)))
    step = jax.pmap(once, AXIS, devices=devices, donate_argnums=(0, 1))

    def run(program, state, metric_sums, data, steps):
        for _ in range(steps):
            state, metric_sums = jax.block_until_ready(program(state, metric_sums, data))
        return state, metric_sums

    return TrainSteps(step, run, _lower(step, devices))


def compile_streamed_steps(
    train_step: Callable[[TrainState, RawBatch], tuple[TrainState, Metrics]],
    devices: Sequence[jax.Device],
) -> TrainSteps:
    """Like `compile_steps`, for steps that read the batches of a `Stream`."""

    def once(state, metric_sums, batch):
        state, metrics = train_step(state, batch)
        return state, jax.tree.map(jnp.add, metric_sums, metrics), metrics["loss/total"].count

    step = jax.pmap(once, AXIS, devices=devices, donate_argnums=(0, 1))

    def run(program, state, metric_sums, stream, steps):
        for _ in range(steps):
            state, metric_sums, result = program(state, metric_sums, stream.next())
            stream.follow(result)
        return state, metric_sums

    return TrainSteps(step, run, _lower(step, devices))


def _lower(mapped: Any, devices: Sequence[jax.Device], *more: Any) -> Callable[..., Any]:
    """A function that lowers `mapped` for one device's arguments, followed by `more`."""
    return lambda *arguments: mapped.lower(*_stacked((*arguments, *more), devices))


def _stacked(tree: PyTree, devices: Sequence[jax.Device]) -> Any:
    """The shapes of replicated arrays, from one device's arrays or shapes."""
    count = len(local_devices(devices))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape), x.dtype), tree)


def trace_step(
    train_step: Callable[..., tuple[TrainState, Metrics]],
    state: TrainState,
    data: TrainingData | RawBatch,
    devices: Sequence[jax.Device],
) -> tuple[Metrics, Any]:
    """The shapes of the step's metrics, and its program, a jaxpr; compiles nothing.

    Args:
      state, data: arrays or shapes of one device.
    """
    step = jax.pmap(train_step, AXIS, devices=devices)
    arguments = _stacked((state, data), devices)
    program, (_, metrics) = jax.make_jaxpr(step, return_shape=True)(*arguments)
    shapes = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), metrics)
    return shapes, program.jaxpr


def compile_evaluate(
    eval_step: Callable[..., tuple[Metrics, tuple[jax.Array, jax.Array]]],
    devices: Sequence[jax.Device],
    *,
    batch_size: int,
) -> Evaluator:
    """Compiles exact evaluation: every image counts once, for any batch size and devices.

    Returns:
      `evaluate(weights, images, labels)`, with replicated weights; images and labels are this
      process's part of a batch of `batch_size`, or fewer. All processes must call it equally often.
    """
    local = len(local_devices(devices))
    each = -(-local_batch_size(batch_size) // local)

    def step(*args):
        metrics, guesses = eval_step(*args)
        return jax.lax.psum(metrics, AXIS), guesses

    mapped = jax.pmap(step, AXIS, devices=devices)

    def evaluate(weights, images, labels):
        mask = np.ones(len(images), np.float32)
        shares = [
            _pad(x, each * local).reshape(local, each, *x.shape[1:])
            for x in (images, labels.astype(np.int32), mask)
        ]
        found = {}
        for kind, of_kind in weights.items():
            sums, guesses = mapped(of_kind, *shares)
            predicted, confidence = (_local_values(x)[: len(images)] for x in guesses)
            found[kind] = Evaluated(fetch(sums), predicted, confidence)
        return found

    def lower(weights, image_shape):
        like = jax.ShapeDtypeStruct
        numbers = like((each,), np.int32), like((each,), np.float32)
        return mapped.lower(
            *_stacked((weights, like((each, *image_shape), np.uint8), *numbers), devices)
        )

    return Evaluator(evaluate, lower)


def _local_values(x: jax.Array) -> np.ndarray:
    """The local devices' values of an array `[devices, n]`, in order, flattened."""
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data).reshape(-1) for shard in shards])


def local_part(indices: np.ndarray) -> np.ndarray:
    """The images, of all images to evaluate, that this process evaluates."""
    return indices[jax.process_index() :: jax.process_count()]


def local_batch_size(batch_size: int) -> int:
    """The number of images of an evaluation's batch in this process."""
    return -(-batch_size // jax.process_count())


def in_step(
    batches: Batches, total: int, batch_size: int, image_shape: tuple[int, int, int]
) -> Batches:
    """The batches of this process's part of `total` images, then empty ones if others have more.

    Other processes may have one more image, and all must have equally many batches.
    """
    largest = -(-total // jax.process_count())
    left = -(-largest // local_batch_size(batch_size))
    for batch in batches:
        yield batch
        left -= 1
    for _ in range(left):
        yield np.zeros((0, *image_shape), np.uint8), np.zeros(0, np.int64)


def _pad(x: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((length - len(x), *x.shape[1:]), x.dtype)])
