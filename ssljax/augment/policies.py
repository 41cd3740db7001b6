"""Views without a learned state, (keys, images) -> images.

`keys [N]` has one random key per image, so that an image's view does not depend on its batch or its
device; `images [N, H, W, C]` are uint8, and so is the result.
"""

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.augment import ops
from ssljax.augment.simclr import simclr


def none(keys: jax.Array, images: jax.Array) -> jax.Array:
    """The unchanged images."""
    del keys
    return images


def flip(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors each image with probability 0.5."""
    return ops.flip(images, jax.vmap(jax.random.bernoulli)(keys))


def weak_cifar(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors half of the images and shifts all by up to 4 pixels, reflecting at the border."""
    return _flip_and_shift(keys, images, pad=4)


def weak_svhn(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Shifts by up to 4 pixels, reflecting at the border. No flips: these are digits."""
    return _flip_and_shift(keys, images, pad=4, flip=0.0)


def weak_stl10(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors half of the images and shifts all by up to 12 pixels, for images of 96×96."""
    return _flip_and_shift(keys, images, pad=12)


def weak_eurosat(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Like `weak_cifar`, and flips half of the images vertically, as they are aerial images."""
    keys, turned = jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
    upside_down = jax.vmap(jax.random.bernoulli)(turned)[:, None, None, None]
    return weak_cifar(keys, jnp.where(upside_down, images[:, ::-1], images))


def weak_photos(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors half of the images and shifts all by up to 1/8 of their smaller side.

    The shift reflects at the border. For 32 pixels the view is that of `weak_cifar`.
    """
    return _flip_and_shift(keys, images, pad=min(images.shape[1:3]) // 8)


def _flip_and_shift(keys, images, *, pad, flip=0.5):
    """Flips with probability `flip` and shifts by a uniform offset (fixmatch, libml/augment.py)."""
    height, width = images.shape[1:3]
    if min(height, width) <= pad:
        raise ValueError(
            f"the images have {height}×{width} pixels; allowed for weak views that shift by {pad}: "
            f"from {pad + 1}×{pad + 1} up"
        )
    draws = jax.vmap(lambda key: jax.random.uniform(key, (3,)))(keys)
    offset = jnp.floor(draws[:, 1:] * (2 * pad + 1)).astype(jnp.int32)
    return ops.shift(ops.flip(images, draws[:, 0] < flip), pad, offset)


def weak_digits(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Shifts by up to one pixel on each axis. No flips: a digit is not its mirror image."""
    offset = jax.vmap(lambda key: jax.random.randint(key, (2,), -1, 2))(keys)
    return ops.warp(images, _affine(images.shape, 0, 0, 0, *offset.T))


def strong_digits(keys: jax.Array, images: jax.Array) -> jax.Array:
    """A random affine map, brightness, contrast and Cutout, for images of 8×8 pixels.

    Rotations are up to ±20°, shears up to ±0.25 and translations up to ±1.5 pixels, interpolated
    (at this size, steps of one pixel are coarse). Factors of brightness and contrast are 0.5 to
    1.5. Cutout paints 2×2 pixels.
    """
    draws = jax.vmap(lambda key: jax.random.uniform(key, (9,)))(keys)
    return strong_digits_from_uniform(draws, images)


def strong_digits_from_uniform(draws: jax.Array, images: jax.Array) -> jax.Array:
    """`strong_digits` with random numbers `[N, 9]` in [0, 1) as argument."""
    draws = 2 * draws - 1
    images = _distort_digits(images, draws[:, :7])
    centre = (draws[:, 7:] + 1) / 2 * jnp.array(images.shape[1:3])[None]
    return ops.cutout(images, 2, centre.astype(jnp.int32), fill=0)


# The columns of `_distort_digits`' strengths.
_DISTORTIONS = ("rotate", "shear_x", "shear_y", "move_x", "move_y", "brightness", "contrast")


# The ranges of `strong_digits`: degrees, shares, pixels, and differences of factors from 1.
_EXTREMES = dict(zip(_DISTORTIONS, (20.0, 0.25, 0.25, 1.5, 1.5, 0.5, 0.5), strict=True))
_STRENGTHS = np.linspace(-1, 1, 9, dtype=np.float32)  # strengths of `digits_magnitude_grid`


def digits_magnitudes() -> dict[str, list[float]]:
    """The parameter of each image of `digits_magnitude_grid`; a factor for the last two rows."""
    return {
        name: [
            float((1 if name in ("brightness", "contrast") else 0) + extreme * x)
            for x in _STRENGTHS
        ]
        for name, extreme in _EXTREMES.items()
    }


def digits_magnitude_grid(images: jax.Array) -> dict[str, jax.Array]:
    """Each distortion of `strong_digits` -> the single image of `images` at its 9 strengths."""
    strengths = jnp.asarray(_STRENGTHS)[None, :, None] * jnp.eye(7)[:, None, :]
    images = jnp.repeat(images, 9, axis=0)
    rows = [_distort_digits(images, row) for row in strengths]
    return dict(zip(_DISTORTIONS, rows, strict=True))


def _distort_digits(images, strengths):
    """`strong_digits` without Cutout; strengths `[N, 7]` are in -1..1, and 0 changes nothing."""
    angle, shear_x, shear_y, move_x, move_y, brightness, contrast = strengths.T
    most = _EXTREMES
    matrix = _affine(
        images.shape,
        most["rotate"] * angle,
        most["shear_x"] * shear_x,
        most["shear_y"] * shear_y,
        most["move_x"] * move_x,
        most["move_y"] * move_y,
    )
    images = ops.warp(images, matrix, method="bilinear")
    images = ops.brightness(images, 1 + most["brightness"] * brightness)
    return ops.contrast(images, 1 + most["contrast"] * contrast)


def _affine(shape, degrees, shear_x, shear_y, move_x, move_y):
    """Inverse maps `[N, 6]` about the image centre: move, then shear, then rotate."""
    n, height, width, _ = shape
    cos, sin = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    a, b = cos + shear_x * sin, shear_x * cos - sin
    d, e = sin + shear_y * cos, cos - shear_y * sin
    cx, cy = width / 2, height / 2
    c = cx - a * cx - b * cy + move_x
    f = cy - d * cx - e * cy + move_y
    return jnp.stack([jnp.broadcast_to(x, (n,)) for x in (a, b, c, d, e, f)], axis=-1)


# Views that a method can name and that are no fields of `config.augment`.
PLAIN = {"none": none, "simclr": simclr}
