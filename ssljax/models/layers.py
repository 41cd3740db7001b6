"""Parts that the models share.

Initial weights and BatchNorm are TensorFlow's, not Flax's. Pretrained networks resize and normalise
their images here, and drop paths and features.
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


# What a field of a model may count up to: what is beyond would be traced for hours.
_MOST = {
    "filters": 1 << 30, "repeat": 1000, "scales": 30,
    "patch": 1 << 12, "width": 1 << 16, "depth": 1000, "heads": 1000,
}  # fmt: skip


def check_sizes(model: Any) -> None:
    """Raises ValueError for a field of a model that is out of range; None in one is passed over."""
    for name, most in _MOST.items():
        if (value := getattr(model, name, None)) is not None:
            check_range(name, value, 1, most)
    if hasattr(model, "batch_norm_momentum"):
        check_probability(batch_norm_momentum=model.batch_norm_momentum)


def conv(model: Any, *, train: bool, **options: Any) -> partial[nn.Conv]:
    """Convolutions of a model that has `dtype`, with Flax's options."""
    fast = convolution.conv_general_dilated if train else None
    return partial(nn.Conv, dtype=model.dtype, conv_general_dilated=fast, **options)


def batch_norm(model: Any, *, train: bool) -> partial[nn.BatchNorm]:
    """BatchNorm as all published models have it, for a model with these fields:

    Args:
      model: has `batch_norm_momentum` (published: 0.999), `dtype` and `axis_name`.
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

    Where the model has `remat`, only x is kept, and the gradient computes the rest once more.
    BatchNorm moves its statistics once, and computes those of the batch again.

    Args:
      layers: partial Flax modules, which the block calls; their names are the same either way.
    """
    if not model.remat:
        return block(x, *layers)

    def again(model: Any, x: jax.Array) -> jax.Array:
        return block(x, *(partial(layer, parent=model) for layer in layers))

    return nn.remat(again)(model, x)


def default_scales(images: jax.Array) -> int:
    """The resolutions that the published scripts choose for `[N, H, W, C]`: ceil(log2(W)) - 2."""
    return (images.shape[2] - 1).bit_length() - 2


def check_pretrained(model: Any) -> None:
    """Raises ValueError for a field of networks with published weights that is out of range; `mean`
    and `std` are both empty, or of three channels."""
    check_range("resize", model.resize, 0, 1 << 14)
    for name in ("drop_path", "dropout"):
        check_range(name, getattr(model, name), 0, 0.99)  # at 1 all is dropped: 0 / 0
    lengths = len(model.mean), len(model.std)
    if lengths not in ((0, 0), (3, 3)) or any(std <= 0 for std in model.std):
        raise ValueError(
            f"mean is {tuple(model.mean)} and std {tuple(model.std)}; allowed: three numbers each, "
            "those of std above 0, or () for both"
        )


def resized(images: jax.Array, side: int) -> jax.Array:
    """Images `[N, H, W, C]` -> `[N, side, side, C]`, bicubic and antialiased; 0: as they are."""
    if not side or images.shape[1:3] == (side, side):
        return images
    shape = (images.shape[0], side, side, images.shape[3])
    return jax.image.resize(images, shape, "bicubic", antialias=True)


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Images `[N, H, W, 1 or 3]` in [-1, 1] -> `[N, H, W, 3]` of about mean 0 and deviation 1.

    Args:
      mean, std: of the three channels, of images in 0..1.
    """
    center, scale = (jnp.asarray(x, jnp.float32)[None, None, None] for x in (mean, std))
    return (images - (2 * center - 1)) / (2 * scale)


def gelu(x: jax.Array) -> jax.Array:
    """x · Φ(x), exactly. TensorFlow 2.21 reads `erfc` of JAX's programs, and not `erf`."""
    return 0.5 * x * jax.lax.erfc(x * -math.sqrt(0.5))


# What is dropped in training is drawn from each image's own key: it must not depend on which
# images a device has.


def require_keys(model: Any, train: bool, keys: jax.Array | None) -> None:
    """Raises ValueError for a model that drops something in training and was given no keys."""
    if train and keys is None and (model.drop_path or model.dropout):
        raise ValueError("drop_path and dropout need keys, one per image; allowed without: 0")


def fold_in(keys: jax.Array | None, number: int) -> jax.Array | None:
    """Keys `[N]` for one place in the network, which has this number; None stays None."""
    if keys is None:
        return None
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def drop_path(keys: jax.Array | None, x: jax.Array, rate: float) -> jax.Array:
    """Stochastic depth (Huang et al., 2016): of some images 0, of the others x / (1 - rate).

    Args:
      keys: one random key per image; None: nothing is dropped.
      x: what a block adds, `[N, …]`.
    """
    if keys is None or not rate:
        return x
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate))(keys)
    return x * (kept.reshape(-1, *[1] * (x.ndim - 1)) / (1 - rate)).astype(x.dtype)


def dropout(keys: jax.Array | None, x: jax.Array, rate: float) -> jax.Array:
    """Dropout (Srivastava et al., 2014) of single features, from one key per image, or None."""
    if keys is None or not rate:
        return x
    kept = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return x * (kept / (1 - rate)).astype(x.dtype)
