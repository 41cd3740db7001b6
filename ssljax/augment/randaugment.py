"""RandAugment as FixMatch uses it: operations and levels drawn uniformly, nothing learned."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.augment import ops
from ssljax.augment.layer import apply_layer


class Op(NamedTuple):
    """An operation of a recipe."""

    name: str  # in `layer.py`; "identity" is in no kernel
    parameter: Callable[[float], float] = lambda level: 1  # level -> Pillow's units
    signed: bool = False  # negated half of the time


class Recipe(NamedTuple):
    """What can be drawn."""

    ops: tuple[Op, ...]
    levels: tuple[float, ...]
    layers: int  # operations drawn for an image, with replacement
    probability: float  # of applying each of them
    fill: int  # level, 0..255, of what warps leave empty and of Cutout
    # Whether it is filled after the last layer, as what RGBA images have transparent, instead of
    # in each warp. Operations that Pillow does without alpha make it black for good.
    transparent: bool
    cutout: int  # side of Cutout's square in pixels; 0: no Cutout


class Draws(NamedTuple):
    """What was drawn for N images and L layers."""

    op: jax.Array  # [N, L] int32, index into Recipe.ops, -1: not applied
    level: jax.Array  # [N, L] int32, index into Recipe.levels
    negative: jax.Array  # [N, L] bool, whether the parameter of a signed operation is negated
    centre: jax.Array  # [N, 2] float32, row and column of Cutout as shares of H and W, in [0, 1)


# fixmatch, libml/augment.py ("rac") and third_party/auto_augment/augmentations.py; L in 1..9.
CIFAR = Recipe(
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
    fill=127,  # the published float code has 127.5, [-1, 1]'s zero
    transparent=True,
    cutout=16,
)
# fixmatch, imagenet/augment/rand_augment.py and augment_ops.py; level k/10, k in 0..10. Its
# solarize stores the threshold in 8 bits, so that 256 is 255. At 0 bits posterize gives black.
IMAGENET = Recipe(
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
RECIPES = {"cifar": CIFAR, "imagenet": IMAGENET}


def randaugment(
    keys: jax.Array,
    images: jax.Array,
    *,
    recipe: Recipe,
    layers: int | None = None,
    probability: float | None = None,
    magnitude: float | None = None,
    num_levels: int | None = None,
) -> jax.Array:
    """Applies random operations, then Cutout.

    Args:
      keys: `[N]`, one an image.
      images: uint8 `[N, H, W, 1 or 3]`.
      recipe: CIFAR or IMAGENET, or one like them.
      layers: how many operations; None, here and below: as in the recipe.
      probability: of applying each, 0..1.
      magnitude: one level, in the recipe's scale, for all operations.
      num_levels: n, to draw levels from 0, 1/n, …, 1.

    Returns:
      uint8, the images' shape.
    """
    recipe = adapted(
        recipe,
        layers=layers,
        probability=probability,
        magnitude=magnitude,
        num_levels=num_levels,
    )
    return apply(images, draw(keys, recipe), recipe)


def adapted(
    recipe: Recipe,
    *,
    layers: int | None = None,
    probability: float | None = None,
    magnitude: float | None = None,
    num_levels: int | None = None,
) -> Recipe:
    """A recipe with other numbers; the arguments are those of `randaugment`.

    Raises:
      ValueError: layers or the probability is out of range.
    """
    if num_levels is not None:
        recipe = recipe._replace(levels=tuple(k / num_levels for k in range(num_levels + 1)))
    recipe = recipe._replace(
        layers=recipe.layers if layers is None else layers,
        probability=recipe.probability if probability is None else probability,
        levels=recipe.levels if magnitude is None else (magnitude,),
    )
    if recipe.layers < 0:
        raise ValueError(f"layers is {recipe.layers}; allowed: from 0 up")
    if not 0 <= recipe.probability <= 1:
        raise ValueError(f"probability is {recipe.probability}; allowed: 0 to 1")
    return recipe


def draw(keys: jax.Array, recipe: Recipe) -> Draws:
    """Draws for N images from `keys [N]`."""
    numbers = (uniform_numbers(recipe),)
    return from_uniform(jax.vmap(lambda key: jax.random.uniform(key, numbers))(keys), recipe)


def uniform_numbers(recipe: Recipe) -> int:
    """How many random numbers an image takes."""
    return 4 * recipe.layers + 2


def from_uniform(uniform: jax.Array, recipe: Recipe) -> Draws:
    """Draws for N images from numbers in [0, 1), `[N, uniform_numbers(recipe)]`."""
    op, applied, level, sign = jnp.split(uniform[:, :-2], 4, axis=1)
    op = jnp.floor(op * len(recipe.ops)).astype(jnp.int32)
    return Draws(
        op=jnp.where(applied < recipe.probability, op, -1),
        level=jnp.floor(level * len(recipe.levels)).astype(jnp.int32),
        negative=sign < 0.5,
        centre=uniform[:, -2:],
    )


def apply(images: jax.Array, draws: Draws, recipe: Recipe) -> jax.Array:
    """Applies to `images [N, H, W, 1 or 3]` uint8 what was drawn.

    Raises:
      ValueError: Cutout is as large as the images.
    """
    height, width = images.shape[1:3]
    if recipe.cutout >= min(height, width):
        raise ValueError(
            f"recipe has a Cutout of {recipe.cutout} pixels; allowed for images of "
            f"{height}×{width}: less than {min(height, width)}"
        )
    # In Python's doubles, as published: int(level * 256 / 10) is sensitive to rounding.
    table = np.array([[op.parameter(x) for x in recipe.levels] for op in recipe.ops], np.float32)
    parameter = jnp.asarray(table)[draws.op, draws.level]
    signed = jnp.asarray([op.signed for op in recipe.ops])[draws.op]
    parameter = jnp.where(signed & draws.negative, -parameter, parameter)

    channels = images.shape[-1]
    if recipe.transparent:
        alpha = jnp.full((*images.shape[:3], 1), 255, jnp.uint8)
        images = jnp.concatenate([images, alpha], axis=-1)
    names = [op.name for op in recipe.ops]
    fill = 0 if recipe.transparent else recipe.fill
    images, _ = jax.lax.scan(
        lambda x, drawn: (apply_layer(x, *drawn, names=names, fill=fill), None),
        images,
        (draws.op.T, parameter.T),
    )
    if recipe.transparent:
        empty = images[..., channels:] == 0
        images = jnp.where(empty, jnp.uint8(recipe.fill), images[..., :channels])
    if not recipe.cutout:
        return images
    centre = jnp.floor(draws.centre * jnp.array([[height, width]])).astype(jnp.int32)
    return ops.cutout(images, recipe.cutout, centre, fill=recipe.fill)


def ladder(images: jax.Array, recipe: Recipe) -> dict[str, jax.Array]:
    """Each operation's name, and the one image at each level of the recipe, without Cutout."""
    op, level = np.indices((len(recipe.ops), len(recipe.levels))).reshape(2, -1, 1)
    draws = Draws(
        op=jnp.asarray(op),
        level=jnp.asarray(level),
        negative=jnp.zeros(op.shape, bool),
        centre=jnp.zeros((len(op), 2)),
    )
    images = apply(jnp.repeat(images, len(op), axis=0), draws, recipe._replace(cutout=0))
    rows = images.reshape(len(recipe.ops), len(recipe.levels), *images.shape[1:])
    return {op.name: row for op, row in zip(recipe.ops, rows, strict=True)}
