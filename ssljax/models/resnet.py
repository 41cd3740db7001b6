"""The residual networks of ImageNet recipes (He et al., 2016), version 1.5.

`resnet50` follows `resnet50_model.py` of FixMatch's ImageNet code: the stride is in the 3×3
convolution, which pads only at the bottom and right for even sizes, as TensorFlow does; no
convolution has a bias; every BatchNorm starts with scale 1. The other networks differ in their
blocks, which are those of the paper.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models import layers

_he_normal = nn.initializers.he_normal()  # the same as Keras': a truncated normal, by fan-in


class ResNet(nn.Module):
    """images `[N, H, W, C]` in [-1, 1] -> logits `[N, num_classes]`, features `[N, D]`; float32.

    The features are the input of the last dense layer.
    """

    num_classes: int
    blocks: tuple[int, ...]  # number of residual blocks per resolution
    bottleneck: bool = True  # 1×1, 3×3, 1×1 to four times the channels; False: 3×3, 3×3
    batch_norm_momentum: float = 0.9  # for the running statistics
    remat: bool = False  # whether blocks are computed again for the gradient, to save memory
    dtype: DTypeLike = jnp.float32  # type of the computation; weights and statistics are float32
    axis_name: str | None = None  # devices whose statistics BatchNorm shares while training

    def __post_init__(self) -> None:
        if not self.blocks or not 1 <= min(self.blocks) <= max(self.blocks) <= 1000:
            raise ValueError(f"blocks is {tuple(self.blocks)}; allowed: numbers from 1 to 1000")
        layers.check_sizes(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        conv = layers.conv(self, train=train, use_bias=False, kernel_init=_he_normal)
        norm = partial(
            nn.BatchNorm,
            use_running_average=not train,
            momentum=self.batch_norm_momentum,
            epsilon=1e-5,
            dtype=self.dtype,
            axis_name=self.axis_name,
        )
        block = _bottleneck if self.bottleneck else _basic

        x = conv(64, (7, 7), strides=2, padding=3)(images)
        x = nn.max_pool(nn.relu(norm()(x)), (3, 3), strides=(2, 2), padding="SAME")
        for scale, repeat in enumerate(self.blocks):
            for i in range(repeat):
                stride = 2 if scale > 0 and i == 0 else 1
                sized = partial(block, filters=64 << scale, stride=stride)
                x = layers.run_block(self, sized, x, conv, norm)
        features = jnp.mean(x, axis=(1, 2))
        dense = nn.Dense(
            self.num_classes, kernel_init=nn.initializers.normal(0.01), dtype=self.dtype
        )
        return dense(features).astype(jnp.float32), features.astype(jnp.float32)


def _bottleneck(x: Any, conv: Any, norm: Any, *, filters: int, stride: int) -> Any:
    y = nn.relu(norm()(conv(filters, (1, 1))(x)))
    y = nn.relu(norm()(conv(filters, (3, 3), strides=stride)(y)))
    y = norm()(conv(4 * filters, (1, 1))(y))
    return nn.relu(y + _shortcut(x, 4 * filters, stride, conv, norm))


def _basic(x: Any, conv: Any, norm: Any, *, filters: int, stride: int) -> Any:
    y = nn.relu(norm()(conv(filters, (3, 3), strides=stride)(x)))
    y = norm()(conv(filters, (3, 3))(y))
    return nn.relu(y + _shortcut(x, filters, stride, conv, norm))


def _shortcut(x: Any, filters: int, stride: int, conv: Any, norm: Any) -> Any:
    """x, or a 1×1 convolution of it if the block changes the shape."""
    if x.shape[-1] == filters and stride == 1:
        return x
    return norm()(conv(filters, (1, 1), strides=stride)(x))


resnet18 = partial(ResNet, blocks=(2, 2, 2, 2), bottleneck=False)
resnet34 = partial(ResNet, blocks=(3, 4, 6, 3), bottleneck=False)
resnet50 = partial(ResNet, blocks=(3, 4, 6, 3))
resnet101 = partial(ResNet, blocks=(3, 4, 23, 3))
