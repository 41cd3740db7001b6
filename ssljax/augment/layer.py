"""One layer of a policy: a different operation for each image, at the cost of one.

The operations of a policy share the kernels of `ops.py`. A layer runs each kernel once for the
batch. The operation drawn for an image decides the arguments of its kernel for that image; all
other kernels get the identity as argument.
"""

import functools
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp

from ssljax.augment import ops

Argument = Callable[[jax.Array, jax.Array], jax.Array]  # (images, parameter [B]) -> [B, …]


def _blended(table: Callable[[jax.Array], jax.Array]) -> Argument:
    def blend(images, level):
        identity = ops.identity_table(images.shape[0], images.shape[3])
        return ops.blend(identity, table(images), level)

    return blend


def _free(table: Callable[[jax.Array, jax.Array], jax.Array]) -> Argument:
    """A table that does not depend on the pixels is the same for all channels: `[B, 1, 256]`."""
    return lambda images, parameter: table(images[..., :1], parameter)


# The operations of each kernel. The parameter is in Pillow's units, as in `ops.py`; for blended
# operations it is the level, 0 for the original image and 1 for the operation's result.
_MATRICES: dict[str, Argument] = {
    "rotate": lambda images, degrees: ops.rotate_matrix(degrees, *images.shape[1:3]),
    "shear_x": lambda images, s: ops.shear_x_matrix(s),
    "shear_y": lambda images, s: ops.shear_y_matrix(s),
    "translate_x": lambda images, pixels: ops.translate_x_matrix(pixels),
    "translate_y": lambda images, pixels: ops.translate_y_matrix(pixels),
}
_TABLES: dict[str, Argument] = {
    "autocontrast": _blended(ops.autocontrast_table),
    "equalize": _blended(ops.equalize_table),
    "invert": _free(_blended(ops.invert_table)),
    "posterize": _free(ops.posterize_table),
    "solarize": _free(ops.solarize_table),
    "solarize_add": _free(ops.solarize_add_table),
    "brightness": _free(ops.brightness_table),
    "contrast": ops.contrast_table,
}
_FILTERS: dict[str, Argument] = {
    "sharpness": lambda images, factor: jnp.full(len(images), ops.SHARPNESS),
    "blur": lambda images, level: jnp.full(len(images), ops.BLUR),
    "smooth": lambda images, level: jnp.full(len(images), ops.SMOOTH),
    "color": lambda images, factor: jnp.full(len(images), ops.COLOR),
}
# The published code drops alpha for these: pixels that a warp left empty are black from then on.
_OPAQUE = ("autocontrast", "equalize", "invert", "posterize", "solarize", "solarize_add")


def apply_layer(
    images: jax.Array,
    op: jax.Array,
    parameter: jax.Array,
    *,
    names: Sequence[str],
    fill: int = 0,
    method: str = "nearest",
) -> jax.Array:
    """Applies one operation to each image, with one warp, one lookup and one filter_blend.

    Args:
      images: uint8 `[B, H, W, C]` with C as in Pillow's modes L, LA, RGB and RGBA: a second or
        fourth channel is alpha. Warps change it, and operations without alpha set it to 255.
      op: int32 `[B]`, index into names; any other number, or a name that is not in this file,
        does not change the image.
      parameter: float32 `[B]`, in Pillow's units.
      names: the operations that can be drawn, at most once each.
      fill: level, 0 to 255, of pixels that a warp leaves empty, in all channels.
      method: interpolation of warps, see `ops.warp`.

    Returns:
      uint8 `[B, H, W, C]`.
    """
    drawn = {name: op == index for index, name in enumerate(names)}
    warps, tables, filters, opaque = (
        {name: drawn[name] for name in kernel if name in drawn}
        for kernel in (_MATRICES, _TABLES, _FILTERS, _OPAQUE)
    )

    def warp(images):
        matrix = _select(ops.identity_matrix(len(images)), warps, _MATRICES, images, parameter)
        return ops.warp(images, matrix, fill=fill, method=method)

    def table(identity):
        return _select(identity, tables, _TABLES, colors, parameter)

    def filter_blend(colors):
        none = jnp.full(len(colors), ops.IDENTITY)
        choice = _select(none, filters, _FILTERS, colors, parameter)
        return ops.filter_blend(colors, choice, parameter)

    images = _if_any(warps, warp, images)
    channels = 1 if images.shape[-1] < 3 else 3
    colors, alpha = images[..., :channels], images[..., channels:]
    identity = ops.identity_table(len(images), channels)
    colors = ops.lookup(colors, _if_any(tables, table, identity))
    colors = _if_any(filters, filter_blend, colors)
    for chosen in opaque.values():
        alpha = jnp.where(chosen[:, None, None, None], jnp.uint8(255), alpha)
    return jnp.concatenate([colors, alpha], axis=-1)


def _select(
    identity: jax.Array,
    drawn: Mapping[str, jax.Array],
    arguments: Mapping[str, Argument],
    images: jax.Array,
    parameter: jax.Array,
) -> jax.Array:
    """A kernel's argument `[B, …]`: that of the drawn operation, or else the identity."""
    selected = identity
    for name, chosen in drawn.items():
        chosen = chosen.reshape(-1, *[1] * (identity.ndim - 1))
        selected = jnp.where(chosen, arguments[name](images, parameter), selected)
    return selected


def _if_any(
    drawn: Mapping[str, jax.Array], kernel: Callable[[jax.Array], jax.Array], x: jax.Array
) -> jax.Array:
    """`kernel(x)` if one of its operations is drawn for any image, else x.

    This saves little work, but it keeps XLA's CPU compiler from fusing the kernel with the next
    ones: fused, two gathers cost four times as much, as the first is repeated for every value that
    the second reads. A GPU would ask the host which branch to take: there `kernel(x)`, which is the
    same, is always computed, behind a barrier against fusing.
    """
    if not drawn:
        return x
    needed = jnp.any(functools.reduce(jnp.logical_or, drawn.values()))
    needed = jax.lax.platform_dependent(needed, cuda=jnp.ones_like, default=_itself)
    x = jax.lax.cond(needed, kernel, _itself, x)
    return jax.lax.platform_dependent(x, cuda=jax.lax.optimization_barrier, default=_itself)


def _itself(x: jax.Array) -> jax.Array:
    return x
