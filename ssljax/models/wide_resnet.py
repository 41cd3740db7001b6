"""The wide residual network of the MixMatch and FixMatch papers (Zagoruyko & Komodakis, 2016).

It follows `ResNet.classifier` in `libml/models.py` of google-research/mixmatch. The last digits
differ: TensorFlow's fused BatchNorm updates its running variance with the unbiased estimate
(N / (N - 1)), and Flax with the biased one.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models import layers

_leaky_relu = partial(nn.leaky_relu, negative_slope=0.1)


class WideResNet(nn.Module):
    """images `[N, H, W, C]` in [-1, 1] -> logits `[N, num_classes]`, features `[N, D]`; float32.

    The features are the input of the last dense layer.

    `filters=32, repeat=4` on 32×32 images is WRN-28-2.
    """

    num_classes: int
    filters: int = 32  # channels of the first scale; doubled at each further scale
    repeat: int = 4  # residual blocks per scale
    scales: int | None = None  # number of resolutions; None: ceil(log2(width)) - 2
    batch_norm_momentum: float = 0.999  # for the running statistics; lower it for short runs
    remat: bool = False  # whether blocks are computed again for the gradient, to save memory
    dtype: DTypeLike = jnp.float32  # type of the computation; weights and statistics are float32
    axis_name: str | None = None  # devices whose statistics BatchNorm shares while training

    def __post_init__(self) -> None:
        layers.check_sizes(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        norm = layers.batch_norm(self, train=train)
        conv = layers.conv(self, train=train, kernel_init=layers.he_normal)
        scales = layers.default_scales(images) if self.scales is None else self.scales

        x = conv(16, (3, 3))(images)
        for scale in range(scales):
            for block in range(self.repeat):
                first = scale == block == 0
                stride = 2 if scale > 0 and block == 0 else 1
                sized = partial(
                    _block, filters=self.filters << scale, stride=stride, activate_shortcut=first
                )
                x = layers.run_block(self, sized, x, conv, norm)
        x = _leaky_relu(norm()(x))
        features = jnp.mean(x, axis=(1, 2))
        dense = nn.Dense(self.num_classes, kernel_init=layers.glorot_normal, dtype=self.dtype)
        return dense(features).astype(jnp.float32), features.astype(jnp.float32)


def _block(x, conv, norm, *, filters, stride, activate_shortcut):
    """A pre-activation residual block; called inside the module's compact method."""
    y = _leaky_relu(norm()(x))
    if activate_shortcut:
        x = y
    y = conv(filters, (3, 3), strides=stride)(y)
    y = conv(filters, (3, 3))(_leaky_relu(norm()(y)))
    if x.shape[-1] != filters:
        x = conv(filters, (1, 1), strides=stride)(x)
    return x + y


wide_resnet = WideResNet  # the name in configs
