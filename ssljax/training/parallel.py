"""Several devices: the only file that knows of pmap.

A value that lives on the devices is *replicated*: each leaf has a leading axis, one entry a
device, all entries equal.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ssljax.training.state import TrainState
from ssljax.training.step import Data, Metrics, Replica

PyTree = Any
AXIS = "devices"
# (state, window, data, number of steps) -> (state, window); the window sums the steps' metrics.
Run = Callable[[TrainState, Metrics, Data, int], tuple[TrainState, Metrics]]
# (params, batch_stats, images, labels) -> means over exactly those images
Evaluate = Callable[[PyTree, PyTree, np.ndarray, np.ndarray], dict[str, float]]


def split_cpu(count: int) -> None:
    """Makes the CPU `count` devices of one thread each; call it before JAX starts its backend.

    XLA's convolutions gain little from its thread pool, so a device a core is the faster way to
    use several cores for large networks.
    """
    if count > 1:
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
        jax.config.update("jax_num_cpu_devices", count)


def replica(devices: Sequence[jax.Device]) -> Replica:
    """What `make_train_step` must know to run on `devices` with `make_run`."""
    return Replica(AXIS, len(devices))


def replicate(tree: PyTree, devices: Sequence[jax.Device]) -> PyTree:
    """Copies host arrays to every device."""
    sharding = NamedSharding(Mesh(np.array(devices), (AXIS,)), PartitionSpec(AXIS))

    def put(x):
        x = np.asarray(x)[None]
        shards = [jax.device_put(x, device) for device in devices]
        shape = (len(devices), *x.shape[1:])
        return jax.make_array_from_single_device_arrays(shape, sharding, shards)

    return jax.tree.map(put, tree)


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
      `run(state, window, data, steps)`, which gives up the memory of `state` and `window`.
    """

    def once(state, window, data):
        state, metrics = train_step(state, data)
        return state, jax.tree.map(jnp.add, window, metrics)

    def many(state, window, data, steps):
        return jax.lax.fori_loop(0, steps, lambda _, c: once(c[0], c[1], data), (state, window))

    if loop_on_device is None:
        loop_on_device = devices[0].platform != "cpu"
    if loop_on_device:
        in_axes = (0, 0, 0, None)
        return jax.pmap(many, AXIS, in_axes=in_axes, devices=devices, donate_argnums=(0, 1))
    step = jax.pmap(once, AXIS, devices=devices, donate_argnums=(0, 1))

    def run(state, window, data, steps):
        for _ in range(steps):
            state, window = step(state, window, data)
        return state, window

    return run


def metric_shapes(
    train_step: Callable[[TrainState, Data], tuple[TrainState, Metrics]],
    state: TrainState,
    data: Data,
    devices: Sequence[jax.Device],
) -> Metrics:
    """Shapes of the step's metrics; `state` and `data` are arrays or shapes on the host."""

    def stacked(x):
        return jax.ShapeDtypeStruct((len(devices), *x.shape), x.dtype)

    step = jax.pmap(train_step, AXIS, devices=devices)
    _, metrics = jax.eval_shape(step, *jax.tree.map(stacked, (state, data)))
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape[1:], s.dtype), metrics)


def make_evaluate(
    eval_step: Callable[..., Metrics], devices: Sequence[jax.Device], *, batch_size: int
) -> Evaluate:
    """Compiles exact evaluation: every image counts once, whatever the batch size and devices.

    Returns:
      `evaluate(params, batch_stats, images, labels)`, with replicated weights.
    """
    each = -(-batch_size // len(devices))
    total = each * len(devices)

    def step(*args):
        return jax.lax.psum(eval_step(*args), AXIS)

    mapped = jax.pmap(step, AXIS, devices=devices)

    def evaluate(params, batch_stats, images, labels):
        sums: dict[str, tuple[float, float]] = {}
        for start in range(0, len(images), total):
            batch = images[start : start + total], labels[start : start + total].astype(np.int32)
            mask = np.ones(len(batch[0]), np.float32)
            shares = [
                _pad(x, total).reshape(len(devices), each, *x.shape[1:]) for x in (*batch, mask)
            ]
            for name, part in fetch(mapped(params, batch_stats, *shares)).items():
                value, count = sums.get(name, (0.0, 0.0))
                sums[name] = value + float(part.total), count + float(part.count)
        return {name: value / count for name, (value, count) in sums.items()}

    return evaluate


def _pad(x: np.ndarray, length: int) -> np.ndarray:
    return np.concatenate([x, np.zeros((length - len(x), *x.shape[1:]), x.dtype)])
