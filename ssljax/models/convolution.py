"""Convolutions that also train fast on CPUs, for `nn.Conv(conv_general_dilated=…)`.

On CPUs, XLA's gradient of a convolution by its kernel takes several times as long as the
convolution, and took half of a training step; as matrix products it is as fast. XLA's depthwise
convolutions take ten to twenty times as long as sums of shifted images. The results are the same up
to the order of sums. On GPUs and TPUs, XLA's convolutions and gradients are used.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_PIXELS = 2048  # pixels whose products are summed at once: they have to stay in the cache
_CHANNELS = 8  # least number of image channels; with fewer, XLA's gradient is faster
_PORTABLE = ContextVar("portable", default=False)


@contextmanager
def portable() -> Iterator[None]:
    """Within this context, each convolution is one standard operation, as exports need it."""
    token = _PORTABLE.set(True)
    try:
        yield
    finally:
        _PORTABLE.reset(token)


def conv_general_dilated(
    images: jax.Array, kernel: jax.Array, strides: Any, padding: Any, **options: Any
) -> jax.Array:
    """`lax.conv_general_dilated` for Flax: images `[N, H, W, C]`, kernel `[h, w, C, F]`."""
    plain: Callable[..., jax.Array] = partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, **options
    )
    height, width = kernel.shape[:2]
    dilations = options.get("lhs_dilation"), options.get("rhs_dilation")
    if (
        padding == "SAME"
        and height == width
        and height in (1, 3)
        and strides[0] == strides[1]
        and images.shape[3] >= _CHANNELS
        and options.get("feature_group_count", 1) == 1
        and all(d is None or set(d) == {1} for d in dilations)
    ):
        return square_conv(plain, strides[0], images, kernel)
    return plain(images, kernel)


def depthwise(
    images: jax.Array, kernel: jax.Array, strides: Any, padding: str, **options: Any
) -> jax.Array:
    """A depthwise convolution, which is also fast on CPUs in evaluation.

    Images `[N, H, W, C]`, kernel `[h, w, 1, C]` and padding "SAME" give
    `[N, ⌈H / stride⌉, ⌈W / stride⌉, C]`.
    """
    plain: Callable[..., jax.Array] = partial(
        lax.conv_general_dilated, window_strides=strides, padding=padding, **options
    )
    if _PORTABLE.get():
        return plain(images, kernel)

    def shifted(images: jax.Array, kernel: jax.Array) -> jax.Array:
        size = kernel.shape[:2]
        outs = [-(-n // stride) for n, stride in zip(images.shape[1:3], strides, strict=True)]
        total = jnp.zeros((), images.dtype)
        for place, seen in zip(np.ndindex(*size), _seen(images, outs, size, strides), strict=True):
            total = total + seen * kernel[place][None, None]
        return total

    return lax.platform_dependent(images, kernel, cpu=shifted, default=plain)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def square_conv(plain, stride, images, kernel):
    """`plain(images, kernel)`, a convolution with a kernel of 1×1 or 3×3 and padding "SAME"."""
    del stride
    return plain(images, kernel)


def _forward(plain, stride, images, kernel):
    return square_conv(plain, stride, images, kernel), (images, kernel)


def _backward(plain, stride, residuals, cotangent):
    images, kernel = residuals
    # The convolution is linear in the images and in the kernel.
    (by_images,) = jax.linear_transpose(lambda x: plain(x, kernel), images)(cotangent)

    def as_products(images, cotangent):
        size = kernel.shape[0]
        if (size, stride) == (3, 1):
            return _shifted(images, cotangent).astype(kernel.dtype)
        return _gathered(images, cotangent, size, stride).astype(kernel.dtype)

    def as_xla_does(images, cotangent):
        return jax.linear_transpose(lambda w: plain(images, w), kernel)(cotangent)[0]

    by_kernel = lax.platform_dependent(images, cotangent, cpu=as_products, default=as_xla_does)
    return by_images, by_kernel


square_conv.defvjp(_forward, _backward)


def _shifted(images, cotangent):
    """The gradient by a 3×3 kernel, for stride 1.

    The product of three shifts of the images along their rows with three shifts of the cotangent
    along its columns gives all nine positions of the kernel at once.
    """
    channels, filters = images.shape[3], cotangent.shape[3]
    height, width = images.shape[1:3]

    def factors(x, g):
        x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
        g = jnp.pad(g, ((0, 0), (1, 1), (0, 0), (0, 0)))
        x = jnp.concatenate([x[:, :, i : i + width] for i in range(3)], axis=3)
        return x, jnp.concatenate([g[:, 2 - i : 2 - i + height] for i in range(3)], axis=3)

    total = _summed(factors, images, cotangent, (3 * channels, 3 * filters))
    return total.reshape(3, channels, 3, filters).transpose(2, 0, 1, 3)


def _gathered(images, cotangent, size, stride):
    """The gradient by a kernel of `size`: the pixels under its positions, as one matrix product."""
    outs, channels, filters = cotangent.shape[1:3], images.shape[3], cotangent.shape[3]

    def factors(x, g):
        return jnp.concatenate(_seen(x, outs, (size, size), (stride, stride)), axis=3), g

    total = _summed(factors, images, cotangent, (size * size * channels, filters))
    return total.reshape(size, size, channels, filters)


def _seen(images, outs, size, strides):
    """The pixels under each position of a kernel, row by row: `[N, *outs, C]`, padded as "SAME"."""
    margins = [
        _margin(*sizes) for sizes in zip(images.shape[1:3], outs, size, strides, strict=True)
    ]
    images = jnp.pad(images, ((0, 0), *margins, (0, 0)))
    rows, columns = (stride * out for stride, out in zip(strides, outs, strict=True))
    return [
        images[:, i : i + rows : strides[0], j : j + columns : strides[1]]
        for i, j in np.ndindex(*size)
    ]


def _margin(length, out, size, stride):
    """The padding of "SAME", plus one stride that the last slice may need."""
    total = max((out - 1) * stride + size - length, 0)
    return total // 2, total - total // 2 + stride


def _summed(factors, images, cotangent, shape):
    """The products of two factors, summed over all pixels, float32; a few images at a time."""
    count, height, width, _ = cotangent.shape
    most = max(1, _PIXELS // (height * width))
    some = max(n for n in range(1, min(most, count) + 1) if count % n == 0)
    parts = [x.reshape(count // some, some, *x.shape[1:]) for x in (images, cotangent)]

    def add(total, part):
        pixels = (0, 1, 2)
        x, g = factors(*part)
        product = jnp.tensordot(x, g, (pixels, pixels), preferred_element_type=jnp.float32)
        return total + product, None

    return lax.scan(add, jnp.zeros(shape, jnp.float32), tuple(parts))[0]
