"""The residual network with shake-shake regularisation (Gastaldi, 2017).

It follows `ShakeNet.classifier` and `shakeshake` in `libml` of google-research/mixmatch. There the
gradient has the weights of the forward pass: the code's `mu[::1]`, perhaps meant to be `mu[::-1]`,
equals `mu`. The paper draws new weights for the gradient; the code produced the published numbers.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.models import layers


class ShakeResNet(nn.Module):
    """images `[N, H, W, C]` in [-1, 1] -> logits `[N, num_classes]`, features `[N, D]`; float32.

    The features are the input of the last dense layer. In training each block weights its two
    branches by a uniform random number per image, from the random stream `shake`; in evaluation
    both weights are 0.5. The height and the width are multiples of 2^(scales - 1).
    """

    num_classes: int
    filters: int = 32  # channels of the first scale; doubled at each further scale
    repeat: int = 4  # residual blocks per scale
    scales: int | None = None  # number of resolutions; None: ceil(log2(width)) - 2
    batch_norm_momentum: float = 0.999  # for the running statistics; lower it for short runs
    dtype: DTypeLike = jnp.float32  # type of the computation; weights and statistics are float32
    axis_name: str | None = None  # devices whose statistics BatchNorm shares while training

    def __post_init__(self) -> None:
        layers.check_sizes(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, jax.Array]:
        norm = layers.batch_norm(self, train=train)
        conv = layers.conv(self, train=train, use_bias=False, kernel_init=layers.he_normal)
        scales = layers.default_scales(images) if self.scales is None else self.scales

        x = conv(16, (3, 3))(images)
        for scale in range(scales):
            for block in range(self.repeat):
                filters, stride = self.filters << scale, 2 if scale and block == 0 else 1
                first, second = (_branch(x, filters, stride, norm, conv) for _ in range(2))
                weight = self._weight(first) if train else 0.5
                x = _shortcut(x, filters, stride, norm, conv) + first + weight * (second - first)
        features = jnp.mean(x, axis=(1, 2))
        dense = nn.Dense(self.num_classes, kernel_init=layers.glorot_normal, dtype=self.dtype)
        return dense(features).astype(jnp.float32), features.astype(jnp.float32)

    def _weight(self, x):
        """The weight of the second branch in a block's output, one per image: `[N, 1, 1, 1]`."""
        return jax.random.uniform(self.make_rng("shake"), (len(x), 1, 1, 1), x.dtype)


def _branch(x, filters, stride, norm, conv):
    """One of the two branches of a block; called inside the module's compact method."""
    x = conv(filters, (3, 3), strides=stride)(nn.relu(x))
    x = conv(filters, (3, 3))(nn.relu(norm()(x)))
    return norm()(x)


def _shortcut(x, filters, stride, norm, conv):
    """The block's input in the shape of its output; with stride 2, from two shifted samplings."""
    if stride == 2:
        samplings = [jax.lax.slice(x, (0, i, i, 0), x.shape, (1, 2, 2, 1)) for i in (0, 1)]
        halves = [conv(filters // 2, (1, 1))(nn.relu(pixels)) for pixels in samplings]
        return norm()(jnp.concatenate(halves, axis=-1))
    if x.shape[-1] != filters:
        return norm()(conv(filters, (1, 1))(x))
    return x


shake_resnet = ShakeResNet  # the name in configs
