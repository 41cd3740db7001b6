"""RandAugment as in FixMatch: operations and levels are drawn uniformly, and nothing is learned."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.augment import ops
from ssljax.augment.layer import apply_layer
from ssljax.checks import check_non_negative, check_probability


class Op(NamedTuple):
    """An operation of a search space."""

    name: str  # a name in `layer.py`; "identity" is in no kernel
    parameter: Callable[[float], float] = lambda level: 1  # level -> Pillow's units
    signed: bool = False  # whether the parameter is negated with probability 0.5


class SearchSpace(NamedTuple):
    """The operations and levels that can be drawn."""

    ops: tuple[Op, ...]
    levels: tuple[float, ...]
    layers: int  # number of operations per image, drawn with replacement
    probability: float  # probability of applying each operation
    fill: int  # level, 0..255, of Cutout and of pixels that warps leave empty
    # Whether empty pixels are transparent (as in RGBA images) and filled after the last layer,
    # instead of in each warp. Operations without alpha in Pillow make them black permanently.
    transparent: bool
    cutout: int  # side of Cutout's square in pixels; 0: no Cutout
    method: str = "nearest"  # interpolation of warps


class Draws(NamedTuple):
    """The random choices for N images and L layers."""

    op: jax.Array  # [N, L] int32, index into SearchSpace.ops, -1: not applied
    level: jax.Array  # [N, L] int32, index into SearchSpace.levels
    negative: jax.Array  # [N, L] bool, whether the parameter of a signed operation is negated
    centre: jax.Array  # [N, 2] float32, row and column of Cutout as shares of H and W, in [0, 1)


# From fixmatch, libml/augment.py ("rac") and third_party/auto_augment/augmentations.py; L in 1..9.
CIFAR = SearchSpace(
    ops=(
        Op("identity"),
        Op("autocontrast"),
        Op("equalize"),
        Op("rotate", lambda level: int(3 * level), signed=True),
        Op("solarize", lambda level: 256 - int(level * 256 / 10)),
        Op("color", lambda level: level * 1.8 / 10 + 0.1),
        Op("contrast", lambda level: level * 1.8 / 10 + 0.1),
        Op("brightness", lambda level: level * 1.8 / 10 + 0.1),
        Op("sharpness", lambda level: level * 1.8 / 10 + 0.1),
        Op("shear_x", lambda level: level * 0.3 / 10, signed=True),
        Op("translate_x", lambda level: int(level), signed=True),
        Op("translate_y", lambda level: int(level), signed=True),
        Op("posterize", lambda level: 4 - int(level * 4 / 10)),
        Op("shear_y", lambda level: level * 0.3 / 10, signed=True),
    ),
    levels=tuple(range(1, 10)),
    layers=2,
    probability=0.5,
    fill=127,  # the published code, which has floats in [-1, 1], has 0 there: 127.5
    transparent=True,
    cutout=16,
)
# From fixmatch, imagenet/augment/rand_augment.py and augment_ops.py; level k/10, k in 0..10. Its
# solarize stores the threshold in 8 bits, so that 256 is 255. At 0 bits posterize gives black.
IMAGENET = SearchSpace(
    ops=(
        Op("autocontrast"),
        Op("equalize"),
        Op("invert"),
        Op("rotate", lambda level: 30 * level, signed=True),
        Op("posterize", lambda level: int(level * 4)),
        Op("solarize", lambda level: min(int(level * 256), 255)),
        Op("color", lambda level: level * 1.8 + 0.1),
        Op("contrast", lambda level: level * 1.8 + 0.1),
        Op("brightness", lambda level: level * 1.8 + 0.1),
        Op("sharpness", lambda level: level * 1.8 + 0.1),
        Op("shear_x", lambda level: level * 0.3, signed=True),
        Op("shear_y", lambda level: level * 0.3, signed=True),
        Op("translate_x", lambda level: level * 100, signed=True),
        Op("translate_y", lambda level: level * 100, signed=True),
        Op("solarize_add", lambda level: int(level * 110)),
        Op("identity"),
    ),
    levels=tuple(k / 10 for k in range(11)),
    layers=2,
    probability=0.5,
    fill=128,
    transparent=False,
    cutout=0,
)
# From CoMatch, datasets/randaugment.py: RandomAugment(2, 10), whose level is always the last. The
# published code uses OpenCV's operations; these are Pillow's.
COMATCH = SearchSpace(
    ops=(
        Op("identity"),
        Op("autocontrast"),
        Op("equalize"),
        Op("rotate", lambda level: 3 * level, signed=True),
        Op("solarize", lambda level: int(level / 10 * 256)),
        Op("color", lambda level: level / 10 * 1.8 + 0.1),
        Op("contrast", lambda level: level / 10 * 1.8 + 0.1),
        Op("brightness", lambda level: level / 10 * 1.8 + 0.1),
        Op("sharpness", lambda level: level / 10 * 1.8 + 0.1),
        Op("shear_x", lambda level: level / 10 * 0.3, signed=True),
        Op("translate_x", lambda level: level, signed=True),
        Op("translate_y", lambda level: level, signed=True),
        Op("posterize", lambda level: int(level / 10 * 4)),
        Op("shear_y", lambda level: level / 10 * 0.3, signed=True),
    ),
    levels=(10,),
    layers=2,
    probability=0.5,
    fill=128,
    transparent=False,
    cutout=16,
    method="bilinear",
)
SEARCH_SPACES = {"cifar": CIFAR, "imagenet": IMAGENET, "comatch": COMATCH}


def randaugment(
    keys: jax.Array,
    images: jax.Array,
    *,
    space: SearchSpace,
    layers: int | None = None,
    probability: float | None = None,
    magnitude: float | None = None,
    num_levels: int | None = None,
) -> jax.Array:
    """Applies random operations, then Cutout.

    Args:
      keys: `[N]`, one per image.
      images: uint8 `[N, H, W, 1 or 3]`.
      space: CIFAR, IMAGENET or another search space.
      layers: number of operations; None, here and below: the value of the space.
      probability: probability of applying each operation, 0..1.
      magnitude: one level, in the space's scale, for all operations.
      num_levels: n, to draw levels from 0, 1/n, …, 1.

    Returns:
      uint8, the images' shape.
    """
    space = adapted(
        space,
        layers=layers,
        probability=probability,
        magnitude=magnitude,
        num_levels=num_levels,
    )
    return apply(images, draw(keys, space), space)


def adapted(
    space: SearchSpace,
    *,
    layers: int | None = None,
    probability: float | None = None,
    magnitude: float | None = None,
    num_levels: int | None = None,
) -> SearchSpace:
    """A search space with other values; the arguments are those of `randaugment`.

    Raises:
      ValueError: layers or the probability is out of range.
    """
    if num_levels is not None:
        space = space._replace(levels=tuple(k / num_levels for k in range(num_levels + 1)))
    space = space._replace(
        layers=space.layers if layers is None else layers,
        probability=space.probability if probability is None else probability,
        levels=space.levels if magnitude is None else (magnitude,),
    )
    check_non_negative(layers=space.layers)
    check_probability(probability=space.probability)
    return space


def draw(keys: jax.Array, space: SearchSpace) -> Draws:
    """Draws the choices for N images from `keys [N]`."""
    numbers = (uniform_numbers(space),)
    return from_uniform(jax.vmap(lambda key: jax.random.uniform(key, numbers))(keys), space)


def uniform_numbers(space: SearchSpace) -> int:
    """The number of random numbers per image."""
    return 4 * space.layers + 2


def from_uniform(uniform: jax.Array, space: SearchSpace) -> Draws:
    """The choices for N images from numbers in [0, 1), `[N, uniform_numbers(space)]`."""
    op, applied, level, sign = jnp.split(uniform[:, :-2], 4, axis=1)
    op = jnp.floor(op * len(space.ops)).astype(jnp.int32)
    return Draws(
        op=jnp.where(applied < space.probability, op, -1),
        level=jnp.floor(level * len(space.levels)).astype(jnp.int32),
        negative=sign < 0.5,
        centre=uniform[:, -2:],
    )


def apply(images: jax.Array, draws: Draws, space: SearchSpace) -> jax.Array:
    """Applies the choices to `images [N, H, W, 1 or 3]` uint8.

    Raises:
      ValueError: Cutout is as large as the images.
    """
    height, width = images.shape[1:3]
    if space.cutout >= min(height, width):
        raise ValueError(
            f"space has a Cutout of {space.cutout} pixels; allowed for images of "
            f"{height}×{width}: less than {min(height, width)}"
        )
    # Python's doubles, as in the published code: int(level * 256 / 10) is sensitive to rounding.
    table = np.array([[op.parameter(x) for x in space.levels] for op in space.ops], np.float32)
    parameter = jnp.asarray(table)[draws.op, draws.level]
    signed = jnp.asarray([op.signed for op in space.ops])[draws.op]
    parameter = jnp.where(signed & draws.negative, -parameter, parameter)

    channels = images.shape[-1]
    if space.transparent:
        alpha = jnp.full((*images.shape[:3], 1), 255, jnp.uint8)
        images = jnp.concatenate([images, alpha], axis=-1)
    names = [op.name for op in space.ops]
    fill = 0 if space.transparent else space.fill
    images, _ = jax.lax.scan(
        lambda x, drawn: (
            apply_layer(x, *drawn, names=names, fill=fill, method=space.method),
            None,
        ),
        images,
        (draws.op.T, parameter.T),
    )
    if space.transparent:
        empty = images[..., channels:] == 0
        images = jnp.where(empty, jnp.uint8(space.fill), images[..., :channels])
    if not space.cutout:
        return images
    centre = jnp.floor(draws.centre * jnp.array([[height, width]])).astype(jnp.int32)
    return ops.cutout(images, space.cutout, centre, fill=space.fill)


def magnitude_grid(images: jax.Array, space: SearchSpace) -> dict[str, jax.Array]:
    """Each operation's name -> the single image of `images` at each level, without Cutout."""
    op, level = np.indices((len(space.ops), len(space.levels))).reshape(2, -1, 1)
    draws = Draws(
        op=jnp.asarray(op),
        level=jnp.asarray(level),
        negative=jnp.zeros(op.shape, bool),
        centre=jnp.zeros((len(op), 2)),
    )
    images = apply(jnp.repeat(images, len(op), axis=0), draws, space._replace(cutout=0))
    rows = images.reshape(len(space.ops), len(space.levels), *images.shape[1:])
    return {op.name: row for op, row in zip(space.ops, rows, strict=True)}


def magnitudes(space: SearchSpace) -> dict[str, list[float]]:
    """The parameter of each image of `magnitude_grid`, in Pillow's units."""
    return {op.name: [op.parameter(level) for level in space.levels] for op in space.ops}
