"""Deterministic image operations, batched, equal to Pillow's on 8-bit images.

Images are `uint8 [B, H, W, C]` with C = 1 (Pillow's mode "L") or 3 ("RGB"), in and out. Every
parameter is one value per image, `[B]`, or a scalar for all of them, in Pillow's units. Everything
works under jit, vmap and pmap. A wrong shape, dtype or name raises ValueError.

Choosing an operation per image by `vmap(lax.switch)` would compute all operations. So there are
three kernels, and every operation is a special case of one. A policy runs each kernel once, with
the identity as argument for images that have no operation of this kernel:

    warp(images, matrix)                  rotate, shear, translate: select among `*_matrix`
    lookup(images, table)                 autocontrast … contrast: select among `*_table`
    filter_blend(images, choice, factor)  sharpness, blur, smooth, color: select the choice

CTAugment's blended variants (autocontrast, equalize, invert) are lookups too, in the table
`blend(identity_table(…), equalize_table(…), level)`. `rescale` is in `resample.py`. On TPUs the
kernels in `products.py` replace gathers and scatters, with the same result.
"""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike

from ssljax.augment import products

WARP_METHODS = ("nearest", "bilinear", "bicubic")
IDENTITY, SHARPNESS, BLUR, SMOOTH, COLOR = range(5)  # choices of filter_blend


def to_float(images: jax.Array) -> jax.Array:
    """Scales pixels from 0..255 to float32 -1..1, as all published recipes do."""
    return images.astype(jnp.float32) / 127.5 - 1


def check_images(images: jax.Array, channels: tuple[int, ...] = (1, 3)) -> None:
    """Refuses anything but `uint8 [B, H, W, C]` with C among `channels`."""
    if images.ndim != 4 or images.shape[-1] not in channels or images.dtype != jnp.uint8:
        found, allowed = f"{images.dtype} {list(images.shape)}", " or ".join(map(str, channels))
        raise ValueError(f"images: expected uint8 [B, H, W, {allowed}], got {found}")


def per_image(name: str, value: ArrayLike, batch: int, dtype: DTypeLike = jnp.float32) -> jax.Array:
    """The parameter as `[batch]` of dtype, from a scalar or `[batch]`."""
    value = jnp.asarray(value, dtype)
    if value.shape not in ((), (batch,)):
        raise ValueError(f"{name}: expected a scalar or [{batch}], got {list(value.shape)}")
    return jnp.broadcast_to(value, (batch,))


def blend(a: jax.Array, b: jax.Array, level: ArrayLike) -> jax.Array:
    """`Image.blend(a, b, level)`: a at level 0, b at level 1; other levels extrapolate and clip.

    a and b are uint8 `[B, …]` of the same shape, images or tables.
    """
    if a.dtype != jnp.uint8 or b.dtype != jnp.uint8 or a.shape != b.shape:
        found = f"{a.dtype} {list(a.shape)} and {b.dtype} {list(b.shape)}"
        raise ValueError(f"a, b: expected uint8 arrays of one shape, got {found}")
    level = per_image("level", level, a.shape[0]).reshape(-1, *[1] * (a.ndim - 1))
    start = a.astype(jnp.float32)
    change = _rounded(level * (b.astype(jnp.float32) - start))
    return jnp.clip(start + change, 0, 255).astype(jnp.uint8)  # truncates


def _rounded(product: jax.Array) -> jax.Array:
    """The same product, protected from fused multiply-add.

    FMA does not round the product before the addition, so the sum could truncate to another level.
    """
    return jnp.maximum(product, -1e9)


# Moving pixels: warps, mirror, shift, cutout.


def warp(
    images: jax.Array, matrix: jax.Array, *, fill: int = 0, method: str = "nearest"
) -> jax.Array:
    """One affine map per image: `Image.transform(size, AFFINE, matrix, method, fillcolor=fill)`.

    Args:
      images: uint8 `[B, H, W, C]`; a second or fourth channel, alpha, moves with the others.
      matrix: `[B, 6]` of (a, b, c, d, e, f): the output at (x, y) is the input at
        (ax + by + c, dx + ey + f), in pixels, pixel centres at + 0.5; below 2^15 in magnitude.
      fill: level, 0 to 255, of output pixels whose source lies outside.
      method: "nearest", "bilinear" or "bicubic".

    Returns:
      uint8 `[B, H, W, C]`.
    """
    check_images(images, channels=(1, 2, 3, 4))
    batch, height, width, _ = images.shape
    if matrix.shape != (batch, 6):
        raise ValueError(f"matrix: expected [{batch}, 6], got {list(matrix.shape)}")
    if method not in WARP_METHODS:
        raise ValueError(f"method: expected one of {WARP_METHODS}, got {method!r}")
    _check_level("fill", fill)
    kernel = functools.partial(_warp, fill=fill, method=method)
    if height * width <= products.MOST_PIXELS:
        return kernel(images, matrix)

    def of_some(images, matrix):
        needed = jnp.any(matrix != identity_matrix(batch), axis=1)
        return products.of_some(kernel, images, matrix, needed)

    return jax.lax.platform_dependent(images, matrix, tpu=of_some, default=kernel)


def _warp(images, matrix, *, fill, method):
    """`warp` without the checks of its arguments."""
    height, width = images.shape[1:3]
    row, column = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]

    def source(a, b, c):
        if method != "nearest":
            return a * (column + 0.5) + b * (row + 0.5) + c
        # Pillow steps by multiples of 1/65536 of a pixel here, and their rounding errors add up.
        a, b, c = (jnp.floor(v * 65536 + 0.5).astype(jnp.int32) for v in (a, b, c + a / 2 + b / 2))
        return (a * column + b * row + c) >> 16

    coefficients = jnp.unstack(matrix.astype(jnp.float32)[:, :, None, None], axis=1)
    x, y = source(*coefficients[:3]), source(*coefficients[3:])
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    pixels = _take(images, y, x) if method == "nearest" else _interpolate(images, y, x, method)
    return jnp.where(inside[..., None], pixels, jnp.uint8(fill))


def _check_level(name: str, value: int) -> None:
    if not 0 <= value <= 255:
        raise ValueError(f"{name}: expected a level in 0..255, got {value}")


def _take(images: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Pixels at integer positions `[B, H, W]`; positions outside are clipped to the border."""
    batch, height, width, channels = images.shape
    y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)

    def gathered(images, y, x):
        pixels = images.reshape(batch, height * width, channels)
        take = jax.vmap(lambda image, i: image.at[i].get(mode="promise_in_bounds"))
        return take(pixels, y * width + x)

    if height * width > products.MOST_PIXELS:
        return gathered(images, y, x)
    return jax.lax.platform_dependent(images, y, x, tpu=products.take, default=gathered)


def _interpolate(images: jax.Array, y: jax.Array, x: jax.Array, method: str) -> jax.Array:
    taps = {"bilinear": (0, 1), "bicubic": (-1, 0, 1, 2)}[method]
    top, left = jnp.floor(y - 0.5), jnp.floor(x - 0.5)
    down, right = (y - 0.5 - top)[..., None], (x - 0.5 - left)[..., None]  # in [0, 1)
    top, left = top.astype(jnp.int32), left.astype(jnp.int32)
    pixels = [[_take(images, top + i, left + j).astype(jnp.float32) for j in taps] for i in taps]
    interpolated = _curve([_curve(row, right) for row in pixels], down)
    return jnp.clip(interpolated, 0, 255).astype(jnp.uint8)  # truncates, as Pillow does


def _curve(points: list[jax.Array], t: jax.Array) -> jax.Array:
    """The value of a line through 2 points or a cubic through 4.

    t is the position between the two middle points, 0..1.
    """
    if len(points) == 2:
        a, b = points
        return a + (b - a) * t
    a, b, c, d = points  # slope parameter -1, while that of resizing has -0.5
    return b + t * (c - a + t * (2 * (a - b) + c - d + t * (b - a + d - c)))


def identity_matrix(batch: int) -> jax.Array:
    """The matrices `[batch, 6]` of the warp that changes nothing."""
    return jnp.tile(jnp.array([[1, 0, 0, 0, 1, 0]], jnp.float32), (batch, 1))


def _identity_but(column: int, value: jax.Array) -> jax.Array:
    """The identity matrices `[B, 6]` with `value [B]` in one column."""
    return jnp.where(jnp.arange(6) == column, value[:, None], identity_matrix(len(value)))


def rotate_matrix(degrees: jax.Array, height: int, width: int) -> jax.Array:
    """`[B, 6]` of `Image.rotate`: counter-clockwise by degrees `[B]` about the image's centre."""
    angle = jnp.deg2rad(degrees)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    versine = 2 * jnp.sin(angle / 2) ** 2  # 1 - cos, without cancellation of digits
    x, y = width / 2, height / 2
    return jnp.stack([cos, -sin, x * versine + y * sin, sin, cos, y * versine - x * sin], axis=-1)


def shear_x_matrix(s: jax.Array) -> jax.Array:
    """`[B, 6]` of AFFINE (1, s, 0, 0, 1, 0): row y moves left by s·y pixels, s `[B]`."""
    return _identity_but(1, s)


def shear_y_matrix(s: jax.Array) -> jax.Array:
    """`[B, 6]` of AFFINE (1, 0, 0, s, 1, 0): column x moves up by s·x pixels, s `[B]`."""
    return _identity_but(3, s)


def translate_x_matrix(pixels: jax.Array) -> jax.Array:
    """`[B, 6]` of AFFINE (1, 0, pixels, 0, 1, 0): moves left by pixels `[B]`."""
    return _identity_but(2, pixels)


def translate_y_matrix(pixels: jax.Array) -> jax.Array:
    """`[B, 6]` of AFFINE (1, 0, 0, 0, 1, pixels): moves up by pixels `[B]`."""
    return _identity_but(5, pixels)


def rotate(images: jax.Array, degrees: ArrayLike, **options: Any) -> jax.Array:
    """`Image.rotate(degrees)`: counter-clockwise. Options: warp's fill and method."""
    degrees = per_image("degrees", degrees, images.shape[0])
    return warp(images, rotate_matrix(degrees, *images.shape[1:3]), **options)


def shear_x(images: jax.Array, s: ArrayLike, **options: Any) -> jax.Array:
    """Row y moves left by s·y pixels (see shear_x_matrix). Options: warp's fill and method."""
    return warp(images, shear_x_matrix(per_image("s", s, images.shape[0])), **options)


def shear_y(images: jax.Array, s: ArrayLike, **options: Any) -> jax.Array:
    """Column x moves up by s·x pixels (see shear_y_matrix). Options: warp's fill and method."""
    return warp(images, shear_y_matrix(per_image("s", s, images.shape[0])), **options)


def translate_x(images: jax.Array, pixels: ArrayLike, **options: Any) -> jax.Array:
    """Moves left by pixels (see translate_x_matrix). Options: warp's fill and method."""
    pixels = per_image("pixels", pixels, images.shape[0])
    return warp(images, translate_x_matrix(pixels), **options)


def translate_y(images: jax.Array, pixels: ArrayLike, **options: Any) -> jax.Array:
    """Moves up by pixels (see translate_y_matrix). Options: warp's fill and method."""
    pixels = per_image("pixels", pixels, images.shape[0])
    return warp(images, translate_y_matrix(pixels), **options)


def flip(images: jax.Array, on: ArrayLike) -> jax.Array:
    """Mirrors left and right (`ImageOps.mirror`) the images where on, bool `[B]`."""
    check_images(images)
    on = per_image("on", on, images.shape[0], jnp.bool_)[:, None, None, None]
    return jnp.where(on, images[:, :, ::-1], images)


def shift(images: jax.Array, pad: int, offset: jax.Array) -> jax.Array:
    """Pads by reflection (`tf.pad(mode="REFLECT")`) and crops back to H×W.

    Args:
      images: uint8 `[B, H, W, C]`.
      pad: pixels on each side, fewer than H and W.
      offset: int `[B, 2]`, row and column of the crop in the padded image, 0 to 2·pad; (pad, pad)
        is the original image.
    """
    check_images(images)
    if not 0 <= pad < min(images.shape[1:3]):
        raise ValueError(f"pad: expected 0..{min(images.shape[1:3]) - 1} pixels, got {pad}")
    _check_points("offset", offset, images)
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")

    def crops(padded, offset):
        slice_one = functools.partial(jax.lax.dynamic_slice, slice_sizes=images.shape[1:])
        return jax.vmap(lambda image, corner: slice_one(image, (*corner, 0)))(padded, offset)

    by_selects = functools.partial(products.crop, height=images.shape[1], width=images.shape[2])
    return jax.lax.platform_dependent(padded, offset, tpu=by_selects, default=crops)


def cutout(images: jax.Array, size: ArrayLike, centre: jax.Array, *, fill: int = 127) -> jax.Array:
    """Paints a square, clipped at the borders.

    The published code paints `2 * (size // 2)` pixels; round an odd size down for the same result.

    Args:
      images: uint8 `[B, H, W, C]`.
      size: int `[B]`, side of the square in pixels.
      centre: int `[B, 2]`, row and column; the square starts `size // 2` pixels before it.
      fill: level, 0 to 255, of all channels: 127 is CTAugment's grey, 128 RandAugment's on
        ImageNet.
    """
    check_images(images)
    _check_points("centre", centre, images)
    _check_level("fill", fill)
    size = per_image("size", size, images.shape[0], jnp.int32)[:, None]

    def covered(position, length):  # [B, length]
        from_start = jnp.arange(length)[None, :] - (position[:, None] - size // 2)
        return (from_start >= 0) & (from_start < size)

    rows = covered(centre[:, 0], images.shape[1])[:, :, None, None]
    columns = covered(centre[:, 1], images.shape[2])[:, None, :, None]
    return jnp.where(rows & columns, jnp.uint8(fill), images)


def _check_points(name: str, value: jax.Array, images: jax.Array) -> None:
    if value.shape != (len(images), 2) or not jnp.issubdtype(value.dtype, jnp.integer):
        found = f"{value.dtype} {list(value.shape)}"
        raise ValueError(f"{name}: expected integers [{len(images)}, 2], got {found}")


# Changing levels: lookup tables.


def lookup(images: jax.Array, table: jax.Array) -> jax.Array:
    """Replaces every level v of channel c by `table[:, c, v]`: `Image.point`.

    Args:
      images: uint8 `[B, H, W, C]`.
      table: uint8 `[B, C, 256]`.
    """
    check_images(images)
    shape = (images.shape[0], images.shape[3], 256)
    if table.shape != shape or table.dtype != jnp.uint8:
        found = f"{table.dtype} {list(table.shape)}"
        raise ValueError(f"table: expected uint8 {list(shape)}, got {found}")
    channel = jnp.arange(images.shape[3])[None, None, :]

    def look_up(image, table):
        return table.at[channel, image].get(mode="promise_in_bounds")

    return jax.lax.platform_dependent(images, table, tpu=products.lookup, default=jax.vmap(look_up))


def histogram(images: jax.Array) -> jax.Array:
    """`Image.histogram()`: the number of pixels per channel and level, int32 `[B, C, 256]`."""
    batch, _, _, channels = images.shape

    def scattered(images):
        first = 256 * jnp.arange(batch * channels).reshape(batch, 1, 1, channels)
        # On a CPU core this flat scatter-add is 20 times as fast as sorting, and 500 times as fast
        # as sums of one-hot vectors.
        counts = jnp.zeros(batch * channels * 256, jnp.int32)
        counts = counts.at[(first + images).reshape(-1)].add(1, mode="promise_in_bounds")
        return counts.reshape(batch, channels, 256)

    return jax.lax.platform_dependent(images, tpu=products.histogram, default=scattered)


def identity_table(batch: int, channels: int) -> jax.Array:
    """The tables `[batch, channels, 256]` of the lookup that changes nothing."""
    return jnp.broadcast_to(jnp.arange(256, dtype=jnp.uint8), (batch, channels, 256))


def _levels(images: jax.Array) -> jax.Array:
    """Levels 0..255, int32 `[B, C, 256]`, to compute tables from; also checks the images."""
    check_images(images)
    return identity_table(images.shape[0], images.shape[3]).astype(jnp.int32)


def _column(name: str, value: ArrayLike, images: jax.Array) -> jax.Array:
    return per_image(name, value, images.shape[0], jnp.int32)[:, None, None]


def autocontrast_table(images: jax.Array) -> jax.Array:
    """`ImageOps.autocontrast`: stretches each channel to 0..255, except constant channels."""
    levels = _levels(images)
    # Separate channels are 20 times as fast on a CPU as a reduction over all axes but the last.
    channels = jnp.unstack(images, axis=3)
    low, high = (
        jnp.stack([extreme(channel, axis=(1, 2)) for channel in channels], axis=1)[..., None]
        for extreme in (jnp.min, jnp.max)
    )
    # Pillow truncates a double that is often an integer up to rounding errors (the top level
    # becomes 255 or 254), so doubles are necessary here. They are only 256 numbers per channel.
    with jax.enable_x64(True):
        bottom, top = low.astype(jnp.float64), high.astype(jnp.float64)
        scale = 255 / jnp.maximum(top - bottom, 1)
        stretched = _rounded(levels.astype(jnp.float64) * scale) - _rounded(bottom * scale)
        table = jnp.clip(stretched, 0, 255).astype(jnp.uint8)
    return jnp.where(high > low, table, levels.astype(jnp.uint8))


def equalize_table(images: jax.Array) -> jax.Array:
    """`ImageOps.equalize`: makes each channel's histogram as even as a table can."""
    levels, counts = _levels(images), histogram(images)
    brightest = jnp.where(counts > 0, levels, 0).max(axis=-1, keepdims=True)
    step = jnp.where(levels < brightest, counts, 0).sum(axis=-1, keepdims=True) // 255
    below = jnp.cumsum(counts, axis=-1) - counts
    table = jnp.where(step > 0, (step // 2 + below) // jnp.maximum(step, 1), levels)
    return jnp.minimum(table, 255).astype(jnp.uint8)


def invert_table(images: jax.Array) -> jax.Array:
    """`ImageOps.invert`: 255 - v."""
    return (255 - _levels(images)).astype(jnp.uint8)


def posterize_table(images: jax.Array, bits: ArrayLike) -> jax.Array:
    """`ImageOps.posterize`: keeps the highest `bits`, int `[B]` in 0..8."""
    mask = 255 << (8 - _column("bits", bits, images))
    return (_levels(images) & mask).astype(jnp.uint8)


def solarize_table(images: jax.Array, threshold: ArrayLike) -> jax.Array:
    """`ImageOps.solarize`: inverts the levels of at least `threshold`, int `[B]` in 0..256."""
    levels, threshold = _levels(images), _column("threshold", threshold, images)
    return jnp.where(levels < threshold, levels, 255 - levels).astype(jnp.uint8)


def solarize_add_table(
    images: jax.Array, amount: ArrayLike, threshold: ArrayLike = 128
) -> jax.Array:
    """RandAugment's solarize_add: adds `amount`, int `[B]`, to levels below threshold; clips."""
    levels, threshold = _levels(images), _column("threshold", threshold, images)
    added = jnp.clip(levels + _column("amount", amount, images), 0, 255)
    return jnp.where(levels < threshold, added, levels).astype(jnp.uint8)


def brightness_table(images: jax.Array, factor: ArrayLike) -> jax.Array:
    """`ImageEnhance.Brightness`: a blend from black at factor 0 to the image at 1, and beyond."""
    levels = _levels(images).astype(jnp.uint8)
    return blend(jnp.zeros_like(levels), levels, factor)


def contrast_table(images: jax.Array, factor: ArrayLike) -> jax.Array:
    """`ImageEnhance.Contrast`: a blend from the mean grey at factor 0 to the image at 1."""
    levels = _levels(images).astype(jnp.uint8)
    pixels = images.shape[1] * images.shape[2]
    total = _grey(images).sum(axis=(1, 2, 3), dtype=jnp.int32)
    mean = (2 * total + pixels) // (2 * pixels)  # int(total / pixels + 0.5), up to 4 megapixels
    return blend(jnp.zeros_like(levels) + mean.astype(jnp.uint8)[:, None, None], levels, factor)


def _grey(images: jax.Array) -> jax.Array:
    """`Image.convert("L")`: uint8 `[B, H, W, 1]`."""
    if images.shape[-1] == 1:
        return images
    weighted = images.astype(jnp.int32) * jnp.array([[[[19595, 38470, 7471]]]])
    return ((weighted.sum(axis=-1, keepdims=True) + 0x8000) >> 16).astype(jnp.uint8)


def autocontrast(images: jax.Array) -> jax.Array:
    """`ImageOps.autocontrast`."""
    return lookup(images, autocontrast_table(images))


def equalize(images: jax.Array) -> jax.Array:
    """`ImageOps.equalize`."""
    return lookup(images, equalize_table(images))


def invert(images: jax.Array) -> jax.Array:
    """`ImageOps.invert`."""
    return lookup(images, invert_table(images))


def posterize(images: jax.Array, bits: ArrayLike) -> jax.Array:
    """`ImageOps.posterize`; keeps 0..8 bits."""
    return lookup(images, posterize_table(images, bits))


def solarize(images: jax.Array, threshold: ArrayLike) -> jax.Array:
    """`ImageOps.solarize`; threshold 0..256."""
    return lookup(images, solarize_table(images, threshold))


def solarize_add(images: jax.Array, amount: ArrayLike, threshold: ArrayLike = 128) -> jax.Array:
    """RandAugment's solarize_add; amount in levels."""
    return lookup(images, solarize_add_table(images, amount, threshold))


def brightness(images: jax.Array, factor: ArrayLike) -> jax.Array:
    """`ImageEnhance.Brightness(image).enhance(factor)`."""
    return lookup(images, brightness_table(images, factor))


def contrast(images: jax.Array, factor: ArrayLike) -> jax.Array:
    """`ImageEnhance.Contrast(image).enhance(factor)`."""
    return lookup(images, contrast_table(images, factor))


# Mixing neighbours and channels: small filters.

# The weights of a pixel, of the 3×3 square around it, and of the 16 pixels around that square; and
# the number of pixels next to the border that Pillow leaves unfiltered. One row per choice.
_SMOOTH = (4 / 13, 1 / 13, 0, 1)  # ImageFilter.SMOOTH is 5 and eight times 1, over 13
_FILTERS = np.array(
    [(1, 0, 0, 0), _SMOOTH, (0, 0, 1 / 16, 2), _SMOOTH, (1, 0, 0, 0)], dtype=np.float32
)


def filter_blend(images: jax.Array, choice: ArrayLike, factor: ArrayLike) -> jax.Array:
    """Applies sharpness, blur, smooth or color to each image.

    Args:
      images: uint8 `[B, H, W, C]`.
      choice: int `[B]`: IDENTITY, SHARPNESS, BLUR, SMOOTH or COLOR of this module.
      factor: `[B]`. SHARPNESS and COLOR: ImageEnhance's factor (0: smoothed or grey, 1: the image,
        2: exaggerated). BLUR and SMOOTH: `Image.blend(image, filtered, factor)`; 1: the filter.

    Returns:
      uint8 `[B, H, W, C]`.
    """
    check_images(images)
    batch, height, width, channels = images.shape
    choice = per_image("choice", choice, batch, jnp.int32)
    weights = jnp.asarray(_FILTERS)[choice][:, :, None, None, None]
    centre_weight, inner_weight, outer_weight, margin = jnp.unstack(weights, axis=1)
    is_color = (choice == COLOR)[:, None, None, None]
    is_enhance = is_color | (choice == SHARPNESS)[:, None, None, None]

    # The filters are sums of shifted copies, written so that XLA's CPU compiler vectorises the
    # complete kernel: it stores the padded copy, and a grey image or a mask computed after it would
    # be in the inner loop.
    source = jnp.where(is_color, _grey(images), images).astype(jnp.int16)
    padded = jnp.pad(source, ((0, 0), (2, 2), (2, 2), (0, 0)))
    near = _sum_of_slices(padded, (1, 2, 3), height, axis=1)
    far = _sum_of_slices(padded, (0, 4), height, axis=1)
    inner = _sum_of_slices(near, (1, 2, 3), width, axis=2)
    outer = _sum_of_slices(far, range(5), width, axis=2) + _sum_of_slices(
        near, (0, 4), width, axis=2
    )
    filtered = centre_weight * source + inner_weight * inner + outer_weight * outer
    filtered = (filtered + 0.5).astype(jnp.uint8)
    filtered = jnp.where(_border_distance(height, width, channels) >= margin, filtered, images)

    start, end = jnp.where(is_enhance, filtered, images), jnp.where(is_enhance, images, filtered)
    return blend(start, end, factor)


def _sum_of_slices(x: jax.Array, starts: Iterable[int], size: int, axis: int) -> jax.Array:
    slices = [jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i in starts]
    return functools.reduce(jnp.add, slices)


def _border_distance(height: int, width: int, channels: int) -> np.ndarray:
    """The number of pixels between each pixel and the nearest border, float32 `[1, H, W, C]`."""
    rows, columns = np.indices((height, width))
    distance = np.minimum.reduce([rows, height - 1 - rows, columns, width - 1 - columns])
    return np.repeat(distance[None, :, :, None], channels, axis=-1).astype(np.float32)


def sharpness(images: jax.Array, factor: ArrayLike) -> jax.Array:
    """`ImageEnhance.Sharpness(image).enhance(factor)`."""
    return filter_blend(images, SHARPNESS, factor)


def blur(images: jax.Array) -> jax.Array:
    """`Image.filter(ImageFilter.BLUR)`."""
    return filter_blend(images, BLUR, 1)


def smooth(images: jax.Array) -> jax.Array:
    """`Image.filter(ImageFilter.SMOOTH)`."""
    return filter_blend(images, SMOOTH, 1)


def color(images: jax.Array, factor: ArrayLike) -> jax.Array:
    """`ImageEnhance.Color(image).enhance(factor)`."""
    return filter_blend(images, COLOR, factor)
