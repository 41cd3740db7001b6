"""Layers and functions that the models share.

Initial weights and BatchNorm follow TensorFlow, not Flax. Pretrained networks use this file to
resize and normalise images, and for drop path and dropout.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax.checks import check_probability, check_range
from ssljax.models import convolution

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # N(0, √(2 / (k·k·out)))
glorot_normal = nn.initializers.glorot_normal()
glorot_uniform = nn.initializers.glorot_uniform()  # TensorFlow's default


# The largest values of a model's fields: tracing larger networks would take hours.
_MOST = {
    "filters": 1 << 30, "repeat": 1000, "scales": 30,
    "patch": 1 << 12, "width": 1 << 16, "depth": 1000, "heads": 1000,
}  # fmt: skip


def check_sizes(model: Any) -> None:
    """Raises ValueError if a field of a model is out of range; fields that are None are skipped."""
    for name, most in _MOST.items():
        if (value := getattr(model, name, None)) is not None:
            check_range(name, value, 1, most)
    if hasattr(model, "batch_norm_momentum"):
        check_probability(batch_norm_momentum=model.batch_norm_momentum)


def conv(model: Any, *, train: bool, **options: Any) -> partial[nn.Conv]:
    """The convolutions of a model with the field `dtype`; takes Flax's options."""
    fast = convolution.conv_general_dilated if train else None
    return partial(nn.Conv, dtype=model.dtype, conv_general_dilated=fast, **options)


def batch_norm(model: Any, *, train: bool) -> partial[nn.BatchNorm]:
    """BatchNorm with the options of all published models.

    Args:
      model: has the fields `batch_norm_momentum` (published: 0.999), `dtype` and `axis_name`.
      train: whether to normalise by the batch and move the running statistics.
    """
    return partial(
        nn.BatchNorm,
        use_running_average=not train,
        momentum=model.batch_norm_momentum,
        epsilon=1e-3,
        dtype=model.dtype,
        axis_name=model.axis_name,
    )


def run_block(model: Any, block: Callable[..., jax.Array], x: jax.Array, *layers: Any) -> jax.Array:
    """`block(x, *layers)`, within a model's compact method.

    If the model's `remat` is True, only x is kept, and the gradient computes the rest again.
    BatchNorm then updates its running statistics once, and computes those of the batch twice.

    Args:
      layers: partial Flax modules that the block calls; `remat` does not change their names.
    """
    if not model.remat:
        return block(x, *layers)

    def again(model: Any, x: jax.Array) -> jax.Array:
        return block(x, *(partial(layer, parent=model) for layer in layers))

    return nn.remat(again)(model, x)


def default_scales(images: jax.Array) -> int:
    """The published scripts' number of resolutions for `[N, H, W, C]`: ceil(log2(W)) - 2."""
    return (images.shape[2] - 1).bit_length() - 2


def check_pretrained(model: Any) -> None:
    """Raises ValueError if a field of a network with published weights is out of range.

    `mean` and `std` must both be empty, or both have three values.
    """
    check_range("resize", model.resize, 0, 1 << 14)
    for name in ("drop_path", "dropout"):
        check_range(name, getattr(model, name), 0, 0.99)  # at 1 everything is dropped: 0 / 0
    lengths = len(model.mean), len(model.std)
    if lengths not in ((0, 0), (3, 3)) or any(std <= 0 for std in model.std):
        raise ValueError(
            f"mean is {tuple(model.mean)} and std {tuple(model.std)}; allowed: three numbers each, "
            "those of std above 0, or () for both"
        )


def resized(images: jax.Array, side: int) -> jax.Array:
    """Resizes images `[N, H, W, C]` to `[N, side, side, C]`, bicubic and antialiased; 0: not."""
    if not side or images.shape[1:3] == (side, side):
        return images
    shape = (images.shape[0], side, side, images.shape[3])
    return jax.image.resize(images, shape, "bicubic", antialias=True)


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Images `[N, H, W, 1 or 3]` in [-1, 1] -> `[N, H, W, 3]`, about mean 0 and deviation 1.

    Args:
      mean, std: statistics of the three channels, for images in 0..1.
    """
    center, scale = (jnp.asarray(x, jnp.float32)[None, None, None] for x in (mean, std))
    return (images - (2 * center - 1)) / (2 * scale)


def gelu(x: jax.Array) -> jax.Array:
    """The exact GELU x · Φ(x). TensorFlow 2.21 can read JAX's `erfc`, but not its `erf`."""
    return 0.5 * x * jax.lax.erfc(x * -math.sqrt(0.5))


# Drop path and dropout have a key per image, so that their choices do not depend on which images a
# device has.


def require_keys(model: Any, train: bool, keys: jax.Array | None) -> None:
    """Raises ValueError if a model has drop path or dropout in training, and there are no keys."""
    if train and keys is None and (model.drop_path or model.dropout):
        raise ValueError("drop_path and dropout need keys, one per image; allowed without: 0")


def fold_in(keys: jax.Array | None, number: int) -> jax.Array | None:
    """Keys `[N]` for the place in the network that has this number; None stays None."""
    if keys is None:
        return None
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def drop_path(keys: jax.Array | None, x: jax.Array, rate: float) -> jax.Array:
    """Stochastic depth (Huang et al., 2016): 0 for some images, and x / (1 - rate) for the others.

    Args:
      keys: one random key per image; None: nothing is dropped.
      x: `[N, …]`, the output of a block before the addition.
    """
    if keys is None or not rate:
        return x
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate))(keys)
    return x * (kept.reshape(-1, *[1] * (x.ndim - 1)) / (1 - rate)).astype(x.dtype)


def dropout(keys: jax.Array | None, x: jax.Array, rate: float) -> jax.Array:
    """Dropout (Srivastava et al., 2014) with one key per image; nothing if keys are None."""
    if keys is None or not rate:
        return x
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return x * (kept / (1 - rate)).astype(x.dtype)
