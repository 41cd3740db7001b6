"""Optimizers, schedules and the moving average of the weights."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
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
    warmup_steps: int = 0,
    decay_epochs: Sequence[float] = (1.0,),
    cosine_level: float = 7.0,
) -> optax.Schedule:
    """The learning rate as a function of the step k.

    `constant`; `cosine` (FixMatch), lr · cos(7πk / 16K); `cosine_to_zero` (Loshchilov & Hutter,
    2017), lr · ½(1 + cos(πk / K)); `staircase` (FixMatch on ImageNet, `learning_rate.py`): linear
    from 0 over the warm-up, then ×0.1 at the end of every decay_epochs epochs, counted from the
    first step, or with several decay_epochs after each of these epochs.

    Args:
      steps: K, the planned length of the run.
      steps_per_epoch: for the staircase: steps per epoch of labelled images, not rounded.
      warmup_epochs: for the staircase: epochs of the warm-up.
      warmup_steps: for the others: steps over which they rise linearly from 0; k and K are then
        counted from their end (USB's `get_cosine_schedule_with_warmup`).
      cosine_level: the factor 7 of `cosine`, 0 to 8: CReST has 1, AdaMatch 16 · arccos(0.25) / π.

    Raises:
      ValueError: the name is unknown, or the warm-up or the epochs are out of range.
    """
    if warmup_steps and (name == "staircase" or not 0 < warmup_steps < steps):
        allowed = "0, and warmup_epochs" if name == "staircase" else f"below {steps}, num_steps"
        raise ValueError(
            f"warmup_steps is {warmup_steps}; allowed for schedule {name!r}: {allowed}"
        )
    left = steps - warmup_steps
    if name == "constant":
        schedule = optax.constant_schedule(lr)
    elif name == "cosine":
        if not 0 <= cosine_level <= 8:
            raise ValueError(f"cosine_level is {cosine_level}; allowed: from 0 to 8")
        angle = cosine_level * jnp.pi / 16
        schedule = lambda k: lr * jnp.cos(angle * jnp.minimum(k / left, 1.0))  # noqa: E731
    elif name == "cosine_to_zero":
        schedule = optax.cosine_decay_schedule(lr, left)
    elif name == "staircase":
        schedule = _staircase(lr, steps_per_epoch, warmup_epochs, decay_epochs)
    else:
        raise ValueError(
            f"optimizer.schedule {name!r} does not exist; there are: constant, cosine, "
            "cosine_to_zero, staircase"
        )
    return _warmed(schedule, lr, warmup_steps) if warmup_steps else schedule


def _warmed(schedule: optax.Schedule, lr: float, steps: int) -> optax.Schedule:
    return optax.join_schedules([optax.linear_schedule(0.0, lr, steps), schedule], [steps])


def _staircase(lr, steps_per_epoch, warmup_epochs, decay_epochs):
    if not 0 <= warmup_epochs < math.inf:
        raise ValueError(f"warmup_epochs is {warmup_epochs}; allowed: 0 or more")
    ends = list(decay_epochs)
    if not ends or not 0 < ends[0] < math.inf or any(a >= b for a, b in itertools.pairwise(ends)):
        raise ValueError(
            f"decay_epochs is {decay_epochs}; allowed: one number above 0, or several, ascending"
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
    name: str,
    schedule: optax.Schedule,
    *,
    weight_decay: float,
    momentum: float = 0.9,
    clip_norm: float = 0.0,
    layer_decay: float = 1.0,
    group: Callable[[str], int] | None = None,
    groups: int = 1,
) -> optax.GradientTransformation:
    """The optimizers of the published systems, with their weight decay.

    `adam` (MixMatch): Adam, then kernels ← kernels · (1 - weight_decay · lr).
    TensorFlow adds Adam's epsilon, 1e-8, before the bias correction of √v, optax after it: in
    TensorFlow, weights whose gradients are under 1e-6 move more slowly in the first steps.

    `sgd` (FixMatch): Nesterov momentum on the loss plus weight_decay · ½ Σ kernels².

    `keras_sgd` (FixMatch on ImageNet): the same with Keras' l2 of kernels and of the dense layers'
    biases, weight_decay · Σ w², without the half.

    `adamw` (Loshchilov & Hutter, 2019; USB): Adam, and kernels · weight_decay · lr is subtracted;
    biases, scales, positions and tokens do not decay.

    Args:
      clip_norm: norm to which the gradient of all weights is clipped; 0: no clipping.
      layer_decay: factor of the learning rate from each of the network's groups to the previous
        one; the last group has the schedule's rate.
      group: the name of a module or parameter -> its group, from 0, of `groups`. The heads of
        methods are in the last group.

    Raises:
      ValueError: the name is unknown.
    """
    parts = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    if name == "adam":
        parts += [optax.adam(schedule), _shrink_kernels(schedule, weight_decay)]
    elif name == "adamw":
        parts += [optax.adamw(schedule, weight_decay=weight_decay, mask=kernels)]
    elif name in ("sgd", "keras_sgd"):
        l2 = (weight_decay, kernels) if name == "sgd" else (2 * weight_decay, regularized_by_keras)
        parts += [
            optax.add_decayed_weights(l2[0], mask=l2[1]),
            optax.sgd(schedule, momentum=momentum, nesterov=True),
        ]
    else:
        raise ValueError(
            f"optimizer.name {name!r} does not exist; there are: adam, adamw, keras_sgd, sgd"
        )
    if layer_decay != 1:
        assert group is not None
        parts.append(_scale_groups(layer_decay, group, groups - 1))
    return optax.chain(*parts)


def _scale_groups(
    decay: float, group: Callable[[str], int], last: int
) -> optax.GradientTransformation:
    """Multiplies updates by decay^(last - group)."""

    def rate(name: str) -> float:
        return decay ** (last - (last if name == "heads" else group(name)))

    def update(updates, params):
        del params
        return {name: optax.tree.scale(rate(name), part) for name, part in updates.items()}

    return optax.stateless(update)


def kernels(params: PyTree) -> PyTree:
    """A tree with True for weights of convolutions and dense layers, and False for others."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def regularized_by_keras(params: PyTree) -> PyTree:
    """A tree with True for kernels and for biases of dense layers, whose kernel is a matrix."""

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
    """decay · average + (1 - decay) · value for each leaf; no debiasing."""
    return optax.incremental_update(value, average, 1 - decay)
