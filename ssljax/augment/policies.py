"""Views: what a method sees of an image. Functions of (keys, images) -> images.

`keys [N]` holds one random key an image, so that an image's view does not depend on the batch or
the device it is in; `images [N, H, W, C]` are uint8, and so is the result.
"""

import jax
import jax.numpy as jnp

from ssljax.augment import ops


def none(keys: jax.Array, images: jax.Array) -> jax.Array:
    """The image as it is."""
    del keys
    return images


def weak_digits(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Shifts by up to one pixel on each axis. No flips: a digit is not its mirror image."""
    offset = jax.vmap(lambda key: jax.random.randint(key, (2,), -1, 2))(keys)
    return ops.warp(images, _affine(images.shape, 0, 0, 0, *offset.T))


def strong_digits(keys: jax.Array, images: jax.Array) -> jax.Array:
    """A random affine map, brightness, contrast and Cutout, for images of 8×8 pixels.

    Rotation by up to ±20°, shears up to ±0.25 and translations up to ±1.5 pixels, interpolated (at
    this size whole pixels are coarse); brightness and contrast by 0.5 to 1.5; a 2×2 Cutout.
    """
    draws = jax.vmap(lambda key: jax.random.uniform(key, (9,), minval=-1.0))(keys).T
    angle, shear_x, shear_y, move_x, move_y, brightness, contrast, *where = draws
    matrix = _affine(
        images.shape, 20 * angle, 0.25 * shear_x, 0.25 * shear_y, 1.5 * move_x, 1.5 * move_y
    )
    images = ops.warp(images, matrix, method="bilinear")
    images = ops.brightness(images, 1 + 0.5 * brightness)
    images = ops.contrast(images, 1 + 0.5 * contrast)
    centre = (jnp.stack(where, axis=-1) + 1) / 2 * jnp.array(images.shape[1:3])
    return ops.cutout(images, 2, centre.astype(jnp.int32), fill=0)


def _affine(shape, degrees, shear_x, shear_y, move_x, move_y):
    """`[N, 6]` inverse maps about the image centre: move, then shear, then rotate."""
    n, height, width, _ = shape
    cos, sin = jnp.cos(jnp.deg2rad(degrees)), jnp.sin(jnp.deg2rad(degrees))
    a, b = cos + shear_x * sin, shear_x * cos - sin
    d, e = sin + shear_y * cos, cos - shear_y * sin
    cx, cy = width / 2, height / 2
    c = cx - a * cx - b * cy + move_x
    f = cy - d * cx - e * cy + move_y
    return jnp.stack([jnp.broadcast_to(x, (n,)) for x in (a, b, c, d, e, f)], axis=-1)
