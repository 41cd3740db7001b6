"""The 13-layer network of the Mean Teacher paper (Tarvainen & Valpola, 2017), simplified.

It follows `CNN13.classifier` in `libml/models.py` of google-research/fixmatch: without the dropout
and the noise of the paper, and with BatchNorm after the activation.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models import layers


class CNN13(nn.Module):
    """images `[N, H, W, C]` in [-1, 1] -> logits `[N, num_classes]`, features `[N, filters]`.

    Both are float32; the features are the input of the last dense layer. The published code only
    takes images of 32×32 pixels; this network takes any from 12×12.
    """

    num_classes: int
    filters: int = 128  # channels of the first three convolutions and of the last
    batch_norm_momentum: float = 0.999  # for the running statistics; lower it for short runs
    dtype: DTypeLike = jnp.float32  # type of the computation; weights and statistics are float32
    axis_name: str | None = None  # devices whose statistics BatchNorm shares while training

    def __post_init__(self) -> None:
        layers.check_sizes(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        _, height, width, _ = images.shape
        if min(height, width) < 12:
            raise ValueError(f"cnn13 was given images of {height}×{width}; allowed: from 12×12")
        norm = layers.batch_norm(self, train=train)
        conv = layers.conv(self, train=train, kernel_init=layers.glorot_uniform)

        def layer(x, filters, side, padding="SAME"):
            x = conv(filters, (side, side), padding=padding)(x)
            return norm()(nn.leaky_relu(x, negative_slope=0.2))

        x = images
        for filters in (self.filters, 2 * self.filters):
            for _ in range(3):
                x = layer(x, filters, 3)
            x = nn.max_pool(x, (2, 2), strides=(2, 2))
        x = layer(x, 4 * self.filters, 3, padding="VALID")
        x = layer(x, 2 * self.filters, 1)
        x = layer(x, self.filters, 1)
        features = jnp.mean(x, axis=(1, 2))
        dense = nn.Dense(self.num_classes, kernel_init=layers.glorot_uniform, dtype=self.dtype)
        return dense(features).astype(jnp.float32), features.astype(jnp.float32)


cnn13 = CNN13  # the name in configs
