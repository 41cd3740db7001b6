"""Optimizers, schedules and the moving average of the weights."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

PyTree = Any


def make_schedule(name: str, *, lr: float, steps: int) -> optax.Schedule:
    """Learning rate at each step: `constant`, or FixMatch's `cosine`, lr · cos(7πk / 16K).

    Raises:
      ValueError: unknown name.
    """
    if name == "constant":
        return optax.constant_schedule(lr)
    if name == "cosine":
        return lambda k: lr * jnp.cos(7 * jnp.pi / 16 * jnp.minimum(k / steps, 1.0))
    raise ValueError(f"optimizer.schedule {name!r} does not exist; there are: constant, cosine")


def make_optimizer(
    name: str, schedule: optax.Schedule, *, weight_decay: float, momentum: float = 0.9
) -> optax.GradientTransformation:
    """The optimizers of the published systems, with their way to shrink the kernels.

    `adam` (MixMatch): Adam, then kernels ← kernels · (1 - weight_decay · lr).
    TensorFlow adds Adam's epsilon, 1e-8, before the bias correction of √v, optax after it: weights
    whose gradients are under 1e-6 move more slowly there in the first steps.

    `sgd` (FixMatch): Nesterov momentum on the loss plus weight_decay · ½ Σ kernels².

    Raises:
      ValueError: unknown name.
    """
    if name == "adam":
        return optax.chain(optax.adam(schedule), _shrink_kernels(schedule, weight_decay))
    if name == "sgd":
        return optax.chain(
            optax.add_decayed_weights(weight_decay, mask=kernels),
            optax.sgd(schedule, momentum=momentum, nesterov=True),
        )
    raise ValueError(f"optimizer.name {name!r} does not exist; there are: adam, sgd")


def kernels(params: PyTree) -> PyTree:
    """True at the weights of convolutions and dense layers; False at biases and BatchNorm."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _shrink_kernels(schedule: optax.Schedule, weight_decay: float) -> optax.GradientTransformation:
    """Multiplies the *updated* kernels by 1 - weight_decay · lr (AdamW shrinks the old ones)."""

    def update(updates, state, params):
        rate = weight_decay * schedule(state.count)
        updates = jax.tree.map(
            lambda u, p, is_kernel: u - rate * (p + u) if is_kernel else u,
            updates,
            params,
            kernels(params),
        )
        return updates, optax.ScaleByScheduleState(optax.safe_increment(state.count))

    def init(params):
        del params
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

    return optax.GradientTransformation(init, update)


def moving_average(average: PyTree, value: PyTree, decay: float) -> PyTree:
    """decay · average + (1 - decay) · value, leaf by leaf; no debiasing."""
    return optax.incremental_update(value, average, 1 - decay)
