"""Pillow's crop and resize, batched, with one of its six filters for each image."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ssljax.augment.ops import check_images, per_image

# The order is CTAugment's; the index of a filter is rescale's `method`.
RESCALE_METHODS = ("lanczos", "bicubic", "bilinear", "box", "hamming", "nearest")


def rescale(images: jax.Array, scale: ArrayLike, method: ArrayLike) -> jax.Array:
    """Crops all four sides and resizes back: rescale of CTAugment (fixmatch, libml/ctaugment.py).

    Args:
      images: uint8 `[B, H, W, C]`.
      scale: `[B]` in 0..1; a quarter of it is the share of H and of W cropped from each side.
      method: int `[B]`, index into RESCALE_METHODS.

    Returns:
      uint8 `[B, H, W, C]`, within 2 levels of Pillow's result, which has 22-bit weights. "nearest"
      may take the other neighbour where the source is on a pixel border, up to rounding errors.
    """
    check_images(images)
    batch, height, width, _ = images.shape
    scale = per_image("scale", scale, batch)
    method = per_image("method", method, batch, jnp.int32)

    def box(size):
        start = jnp.round(scale / 4 * size)
        return start.astype(jnp.int32), jnp.round((1 - scale / 4) * size) - start

    (top, rows), (left, columns) = box(height), box(width)
    return _resize(images, top, rows, left, columns, method)


def crop(
    images: jax.Array, top: jax.Array, height: jax.Array, left: jax.Array, width: jax.Array
) -> jax.Array:
    """Crops a box of each image, and resizes it to the image's size by Pillow's bilinear filter.

    Args:
      images: uint8 `[B, H, W, C]`.
      top, height, left, width: int `[B]`, the box in pixels, within the image.

    Returns:
      uint8 `[B, H, W, C]`, within 2 levels of Pillow's result, which has 22-bit weights.
    """
    check_images(images)
    method = jnp.full(len(images), RESCALE_METHODS.index("bilinear"))
    return _resize(images, top, height, left, width, method)


def _resize(images, top, height, left, width, method):
    """Resizes in Pillow's two passes, with 8-bit levels in between."""
    rows, columns = images.shape[1:3]
    images = _resample("box,byxc->byoc", _weights(columns, left, width, method), images)
    return _resample("boy,byxc->boxc", _weights(rows, top, height, method), images)


def _resample(equation: str, weights: jax.Array, images: jax.Array) -> jax.Array:
    # "highest": a GPU would otherwise round the levels' products to TF32.
    levels = jnp.einsum(equation, weights, images.astype(jnp.float32), precision="highest")
    return jnp.clip(jnp.floor(levels + 0.5), 0, 255).astype(jnp.uint8)


def _weights(size: int, start: jax.Array, length: jax.Array, method: jax.Array) -> jax.Array:
    """The weights `[B, size, size]` of each output pixel over the input pixels.

    This is Pillow's `precompute_coeffs`. The box is `[start, start + length)`, each `[B]`. The
    result is never smaller than the box, so the filters are never widened.
    """
    length = length.astype(jnp.int32)[:, None]
    # The centre of an output pixel, within the crop, is at `source` + `fraction` input pixels. The
    # division is one of integers, because float32 has too few digits for the fraction.
    source, remainder = jnp.divmod((2 * jnp.arange(size)[None, :] + 1) * length, 2 * size)
    fraction = (remainder / (2 * size))[:, :, None]
    pixel = jnp.arange(size)[None, None, :] - start[:, None, None]
    step = pixel - source[:, :, None]
    weights = _filter(step, step + 0.5 - fraction, method[:, None, None])
    weights = jnp.where((pixel >= 0) & (pixel < length[:, :, None]), weights, 0)
    return weights / weights.sum(axis=-1, keepdims=True)


def _filter(step: jax.Array, x: jax.Array, method: jax.Array) -> jax.Array:
    """The chosen filter's value at a distance of x pixels; step is 0 at the nearest pixel."""
    sinc, d = jnp.sinc(x), jnp.abs(x)
    nearest = (step == 0).astype(jnp.float32)
    values = {
        "lanczos": jnp.where(d < 3, sinc * jnp.sinc(x / 3), 0),
        "bicubic": jnp.where(
            d < 1,
            (1.5 * d - 2.5) * d * d + 1,
            jnp.where(d < 2, ((2.5 - 0.5 * d) * d - 4) * d + 2, 0),
        ),
        "bilinear": jnp.maximum(1 - d, 0),
        "box": nearest,  # the same filter, as the image is never reduced
        "hamming": jnp.where(d < 1, sinc * (0.54 + 0.46 * jnp.cos(jnp.pi * d)), 0),
        "nearest": nearest,
    }
    weights = jnp.zeros_like(x)
    for index, name in enumerate(RESCALE_METHODS):
        weights = jnp.where(method == index, values[name], weights)
    return weights
