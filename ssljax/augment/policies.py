"""Views: what a method sees of an image. Functions of (keys, images) -> images.

`keys [N]` holds one random key an image, so that an image's view does not depend on the batch or
the device it is in; `images [N, H, W, C]` are uint8, and so is the result.
"""

from functools import partial

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


def weak_cifar(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors half of the images; shifts by up to 4 pixels over a reflected border."""
    return _flip_and_shift(keys, images, flip=True, pad=4)


def weak_svhn(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Shifts by up to 4 pixels over a reflected border; a mirrored digit is another sign."""
    return _flip_and_shift(keys, images, flip=False, pad=4)


def weak_stl10(keys: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrors half of the images; shifts by up to 12 pixels over a reflected border."""
    return _flip_and_shift(keys, images, flip=True, pad=12)


def _flip_and_shift(keys, images, *, flip, pad):
    flip_keys, shift_keys = _split(keys, 2)
    if flip:
        images = ops.flip(images, jax.vmap(jax.random.bernoulli)(flip_keys))
    offset = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, 2 * pad + 1))(shift_keys)
    return ops.shift(images, pad, offset)


def _randaugment(keys, images, *, weak):
    """FixMatch's "rac": the weak view, 2 ops out of 14 with replacement, Cutout of 16×16 pixels.

    Source: `libml/augment.py` and `third_party/auto_augment` of google-research/fixmatch. There
    pixels that a warp uncovers are grey, as here, but black where a lookup follows the warp.
    """
    weak_keys, *layer_keys, cutout_keys = _split(keys, 4)
    images = weak(weak_keys, images)
    for layer in layer_keys:
        images = _random_op(layer, images)
    height, width = images.shape[1:3]
    limits = jnp.array([height, width])
    centre = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, limits))(cutout_keys)
    return ops.cutout(images, 16, centre)


def _random_op(keys, images):
    """With probability 0.5 one op, drawn with its level 1..9 and sign, of each image's own."""
    on_keys, op_keys, level_keys, sign_keys = _split(keys, 4)
    on = jax.vmap(jax.random.bernoulli)(on_keys)
    op = jnp.where(on, jax.vmap(lambda key: jax.random.randint(key, (), 0, 14))(op_keys), 0)
    level = jax.vmap(lambda key: jax.random.randint(key, (), 1, 10))(level_keys)
    signed = jnp.where(jax.vmap(jax.random.bernoulli)(sign_keys), level, -level)
    enhance = 0.18 * level + 0.1
    matrices = [  # ops 1 to 5
        ops.rotate_matrix(3.0 * signed, *images.shape[1:3]),
        ops.shear_x_matrix(0.03 * signed),
        ops.shear_y_matrix(0.03 * signed),
        ops.translate_x_matrix(signed),
        ops.translate_y_matrix(signed),
    ]
    tables = [  # ops 6 to 11
        ops.autocontrast_table(images),
        ops.equalize_table(images),
        ops.posterize_table(images, 4 - 4 * level // 10),
        ops.solarize_table(images, 256 - 256 * level // 10),
        ops.contrast_table(images, enhance),
        ops.brightness_table(images, enhance),
    ]  # 12 and 13 are filters, 0 is the identity
    n, channels = len(images), images.shape[-1]
    matrix = _select(op - 1, matrices, ops.identity_matrix(n))
    table = _select(op - 6, tables, ops.identity_table(n, channels))
    filters = jnp.select([op == 12, op == 13], [ops.COLOR, ops.SHARPNESS], ops.IDENTITY)
    images = ops.lookup(ops.warp(images, matrix, fill=127), table)
    return ops.filter_blend(images, filters, enhance)


def _select(index, choices, default):
    """`choices[index]` image by image, `default` where the index is outside."""
    for i, choice in enumerate(choices):
        default = jnp.where((index == i).reshape(-1, *[1] * (choice.ndim - 1)), choice, default)
    return default


def _split(keys, n):
    """n independent sets of keys, one an image each."""
    return jnp.swapaxes(jax.vmap(lambda key: jax.random.split(key, n))(keys), 0, 1)


randaugment_cifar = partial(_randaugment, weak=weak_cifar)
randaugment_svhn = partial(_randaugment, weak=weak_svhn)
randaugment_stl10 = partial(_randaugment, weak=weak_stl10)


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
