"""Optimizers, schedules and the moving average of the weights."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

PyTree = Any


def make_schedule(
    name: str,
    *,
    lr: float,
    steps: int,
    steps_per_epoch: float = 1.0,
    warmup_epochs: float = 0.0,
    decay_epochs: Sequence[float] = (1.0,),
    cosine_level: float = 7.0,
) -> optax.Schedule:
    """Learning rate at each step.

    `constant`; `cosine` (FixMatch), lr · cos(7πk / 16K); `staircase` (FixMatch on ImageNet,
    `learning_rate.py`): linear from 0 over the warm-up, then ×0.1 at the end of every so many
    epochs, counted from the first step, or with several decay_epochs after each of these epochs.

    Args:
      steps: K, the planned length of the run.
      steps_per_epoch: of the staircase: an epoch of labelled images, not rounded.
      cosine_level: what 7 is, 0 to 8: CReST has 1, AdaMatch 16 · arccos(0.25) / π.

    Raises:
      ValueError: unknown name, or epochs that are out of range.
    """
    if name == "constant":
        return optax.constant_schedule(lr)
    if name == "cosine":
        if not 0 <= cosine_level <= 8:
            raise ValueError(f"optimizer.cosine_level is {cosine_level}; allowed: from 0 to 8")
        return lambda k: lr * jnp.cos(cosine_level * jnp.pi / 16 * jnp.minimum(k / steps, 1.0))
    if name == "staircase":
        return _staircase(lr, steps_per_epoch, warmup_epochs, decay_epochs)
    raise ValueError(
        f"optimizer.schedule {name!r} does not exist; there are: constant, cosine, staircase"
    )


def _staircase(lr, steps_per_epoch, warmup_epochs, decay_epochs):
    if not 0 <= warmup_epochs < math.inf:
        raise ValueError(f"warmup_epochs is {warmup_epochs}; allowed: 0 or more")
    ends = list(decay_epochs)
    if not ends or not 0 < ends[0] < math.inf or any(a >= b for a, b in itertools.pairwise(ends)):
        raise ValueError(
            f"decay_epochs is {decay_epochs}; allowed: one number above 0, or several that rise"
        )

    def schedule(step):
        epoch = step / steps_per_epoch
        if len(ends) == 1:
            decays = jnp.floor(epoch / ends[0])
        else:
            decays = jnp.sum(epoch > jnp.asarray(ends))
        warm = epoch / max(warmup_epochs, 1e-9)
        return lr * jnp.where(epoch < warmup_epochs, warm, 0.1**decays)

    return schedule


def make_optimizer(
    name: str, schedule: optax.Schedule, *, weight_decay: float, momentum: float = 0.9
) -> optax.GradientTransformation:
    """The optimizers of the published systems, with their way to shrink the kernels.

    `adam` (MixMatch): Adam, then kernels ← kernels · (1 - weight_decay · lr).
    TensorFlow adds Adam's epsilon, 1e-8, before the bias correction of √v, optax after it: weights
    whose gradients are under 1e-6 move more slowly there in the first steps.

    `sgd` (FixMatch): Nesterov momentum on the loss plus weight_decay · ½ Σ kernels².

    `keras_sgd` (FixMatch on ImageNet): the same with Keras' l2 of kernels and of the dense layers'
    biases, weight_decay · Σ w², without the half.

    Raises:
      ValueError: unknown name.
    """
    if name == "adam":
        return optax.chain(optax.adam(schedule), _shrink_kernels(schedule, weight_decay))
    if name in ("sgd", "keras_sgd"):
        l2 = (weight_decay, kernels) if name == "sgd" else (2 * weight_decay, regularized_by_keras)
        return optax.chain(
            optax.add_decayed_weights(l2[0], mask=l2[1]),
            optax.sgd(schedule, momentum=momentum, nesterov=True),
        )
    raise ValueError(f"optimizer.name {name!r} does not exist; there are: adam, keras_sgd, sgd")


def kernels(params: PyTree) -> PyTree:
    """True at the weights of convolutions and dense layers; False at biases and BatchNorm."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def regularized_by_keras(params: PyTree) -> PyTree:
    """True at kernels, and at the biases of dense layers, whose kernel is a matrix."""

    def regularized(layer):
        if "kernel" not in layer:
            return {
                k: regularized(v) if isinstance(v, Mapping) else False for k, v in layer.items()
            }
        return {"kernel": True, **({"bias": layer["kernel"].ndim == 2} if "bias" in layer else {})}

    return regularized(params)


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
