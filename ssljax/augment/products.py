"""Kernels of `ops.py` without gathers and scatters, for TPUs, with bit-identical results.

A TPU gathers and scatters one value after another, at 7 to 10 cycles each. Products with one-hot
vectors, masked sums and selects take 3 to 50 times fewer cycles there (docs/performance.md), and
far more time on other devices. They are exact: levels are integers up to 255, which bfloat16 can
represent, and sums have a single term or count up to 2^24, which float32 can represent.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

_HOT = jnp.bfloat16
# Images with more pixels are not warped by products, whose cost grows faster with the image side
# than that of gathers. For them it pays to warp only the images that need it, by `of_some`.
MOST_PIXELS = 64 * 64


def lookup(images: jax.Array, table: jax.Array) -> jax.Array:
    """`ops.lookup` in 16 rows of 16 levels: a product selects the row, a masked sum the column.

    Args:
      images: uint8 `[B, H, W, C]`.
      table: uint8 `[B, C, 256]`.
    """
    batch, height, width, channels = images.shape
    levels = images.transpose(0, 3, 1, 2).reshape(batch, channels, height * width)
    row = jax.nn.one_hot(levels >> 4, 16, dtype=_HOT)
    column = jax.nn.one_hot(levels & 15, 16, dtype=jnp.bool_)
    rows = jnp.einsum(
        "bcpi,bcij->bcpj",
        row,
        table.reshape(batch, channels, 16, 16).astype(_HOT),
        preferred_element_type=jnp.float32,
    )
    found = jnp.where(column, rows, 0).sum(axis=-1).astype(jnp.uint8)
    return found.reshape(batch, channels, height, width).transpose(0, 2, 3, 1)


def histogram(images: jax.Array) -> jax.Array:
    """`ops.histogram`, int32 `[B, C, 256]`, which counts pairs of high and low bits of a level."""
    batch, height, width, channels = images.shape
    levels = images.reshape(batch, height * width, channels)
    high, low = (jax.nn.one_hot(bits, 16, dtype=_HOT) for bits in (levels >> 4, levels & 15))
    counts = jnp.einsum("bpci,bpcj->bcij", high, low, preferred_element_type=jnp.float32)
    return counts.astype(jnp.int32).reshape(batch, channels, 256)


def take(images: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Pixels at positions within the images: a product selects the row, a masked sum the column.

    Args:
      images: uint8 `[B, H, W, C]`.
      y, x: int32 `[B, H, W]`, 0 to H - 1 and 0 to W - 1.
    """
    batch, height, width, channels = images.shape
    row = jax.nn.one_hot(y.reshape(batch, -1), height, dtype=_HOT)
    column = jax.nn.one_hot(x.reshape(batch, -1, 1), width, dtype=jnp.bool_)
    flat = images.transpose(0, 1, 3, 2).reshape(batch, height, channels * width).astype(_HOT)
    rows = jnp.einsum("bpy,byk->bpk", row, flat, preferred_element_type=jnp.float32)
    rows = rows.reshape(batch, height * width, channels, width)
    return jnp.where(column, rows, 0).sum(axis=-1).astype(jnp.uint8).reshape(images.shape)


def crop(padded: jax.Array, offset: jax.Array, height: int, width: int) -> jax.Array:
    """Crops `[B, height, width, C]` of images `[B, H, W, C]`.

    All shifts along an axis are computed one after another, and a select keeps that of each image.

    Args:
      offset: int `[B, 2]`, (row, column) of each crop's first pixel.
    """
    for axis, size in ((1, height), (2, width)):
        at = offset[:, axis - 1].reshape(-1, 1, 1, 1)
        found = jax.lax.slice_in_dim(padded, 0, size, axis=axis)
        for start in range(1, padded.shape[axis] - size + 1):
            part = jax.lax.slice_in_dim(padded, start, start + size, axis=axis)
            found = jnp.where(at == start, part, found)
        padded = found
    return padded


def of_some(
    kernel: Callable[[jax.Array, jax.Array], jax.Array],
    images: jax.Array,
    argument: jax.Array,
    needed: jax.Array,
) -> jax.Array:
    """Applies `kernel(images, argument)` to the images that need it, one after another.

    Args:
      kernel: (`[1, H, W, C]`, `[1, …]`) -> `[1, H, W, C]`.
      images: `[B, H, W, C]`.
      argument: `[B, …]`.
      needed: bool `[B]`; the other images do not change.
    """
    order = jnp.argsort(~needed)

    def one(i: jax.Array, images: jax.Array) -> jax.Array:
        image, given = (jax.lax.dynamic_slice_in_dim(x, order[i], 1) for x in (images, argument))
        return jax.lax.dynamic_update_slice_in_dim(images, kernel(image, given), order[i], 0)

    return jax.lax.fori_loop(0, jnp.sum(needed), one, images)
