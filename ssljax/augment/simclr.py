"""CoMatch's version of SimCLR's view: resized crop, random flip, colour jitter and random grey.

The source is `datasets/cifar.py` of salesforce/CoMatch, which calls torchvision's functions on
Pillow's images.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from ssljax.augment import ops
from ssljax.augment.layer import apply_layer
from ssljax.augment.resample import crop

AREA = (0.2, 1.0)  # area of the crop, as a share of the image's area
RATIO = (3 / 4, 4 / 3)  # width over height
TRIES = 10
STRENGTHS = {"brightness": 0.4, "contrast": 0.4, "color": 0.4, "hue": 0.1}
JITTER, GREY = 0.8, 0.2  # probabilities
_JITTERS = tuple(STRENGTHS)


class Draws(NamedTuple):
    """The random choices for N images."""

    top: jax.Array  # [N] int32, in pixels, like the next three
    height: jax.Array
    left: jax.Array
    width: jax.Array
    flip: jax.Array  # [N] bool
    order: jax.Array  # [N, 4] int32: which of the jitters comes first, second, …; -1: no jitter
    factor: jax.Array  # [N, 4] float32, factor of each jitter, in torchvision's units
    grey: jax.Array  # [N] bool


def simclr(keys: jax.Array, images: jax.Array) -> jax.Array:
    """The view of `images [N, H, W, 1 or 3]` uint8 with random `keys [N]`."""
    return apply(images, draw(keys, *images.shape[1:3]))


def draw(keys: jax.Array, height: int, width: int) -> Draws:
    """Draws the choices for N images of height×width pixels."""
    return jax.vmap(lambda key: _draw(key, height, width))(keys)


def _draw(key, height, width):
    box_key, jitter_key = jax.random.split(key)
    u = jax.random.uniform(box_key, (2 * TRIES + 2,))
    # `RandomResizedCrop.get_params` takes the first of ten boxes that fits.
    area = height * width * (AREA[0] + (AREA[1] - AREA[0]) * u[:TRIES])
    low, high = (math.log(ratio) for ratio in RATIO)
    ratio = jnp.exp(low + (high - low) * u[TRIES : 2 * TRIES])
    widths, heights = jnp.round(jnp.sqrt(area * ratio)), jnp.round(jnp.sqrt(area / ratio))
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = jnp.argmax(fits)
    # If none fits, it takes the largest box at the centre that is within the ratios.
    within = min(max(width / height, RATIO[0]), RATIO[1])
    central = min(width, round(height * within)), min(height, round(width / within))
    w, h = (
        jnp.where(jnp.any(fits), x[first], c).astype(jnp.int32)
        for x, c in zip((widths, heights), central, strict=True)
    )
    place = jnp.where(jnp.any(fits), u[-2:], 0.5)
    top = jnp.minimum(jnp.floor(place[0] * (height - h + 1)), height - h)
    left = jnp.minimum(jnp.floor(place[1] * (width - w + 1)), width - w)

    keys = jax.random.split(jitter_key)
    order = jax.random.permutation(keys[0], len(_JITTERS))
    u = jax.random.uniform(keys[1], (len(_JITTERS) + 3,))
    strength = jnp.array([*STRENGTHS.values()])
    centre = jnp.array([float(name != "hue") for name in _JITTERS])
    return Draws(
        top=top.astype(jnp.int32),
        height=h,
        left=left.astype(jnp.int32),
        width=w,
        flip=u[-1] < 0.5,
        order=jnp.where(u[-2] < JITTER, order, -1),
        factor=centre + strength * (2 * u[: len(_JITTERS)] - 1),
        grey=u[-3] < GREY,
    )


def apply(images: jax.Array, draws: Draws) -> jax.Array:
    """Applies the choices to `images [N, H, W, 1 or 3]` uint8."""
    images = crop(images, draws.top, draws.height, draws.left, draws.width)
    images = ops.flip(images, draws.flip)

    def jitter(images, op):
        factor = jnp.take_along_axis(draws.factor, jnp.maximum(op, 0)[:, None], axis=1)[:, 0]
        images = apply_layer(images, op, factor, names=_JITTERS)
        shifted = jnp.where(op == _JITTERS.index("hue"), factor, 0.0)
        return hue(images, shifted), None

    images, _ = jax.lax.scan(jitter, images, draws.order.T)
    grey = ops.color(images, 0.0)
    return jnp.where(draws.grey[:, None, None, None], grey, images)


def hue(images: jax.Array, shift: jax.Array) -> jax.Array:
    """torchvision's `adjust_hue` on Pillow's images, which converts to Pillow's 8-bit HSV.

    Args:
      images: uint8 `[N, H, W, C]`; images of one channel have no hue and do not change.
      shift: `[N]` in -0.5..0.5, a share of the circle; 0 does not change the image.
    """
    if images.shape[-1] != 3:
        return images
    turn = jnp.trunc(shift * 255).astype(jnp.int32)[:, None, None]
    h, s, v = _to_hsv(images)
    turned = _to_rgb((h + turn) % 256, s, v)
    return jnp.where((shift == 0)[:, None, None, None], images, turned)


def _to_hsv(images):
    """`Image.convert("HSV")`: three int32 `[N, H, W]`, as Pillow's C code `rgb2hsv_row` has it."""
    levels = images.astype(jnp.int32)
    high, low = jnp.max(levels, axis=-1), jnp.min(levels, axis=-1)
    spread = (high - low).astype(jnp.float32)
    r, g, b = jnp.unstack(levels, axis=-1)
    divisor = jnp.maximum(spread, 1)
    rc, gc, bc = ((high - x).astype(jnp.float32) / divisor for x in (r, g, b))
    h = jnp.where(r == high, bc - gc, jnp.where(g == high, 2 + rc - bc, 4 + gc - rc))
    h = h / 6 + (h < 0)  # a share of the circle
    s = spread / jnp.maximum(high, 1)
    h, s = ((x * 255).astype(jnp.int32) for x in (h, s))
    return jnp.where(high == low, 0, h), jnp.where(high == low, 0, s), high


def _to_rgb(h, s, v):
    """The inverse conversion, uint8 `[N, H, W, 3]`, as Pillow's C code `hsv2rgb` has it."""
    sector = h * 6 // 255
    f = (h * 6 - sector * 255) / 255
    saturation = s / 255

    def level(x):  # C's round
        return jnp.clip(jnp.floor(v * x + 0.5), 0, 255).astype(jnp.int32)

    p, q = level(1 - saturation), level(1 - saturation * f)
    t = level(1 - saturation * (1 - f))
    choices = ((v, t, p), (q, v, p), (p, v, t), (p, q, v), (t, p, v), (v, p, q))
    rgb = jnp.stack(choices[-1], axis=-1)
    for number, choice in enumerate(choices[:-1]):
        rgb = jnp.where((sector % 6 == number)[..., None], jnp.stack(choice, axis=-1), rgb)
    return jnp.where((s == 0)[..., None], v[..., None], rgb).astype(jnp.uint8)
