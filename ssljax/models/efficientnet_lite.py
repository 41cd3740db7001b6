"""EfficientNet-Lite 0 to 4 (Liu, 2020): EfficientNets (Tan & Le, 2019) without squeeze-and-excite.

They follow `lite/efficientnet_lite_builder.py` of tensorflow/tpu, whose weights are in timm as
`tf_efficientnet_lite*`: ReLU6, TensorFlow's padding, and a stem and a head of constant width.
They are designed for CPUs and small accelerators.
"""

import math
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.checks import check_range
from ssljax.models import convolution, key_maps, layers
from ssljax.models.key_maps import hwio, torch_layer, torch_norm, transposed


class Stage(NamedTuple):
    """The blocks of one size in the smallest network."""

    repeat: int  # number of blocks
    kernel: int  # side of the depthwise convolutions
    stride: int  # stride of the first block
    expand: int  # ratio of a block's inner channels to its input channels
    filters: int


_STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
_MEAN = _STD = (0.5, 0.5, 0.5)


class EfficientNetLite(nn.Module):
    """images `[N, H, W, C]` in [-1, 1] -> logits `[N, num_classes]`, features `[N, 1280]`; float32.

    Images of one channel are repeated to three. The features are the input of the head.
    """

    num_classes: int
    widen: float = 1.0  # factor of the channels, compared to the smallest network
    deepen: float = 1.0  # factor of the number of blocks
    resize: int = 0  # side in pixels to which images are resized first; 0: no resizing
    drop_path: float = 0.0  # drop rate of the last block; rises linearly to it (published: 0.2)
    dropout: float = 0.0  # share of features dropped before the head (published: 0.2, 0.3)
    batch_norm_momentum: float = 0.99  # for the running statistics
    mean: tuple[float, ...] = ()  # means of the images' channels, 0..1; (): 0.5, as published
    std: tuple[float, ...] = ()  # standard deviations of the same
    remat: bool = False  # whether blocks are computed again for the gradient, to save memory
    frozen: int = 0  # number of first groups, see `group`, that are not trained
    dtype: DTypeLike = jnp.float32  # type of the computation; weights and statistics are float32
    axis_name: str | None = None  # devices whose statistics BatchNorm shares while training

    def __post_init__(self) -> None:
        check_range("widen", self.widen, 0, 100, open_low=True)
        check_range("deepen", self.deepen, 0, 100, open_low=True)
        layers.check_sizes(self)
        layers.check_pretrained(self)
        super().__post_init__()

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The published stages, with the channels and blocks of this network."""
        last = len(_STAGES) - 1
        return tuple(
            stage._replace(
                repeat=stage.repeat if i in (0, last) else math.ceil(stage.repeat * self.deepen),
                filters=_widened(stage.filters, self.widen),
            )
            for i, stage in enumerate(_STAGES)
        )

    @property
    def groups(self) -> int:
        """The number of groups, from the stem to the head, which can have different rates."""
        return 2 + sum(stage.repeat for stage in self.stages)

    def group(self, name: str) -> int:
        """The group, from 0, of the module `name`; the last convolution is in the last block's."""
        if name.startswith("block_"):
            stage, block = map(int, name.removeprefix("block_").split("_"))
            return 1 + sum(x.repeat for x in self.stages[:stage]) + block
        return {"conv_head": self.groups - 2, "bn2": self.groups - 2, "head": self.groups - 1}.get(
            name, 0
        )

    def translate(self, tensors: key_maps.Tensors) -> key_maps.Translated:
        """Renames timm's tensors to the names of this network."""
        return key_maps.translate(tensors, _TIMM)

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """
        Args:
          keys: one random key per image, `[N]`, for drop path and dropout in training.
        """
        layers.require_keys(self, train, keys)
        dropped, blocks = keys if train else None, self.groups - 2
        block_type = nn.remat(Block, static_argnums=(3,)) if self.remat else Block
        conv = layers.conv(self, train=train, use_bias=False, kernel_init=layers.he_normal)
        norm = layers.batch_norm(self, train=train)
        images = layers.resized(images, self.resize)
        x = layers.normalize(images, self.mean or _MEAN, self.std or _STD)
        x = conv(32, (3, 3), strides=2, name="conv_stem")(x)
        x = _relu6(norm(use_running_average=not train or self.frozen > 0, name="bn1")(x))
        number = 0
        for s, stage in enumerate(self.stages):
            for i in range(stage.repeat):
                trained = train and 1 + number >= self.frozen
                block = block_type(
                    stage, stage.stride if i == 0 else 1, self.drop_path * number / blocks,
                    conv, norm, name=f"block_{s}_{i}",
                )  # fmt: skip
                x = block(x, layers.fold_in(dropped, number) if trained else None, trained)
                number += 1
        trained = train and self.groups - 2 >= self.frozen
        x = conv(1280, (1, 1), name="conv_head")(x)
        x = _relu6(norm(use_running_average=not trained, name="bn2")(x))
        features = jnp.mean(x, axis=(1, 2))
        seen = layers.dropout(layers.fold_in(dropped, number), features, self.dropout)
        head = nn.Dense(
            self.num_classes, kernel_init=nn.initializers.normal(0.01), dtype=self.dtype,
            name="head",
        )  # fmt: skip
        return head(seen).astype(jnp.float32), features.astype(jnp.float32)


class Block(nn.Module):
    """An inverted residual block: an expansion, a depthwise convolution and a projection.

    The input is added if its shape is that of the output.
    """

    stage: Stage
    stride: int
    drop_path: float
    conv: Any  # makes convolutions, and `norm` BatchNorms, with the network's options
    norm: Any

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None, train: bool) -> jax.Array:
        conv, norm = self.conv, partial(self.norm, use_running_average=not train)
        stage, inputs = self.stage, x.shape[-1]
        size, inside = (stage.kernel, stage.kernel), stage.expand * inputs
        y = x
        if stage.expand > 1:
            y = _relu6(norm(name="expand_bn")(conv(inside, (1, 1), name="expand")(y)))
        depthwise = conv(
            inside, size, strides=self.stride, feature_group_count=inside, name="depthwise",
            conv_general_dilated=convolution.depthwise,
        )  # fmt: skip
        y = _relu6(norm(name="depthwise_bn")(depthwise(y)))
        y = norm(name="project_bn")(conv(stage.filters, (1, 1), name="project")(y))
        if self.stride > 1 or inputs != stage.filters:
            return y
        return x + layers.drop_path(keys, y, self.drop_path)


def _relu6(x: jax.Array) -> jax.Array:
    return jnp.clip(x, 0, 6)


def _widened(filters: int, factor: float) -> int:
    """A multiple of 8 that is at least 90 % of `filters * factor`."""
    wanted = filters * factor
    near = max(8, int(wanted + 4) // 8 * 8)
    return near if near >= 0.9 * wanted else near + 8


# These are timm's names. The blocks of its first stage have no expansion.
_FIRST, _OTHER = r"blocks\.(0)\.(\d+)", r"blocks\.([1-9])\.(\d+)"
_OURS = r"block_\1_\2"
_TIMM = (
    *torch_layer("conv_stem", "conv_stem", hwio),
    *torch_norm("bn1", "bn1"),
    *torch_layer(rf"{_FIRST}\.conv_dw", f"{_OURS}/depthwise", hwio),
    *torch_norm(rf"{_FIRST}\.bn1", f"{_OURS}/depthwise_bn"),
    *torch_layer(rf"{_FIRST}\.conv_pw", f"{_OURS}/project", hwio),
    *torch_norm(rf"{_FIRST}\.bn2", f"{_OURS}/project_bn"),
    *torch_layer(rf"{_OTHER}\.conv_pw", f"{_OURS}/expand", hwio),
    *torch_norm(rf"{_OTHER}\.bn1", f"{_OURS}/expand_bn"),
    *torch_layer(rf"{_OTHER}\.conv_dw", f"{_OURS}/depthwise", hwio),
    *torch_norm(rf"{_OTHER}\.bn2", f"{_OURS}/depthwise_bn"),
    *torch_layer(rf"{_OTHER}\.conv_pwl", f"{_OURS}/project", hwio),
    *torch_norm(rf"{_OTHER}\.bn3", f"{_OURS}/project_bn"),
    *torch_layer("conv_head", "conv_head", hwio),
    *torch_norm("bn2", "bn2"),
    *torch_layer("classifier", "head", transposed),
)


efficientnet_lite0 = EfficientNetLite
efficientnet_lite1 = partial(EfficientNetLite, deepen=1.1)
efficientnet_lite2 = partial(EfficientNetLite, widen=1.1, deepen=1.2)
efficientnet_lite3 = partial(EfficientNetLite, widen=1.2, deepen=1.4)
efficientnet_lite4 = partial(EfficientNetLite, widen=1.4, deepen=1.8)
