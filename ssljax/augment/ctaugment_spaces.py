"""The published search spaces of CTAugment, and how it learns in them.

CIFAR is from fixmatch, libml/ctaugment.py; REMIXMATCH from remixmatch, libml/ctaugment.py; IMAGENET
from fixmatch, imagenet/augment/ct_augment.py.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class BinnedOp(NamedTuple):
    """An operation of a search space, whose levels are divided into bins."""

    name: str  # a name in `layer.py`, or rescale, cutout or identity
    bins: tuple[int, ...]  # number of bins per level; (): learns nothing
    parameter: Callable[[jax.Array], jax.Array]  # level in [0, 1) -> Pillow's units


class SearchSpace(NamedTuple):
    """The operations that can be drawn, and how their rates are learned."""

    ops: tuple[BinnedOp, ...]
    depth: int  # number of operations per image, drawn with replacement
    probability: float  # probability of applying each operation to a training view; probes: 1
    threshold: float  # bins whose rate is below this fraction of the best are not drawn
    decay: float  # decay of the moving average that a rate is
    epsilon: float  # least rate, and the addend of each probability; 0: see `probabilities`
    average: bool  # whether a step's updates of a bin are averaged, or applied one after another
    bin_share: float  # share of the bins that a level just below 1 reaches
    cutout: float  # level of the final Cutout of training views; 0: none
    fill: int  # level, 0..255, of the pixels that warps leave empty
    between: bool = False  # whether levels are drawn between the centres of neighbouring bins


def _level(level):
    return level


def _enhance(level):
    return 0.1 + 1.9 * level


def _signed(extreme):
    return lambda level: (2 * level - 1) * extreme


def _whole(scale, *, start=0):
    return lambda level: start + jnp.floor(scale * level)


def _rotate_cifar(level):
    return jnp.round((2 * level - 1) * 45)


CIFAR = SearchSpace(
    ops=(
        BinnedOp("autocontrast", (17,), _level),
        BinnedOp("blur", (17,), _level),
        BinnedOp("brightness", (17,), _enhance),
        BinnedOp("color", (17,), _enhance),
        BinnedOp("contrast", (17,), _enhance),
        BinnedOp("cutout", (17,), _level),
        BinnedOp("equalize", (17,), _level),
        BinnedOp("invert", (17,), _level),
        BinnedOp("identity", (), _level),
        BinnedOp("posterize", (8,), _whole(7.999, start=1)),
        BinnedOp("rescale", (17, 6), _level),
        BinnedOp("rotate", (17,), _rotate_cifar),
        BinnedOp("sharpness", (17,), _enhance),
        BinnedOp("shear_x", (17,), _signed(0.3)),
        BinnedOp("shear_y", (17,), _signed(0.3)),
        BinnedOp("smooth", (17,), _level),
        BinnedOp("solarize", (17,), _whole(255.999)),
        # The published code takes these as pixels: with nearest neighbours they change nothing.
        BinnedOp("translate_x", (17,), _signed(0.3)),
        BinnedOp("translate_y", (17,), _signed(0.3)),
    ),
    depth=2,
    probability=1.0,
    threshold=0.80,
    decay=0.99,
    epsilon=0.0,
    average=False,
    bin_share=0.999,
    cutout=1.0,
    fill=0,
)

REMIXMATCH = CIFAR._replace(cutout=0.0, between=True)


def _reversed(level):
    """The published blends of this space go from the operation, at 0, to the image, at 1."""
    return 1 - level


# The pixels differ from the published code: its rescale crops only the top and left sides, and its
# blur and smooth filter the border too. Here these operations are Pillow's, as for CIFAR.
IMAGENET = SearchSpace(
    ops=(
        BinnedOp("autocontrast", (15,), _reversed),
        BinnedOp("blur", (15,), _level),
        BinnedOp("brightness", (15,), _enhance),
        BinnedOp("color", (15,), _enhance),
        BinnedOp("contrast", (15,), _enhance),
        BinnedOp("equalize", (15,), _reversed),
        BinnedOp("invert", (15,), _reversed),
        BinnedOp("identity", (15,), _level),
        BinnedOp("posterize", (15,), _whole(7.999, start=1)),
        BinnedOp("rescale", (15,), _level),  # always bicubic
        BinnedOp("rotate", (15,), _signed(45)),
        BinnedOp("sharpness", (15,), _enhance),
        BinnedOp("shear_x", (15,), _signed(0.3)),
        BinnedOp("shear_y", (15,), _signed(0.3)),
        BinnedOp("smooth", (15,), _level),
        BinnedOp("solarize", (15,), _whole(256)),
        BinnedOp("solarize_add", (15,), _whole(110)),
        BinnedOp("translate_x", (15,), _signed(100)),
        BinnedOp("translate_y", (15,), _signed(100)),
    ),
    depth=2,
    probability=0.5,
    threshold=0.85,
    decay=0.99,
    epsilon=0.001,
    average=True,
    bin_share=1.0,
    cutout=0.0,
    fill=128,
)
SEARCH_SPACES = {"cifar": CIFAR, "remixmatch": REMIXMATCH, "imagenet": IMAGENET}
