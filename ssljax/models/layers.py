"""What the models share: initial weights and BatchNorm, as TensorFlow has them, not Flax."""

from functools import partial
from typing import Any

import flax.linen as nn
import jax

from ssljax.checks import check_probability, check_range
from ssljax.models import convolution

he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")  # N(0, √(2 / (k·k·out)))
glorot_normal = nn.initializers.glorot_normal()
glorot_uniform = nn.initializers.glorot_uniform()  # TensorFlow's default


# What a field of a model may count up to: what is beyond would be traced for hours.
_MOST = {"filters": 1 << 30, "repeat": 1000, "scales": 30}


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


def default_scales(images: jax.Array) -> int:
    """The resolutions that the published scripts choose for `[N, H, W, C]`: ceil(log2(W)) - 2."""
    return (images.shape[2] - 1).bit_length() - 2
