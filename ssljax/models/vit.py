"""Vision transformers (Dosovitskiy et al., 2021) for published pretrained weights.

`variant` selects details in which timm, DINOv2, OpenAI's CLIP, MAE and USB differ:

`augreg`: the original network, of big_vision and AugReg; a class token, exact GELU.
`dinov2`, `dinov2_reg`: layer scale; `dinov2_reg` also has four registers, and no position for the
class token.
`clip`, `openclip`: CLIP's image tower: a norm before the blocks, no bias in the patches; `clip` has
QuickGELU, for OpenAI's weights, and `openclip` GELU, for most others.
`mae`: features are the mean of the patches, which has a separate norm, not the class token.
`usb`: `augreg` with the head of PyTorch, for USB's recipes.
"""

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ssljax.checks import check_choice
from ssljax.models import key_maps, layers, vit_keys


class Variant(NamedTuple):
    """The details in which published vision transformers differ."""

    mean: tuple[float, ...]  # channel means of the images that the weights are for, 0..1
    std: tuple[float, ...]  # standard deviations of the same
    registers: int = 0  # number of extra tokens between the class token and the patches
    class_position: bool = True  # whether the class token has a position
    layer_scale: float = 0.0  # initial scale of each block's additions; 0: no scales
    pre_norm: bool = False  # whether tokens are normalised before the first block
    patch_bias: bool = True
    quick_gelu: bool = False  # x · sigmoid(1.702 x)
    epsilon: float = 1e-6  # epsilon of the norms
    mean_pool: bool = False  # features are the mean of the patches, not the class token
    torch_head: bool = False  # whether a new head is initialised like `torch.nn.Linear`


_HALF = Variant((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET = Variant((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_DINOV2 = _IMAGENET._replace(layer_scale=1e-5)
_OPENCLIP = Variant(
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
    pre_norm=True,
    patch_bias=False,
    epsilon=1e-5,
)
VARIANTS: Mapping[str, Variant] = MappingProxyType(
    {
        "augreg": _HALF,
        "dinov2": _DINOV2,
        "dinov2_reg": _DINOV2._replace(registers=4, class_position=False),
        "clip": _OPENCLIP._replace(quick_gelu=True),
        "openclip": _OPENCLIP,
        "mae": _IMAGENET._replace(mean_pool=True),
        "usb": _IMAGENET._replace(torch_head=True),
    }
)
_normal = nn.initializers.normal(0.02)


class VisionTransformer(nn.Module):
    """images `[N, H, W, C]` in [-1, 1] -> logits `[N, num_classes]`, features `[N, width]`.

    Both are float32. The height and the width are multiples of `patch`. Images of one channel are
    repeated to three. The features are the input of the head: the class token after the last norm,
    or the normalised mean of the patches.
    """

    num_classes: int
    patch: int = 16  # side of a patch in pixels
    variant: str = "augreg"  # augreg, dinov2, dinov2_reg, clip, openclip, mae, usb
    width: int = 384  # channels of a token
    depth: int = 12  # number of blocks
    heads: int = 6  # attention heads; a divisor of width
    resize: int = 0  # side in pixels to which images are resized first; 0: no resizing
    drop_path: float = 0.0  # drop rate of the last block; rises linearly to it from 0
    dropout: float = 0.0  # share of features dropped before the head
    mean: tuple[float, ...] = ()  # means of the images' channels, 0..1; (): the variant's
    std: tuple[float, ...] = ()  # standard deviations of the same
    remat: bool = False  # whether blocks are computed again for the gradient, to save memory
    frozen: int = 0  # number of first groups, see `group`, that are not trained
    dtype: DTypeLike = jnp.float32  # type of the computation; parameters are float32
    axis_name: str | None = None  # unused: there is no BatchNorm

    def __post_init__(self) -> None:
        check_choice("variant", self.variant, VARIANTS)
        layers.check_sizes(self)
        layers.check_pretrained(self)
        if self.width % self.heads:
            raise ValueError(f"heads is {self.heads}; allowed: divisors of width, {self.width}")
        super().__post_init__()

    @property
    def kind(self) -> Variant:
        """The variant, with this model's mean and standard deviation if it has them."""
        chosen = VARIANTS[self.variant]
        return chosen._replace(mean=self.mean or chosen.mean, std=self.std or chosen.std)

    @property
    def groups(self) -> int:
        """The number of groups, from the patches to the head, which can have different rates."""
        return self.depth + 2

    def group(self, name: str) -> int:
        """The group, from 0, of the module or parameter `name`, as in USB."""
        if name.startswith("block_"):
            return 1 + int(name.removeprefix("block_"))
        return {"norm": self.depth, "fc_norm": self.depth + 1, "head": self.depth + 1}.get(name, 0)

    def translate(self, tensors: key_maps.Tensors) -> key_maps.Translated:
        """Renames published tensors to the names of this network."""
        return vit_keys.translate(tensors)

    def adapt(
        self, found: key_maps.Translated, image_shape: tuple[int, int, int]
    ) -> key_maps.Translated:
        """Adapts weights for images of any size to `image_shape`, (height, width, channels)."""
        height, width = (self.resize or side for side in image_shape[:2])
        grid, kind = (height // self.patch, width // self.patch), self.kind
        return vit_keys.adapt(
            found, grid, class_position=kind.class_position, mean_pool=kind.mean_pool
        )

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, keys: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """
        Args:
          keys: one random key per image, `[N]`, for drop path and dropout in training.
        """
        kind, dropped = self.kind, keys if train else None
        layers.require_keys(self, train, keys)
        images = layers.resized(images, self.resize)
        x = self._embed(layers.normalize(images, kind.mean, kind.std))
        block = nn.remat(Block) if self.remat else Block
        rates = [self.drop_path * i / max(self.depth - 1, 1) for i in range(self.depth)]
        for i, rate in enumerate(rates):
            mine = layers.fold_in(dropped, i) if rate and 1 + i >= self.frozen else None
            x = block(self.heads, kind, rate, self.dtype, name=f"block_{i}")(x, mine)
        if not kind.mean_pool:
            x = _norm(kind, self.dtype, "norm")(x)
        self.sow("intermediates", "tokens", x)
        features = x[:, 0]
        if kind.mean_pool:
            patches = jnp.mean(_tokens(x, 1 + kind.registers), axis=1)
            features = _norm(kind, self.dtype, "fc_norm")(patches)
        seen = layers.dropout(layers.fold_in(dropped, self.depth), features, self.dropout)
        logits = self._head()(seen)
        return logits.astype(jnp.float32), features.astype(jnp.float32)

    def _embed(self, images: jax.Array) -> jax.Array:
        """Images -> tokens with positions, `[N, class token + registers + patches, width]`."""
        count, height, width, _ = images.shape
        if height % self.patch or width % self.patch:
            raise ValueError(
                f"vit was given images of {height}×{width}; allowed: multiples of its patch, "
                f"{self.patch}"
            )
        kind, size = self.kind, (self.patch, self.patch)
        conv = nn.Conv(
            self.width, size, size, "VALID", use_bias=kind.patch_bias, dtype=self.dtype,
            name="patch_embed",
        )  # fmt: skip
        patches = conv(images).reshape(count, -1, self.width)

        def tokens(name: str, length: int) -> jax.Array:
            made = self.param(name, _normal, (1, length, self.width)).astype(self.dtype)
            return jnp.broadcast_to(made, (count, length, self.width))

        first = [tokens("cls_token", 1)]
        positions = (kind.class_position + patches.shape[1], self.width)
        position = self.param("pos_embed", _normal, (1, *positions)).astype(self.dtype)
        if kind.class_position:
            x = jnp.concatenate([*first, patches], axis=1) + position
            first, patches = [_tokens(x, 0, 1)], _tokens(x, 1)
        else:
            patches += position
        if kind.registers:
            first.append(tokens("reg_token", kind.registers))
        x = jnp.concatenate([*first, patches], axis=1)
        return _norm(kind, self.dtype, "norm_pre")(x) if kind.pre_norm else x

    def _head(self) -> nn.Dense:
        kernel, bias = _normal, nn.initializers.zeros
        if self.kind.torch_head:
            kernel = bias = _uniform(1 / math.sqrt(self.width))
        return nn.Dense(
            self.num_classes, kernel_init=kernel, bias_init=bias, dtype=self.dtype, name="head"
        )


def _tokens(x: jax.Array, start: int, stop: int | None = None) -> jax.Array:
    """`x[:, start:stop]`, as an operation that all export formats have, for any batch size."""
    return jax.lax.slice_in_dim(x, start, stop, axis=1)


class Block(nn.Module):
    """Attention and a perceptron, each added to its input: tokens `[N, T, D]` -> `[N, T, D]`."""

    heads: int
    kind: Variant
    drop_path: float
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array, keys: jax.Array | None) -> jax.Array:
        width, kind = x.shape[-1], self.kind
        dense = partial(nn.Dense, kernel_init=_normal, dtype=self.dtype)

        def add(x: jax.Array, y: jax.Array, number: int) -> jax.Array:
            if kind.layer_scale:
                start = nn.initializers.constant(kind.layer_scale)
                y = y * self.param(f"ls{number}", start, (width,)).astype(self.dtype)[None, None]
            return x + layers.drop_path(layers.fold_in(keys, number), y, self.drop_path)

        y = dense(3 * width, name="qkv")(_norm(kind, self.dtype, "norm1")(x))
        x = add(x, dense(width, name="proj")(_attention(y, self.heads)), 1)
        y = dense(4 * width, name="fc1")(_norm(kind, self.dtype, "norm2")(x))
        y = y * jax.nn.sigmoid(1.702 * y) if kind.quick_gelu else layers.gelu(y)
        return add(x, dense(width, name="fc2")(y), 2)


def _attention(qkv: jax.Array, heads: int) -> jax.Array:
    """Queries, keys and values `[N, T, 3D]` -> the output of attention, `[N, T, D]`."""
    count, length, triple = qkv.shape
    size = triple // 3 // heads
    parts = qkv.reshape(count, length, 3, heads, size).transpose(2, 0, 3, 1, 4)
    query, key, value = parts[0], parts[1], parts[2]
    scores = (query * size**-0.5) @ key.swapaxes(-1, -2)
    weights = jax.nn.softmax(scores.astype(jnp.float32)).astype(qkv.dtype)
    return (weights @ value).transpose(0, 2, 1, 3).reshape(count, length, -1)


def _norm(kind: Variant, dtype: DTypeLike, name: str) -> nn.LayerNorm:
    return nn.LayerNorm(kind.epsilon, dtype=dtype, use_fast_variance=False, name=name)


def _uniform(bound: float) -> nn.initializers.Initializer:
    """An initializer with uniform numbers from -bound to bound."""

    def draw(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


vit_tiny = partial(VisionTransformer, width=192, heads=3)
vit_small = partial(VisionTransformer, width=384, heads=6)
vit_base = partial(VisionTransformer, width=768, heads=12)
vit_large = partial(VisionTransformer, width=1024, depth=24, heads=16)
