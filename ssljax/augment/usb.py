"""The RandAugment of USB and TorchSSL: magnitudes drawn from ranges, and a random Cutout.

The source is `semilearn/datasets/augmentation/randaugment.py` of USB. Three operations are drawn
with replacement and always applied, each with a separate magnitude from the operation's range.
The published argument m is not used. A rectangle is painted last.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.augment.layer import apply_layer

LAYERS = 3
COLOR = (125, 123, 114)  # colour of the rectangle
_GREY = 123  # level of the rectangle in images with one channel
_LARGEST = 0.5  # side of the rectangle, as a share of the width

_SHOWN = np.linspace(0, 0.999, 9, dtype=np.float32)  # magnitudes of `magnitude_grid`


class Op(NamedTuple):
    """An operation, and the range of its magnitude in Pillow's units."""

    name: str  # a name in `layer.py`; "identity" is in no kernel
    low: float = 1
    high: float = 1
    whole: Callable[[jax.Array], jax.Array] = lambda magnitude: magnitude

    def parameter(self, share: Any) -> Any:
        """The magnitude at a fraction of the range, 0..1, in the units of `low` and `high`."""
        return self.whole(self.low + (self.high - self.low) * share)


SHAPES = (
    Op("rotate", -30, 30),
    Op("shear_x", -0.3, 0.3),
    Op("shear_y", -0.3, 0.3),
    Op("translate_x", -0.3, 0.3),  # a share of the width; of the height in translate_y
    Op("translate_y", -0.3, 0.3),
)
PLAIN = (Op("brightness", 0.05, 0.95), Op("equalize"), Op("identity"), Op("sharpness", 0.05, 0.95))
COLORS = (
    Op("autocontrast"),
    Op("color", 0.05, 0.95),
    Op("contrast", 0.05, 0.95),
    Op("posterize", 4, 8, jnp.floor),
    Op("solarize", 0, 256, jnp.ceil),  # Pillow compares levels with the threshold itself
)
SPACES = {"cifar": (*PLAIN, *COLORS, *SHAPES), "no_color": (*PLAIN, *SHAPES)}


class Draws(NamedTuple):
    """The random choices for N images."""

    op: jax.Array  # [N, layers] int32, index into the operations
    magnitude: jax.Array  # [N, layers] in [0, 1), position in an operation's range
    corner: jax.Array  # [N, 2] in [0, 1), column and row of the rectangle's centre
    size: jax.Array  # [N] in [0, 1), size of the rectangle


def randaugment(keys: jax.Array, images: jax.Array, *, ops: tuple[Op, ...]) -> jax.Array:
    """Applies random operations and the Cutout to `images [N, H, W, 1 or 3]` uint8."""
    return apply(images, draw(keys, len(ops), LAYERS), ops)


def draw(keys: jax.Array, ops: int, layers: int) -> Draws:
    """Draws the choices for N images from `keys [N]`; ops is the number of operations."""
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (2 * layers + 3,)))(keys)
    op = jnp.floor(uniform[:, :layers] * ops).astype(jnp.int32)
    return Draws(op, uniform[:, layers : 2 * layers], uniform[:, -3:-1], uniform[:, -1])


def apply(images: jax.Array, draws: Draws, ops: tuple[Op, ...]) -> jax.Array:
    """Applies the choices to `images [N, H, W, 1 or 3]` uint8."""
    return cutout(_apply_layers(images, draws, ops), draws.corner, draws.size)


def _apply_layers(images, draws, ops):
    names = [op.name for op in ops]

    def layer(images, drawn):
        op, magnitude = drawn
        parameter = jnp.zeros(len(images))
        for index, entry in enumerate(ops):
            value = entry.parameter(magnitude)
            value *= {"translate_x": images.shape[2], "translate_y": images.shape[1]}.get(
                entry.name, 1
            )
            parameter = jnp.where(op == index, value, parameter)
        return apply_layer(images, op, parameter, names=names), None

    return jax.lax.scan(layer, images, (draws.op.T, draws.magnitude.T))[0]


def cutout(images: jax.Array, corner: jax.Array, size: jax.Array) -> jax.Array:
    """Paints a square of up to half the width, plus one column and row, as Pillow draws it.

    Args:
      images: uint8 `[N, H, W, 1 or 3]`.
      corner: `[N, 2]` in [0, 1), column and row of the square's centre. The published
        `np.random.uniform(w)` draws between w and 1, and so 0 is w here, and 1 would be 1.
      size: `[N]` in [0, 1), the side of the square as a share of half the width.
    """
    height, width, channels = images.shape[1:]
    side = _LARGEST * size * width

    def covered(position, length):
        centre = length - (length - 1) * position
        first = jnp.floor(jnp.maximum(centre - side / 2, 0))
        last = jnp.floor(jnp.minimum(first + side, length))
        pixel = jnp.arange(length)[None, :]
        return (pixel >= first[:, None]) & (pixel <= last[:, None])

    columns, rows = covered(corner[:, 0], width), covered(corner[:, 1], height)
    color = jnp.array(COLOR if channels == 3 else (_GREY,), jnp.uint8)
    inside = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(inside, color[None, None, None], images)


def magnitude_grid(images: jax.Array, ops: tuple[Op, ...]) -> dict[str, jax.Array]:
    """Each operation's name -> the image `[1, H, W, C]` at nine magnitudes, `[9, H, W, C]`."""
    levels = jnp.asarray(_SHOWN)
    op = jnp.repeat(jnp.arange(len(ops)), len(levels))[:, None]
    nowhere = jnp.zeros((len(op), 2))
    draws = Draws(op, jnp.tile(levels, len(ops))[:, None], nowhere, nowhere[:, 0])
    rows = jnp.split(_apply_layers(jnp.repeat(images, len(op), axis=0), draws, ops), len(ops))
    return {entry.name: row for entry, row in zip(ops, rows, strict=True)}


def magnitudes(ops: tuple[Op, ...]) -> dict[str, list[float]]:
    """The parameter of each image of `magnitude_grid`, in the units of `Op`."""
    return {op.name: [float(op.parameter(level)) for level in _SHOWN] for op in ops}
