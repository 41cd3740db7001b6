"""A plain convolutional network without BatchNorm.

It follows `ConvNet.classifier` in `libml/models.py` of google-research/mixmatch.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models import layers


class ConvNet(nn.Module):
    """images `[N, H, W, C]` in [-1, 1] -> logits `[N, num_classes]`, features `[N, D]`; float32.

    The logits are the mean of the last convolution over all positions, and the features the mean of
    its input; D = filters · 2^scales.
    """

    num_classes: int
    filters: int = 32  # channels of the first convolution; doubled at each scale
    scales: int | None = None  # how often the image is halved; None: ceil(log2(width)) - 2
    dtype: DTypeLike = jnp.float32  # type of the computation; parameters are float32
    axis_name: str | None = None  # unused: there is no BatchNorm

    def __post_init__(self) -> None:
        layers.check_sizes(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        conv = layers.conv(self, train=train, kernel_size=(3, 3), kernel_init=layers.glorot_uniform)
        leaky_relu = partial(nn.leaky_relu, negative_slope=0.2)
        scales = layers.default_scales(images) if self.scales is None else self.scales

        x = leaky_relu(conv(self.filters)(images))
        for scale in range(scales):
            x = leaky_relu(conv(self.filters << scale)(x))
            x = leaky_relu(conv(self.filters << (scale + 1))(x))
            x = nn.avg_pool(x, (2, 2), strides=(2, 2))
        logits = jnp.mean(conv(self.num_classes)(x), axis=(1, 2))
        return logits.astype(jnp.float32), jnp.mean(x, axis=(1, 2)).astype(jnp.float32)


convnet = ConvNet  # the name in configs
