"""Turns `config.augment` into the views of a run, and how they learn.

`config.augment.strong` names a function of this file. Each function takes the weak view, the name
of the search space for the data set (`recipe`) and optional arguments, which are config fields, and
returns an `Augmentation`. These arguments have their names from FixMatch's ImageNet code; None
means the value of the search space.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.augment import ctaugment as learned_policy
from ssljax.augment import heat_map, policies, usb
from ssljax.augment import randaugment as ra
from ssljax.augment.ctaugment_spaces import SEARCH_SPACES
from ssljax.checks import check_choice, check_range

PyTree = Any
# One random key per image `[N]`, images `[N, H, W, C]` uint8 -> augmented images, same shape.
View = Callable[[jax.Array, jax.Array], jax.Array]


def _no_state() -> PyTree:
    return ()


class Augmentation(NamedTuple):
    """The views of a run. An augmentation that learns has a state, a pytree.

    Such an augmentation has `probe` and `update`: the step applies `probe` to labelled images, has
    the EMA model classify them, and passes `update` the probability of each true label.
    """

    views: Callable[[PyTree], Mapping[str, View]]  # state -> {"weak", "strong"}
    # A batch of one image -> per operation, its name and the image at increasing magnitudes.
    magnitude_grid: Callable[[jax.Array], Mapping[str, jax.Array]]
    # The parameters with which `magnitude_grid` shows an operation, in the units of its kernel.
    magnitudes: Callable[[], Mapping[str, Sequence[float]]] = dict
    init: Callable[[], PyTree] = _no_state
    # (keys [N], images [N, H, W, C], state) -> images, applied operations (a pytree of [N, …])
    probe: Callable[[jax.Array, jax.Array, PyTree], tuple[jax.Array, PyTree]] | None = None
    # (state, applied operations, match [N] in 0..1) -> state
    update: Callable[[PyTree, PyTree, jax.Array], PyTree] | None = None
    # The state as a picture: uint8 [height, width, 3].
    picture: Callable[[PyTree], np.ndarray] | None = None


def none(weak: View, recipe: str) -> Augmentation:
    """Strong views are weak ones."""
    del recipe
    return Augmentation(lambda state: {"weak": weak, "strong": weak}, lambda image: {})


def horizontal_flip(weak: View, recipe: str) -> Augmentation:
    """Both views are weak views, mirrored with probability 0.5."""
    del recipe
    both = _after(weak, policies.flip)
    return Augmentation(lambda state: {"weak": both, "strong": both}, lambda image: {})


def strong_digits(weak: View, recipe: str) -> Augmentation:
    """The strong view for images of 8×8 pixels, which does not start from a weak view."""
    del recipe
    views = {"weak": weak, "strong": policies.strong_digits}
    return Augmentation(
        lambda state: views, policies.digits_magnitude_grid, policies.digits_magnitudes
    )


def randaugment(
    weak: View,
    recipe: str,
    *,
    randaugment_num_layers: int | None = None,
    randaugment_prob_to_apply: float | None = None,
    randaugment_magnitude: float | None = None,
    randaugment_num_levels: int | None = None,
) -> Augmentation:
    """The weak view, then RandAugment; spaces: cifar, imagenet, comatch.

    Args:
      randaugment_num_layers: number of operations per image.
      randaugment_prob_to_apply: probability of applying each operation, 0..1.
      randaugment_magnitude: one level for all operations, 0..1 for imagenet, 1..9 for cifar, 0..10
        for comatch.
      randaugment_num_levels: n, to draw levels from 0, 1/n, …, 1; imagenet only.
    """
    _require("randaugment_num_layers", randaugment_num_layers, 0, math.inf)
    _require("randaugment_prob_to_apply", randaugment_prob_to_apply, 0, 1)
    space = _space(recipe, ra.SEARCH_SPACES)
    _require("randaugment_magnitude", randaugment_magnitude, 0, int(max(space.levels)))
    _require("randaugment_num_levels", randaugment_num_levels, 1, math.inf)
    strong = partial(
        ra.randaugment,
        space=space,
        layers=randaugment_num_layers,
        probability=randaugment_prob_to_apply,
        magnitude=randaugment_magnitude,
        num_levels=randaugment_num_levels,
    )
    if randaugment_num_levels is not None and recipe != "imagenet":
        raise ValueError("randaugment_num_levels is of recipe imagenet only")
    views = {"weak": weak, "strong": _after(weak, strong)}
    return Augmentation(
        lambda state: views,
        partial(ra.magnitude_grid, space=space),
        partial(ra.magnitudes, space),
    )


def usb_randaugment(weak: View, recipe: str) -> Augmentation:
    """The weak view, then USB's RandAugment; recipes: cifar, and no_color (TissueMNIST)."""
    space = _space(recipe, usb.SPACES)
    views = {"weak": weak, "strong": _after(weak, partial(usb.randaugment, ops=space))}
    return Augmentation(
        lambda state: views, partial(usb.magnitude_grid, ops=space), partial(usb.magnitudes, space)
    )


def ctaugment(
    weak: View,
    recipe: str,
    *,
    cta_num_layers: int | None = None,
    cta_confidence_threshold: float | None = None,
    cta_decay: float | None = None,
    cta_epsilon: float | None = None,
    cta_prob_to_apply: float | None = None,
    cta_num_levels: int | None = None,
) -> Augmentation:
    """The weak view, then CTAugment; spaces: cifar, remixmatch, imagenet. The state is its rates.

    Args:
      cta_num_layers: number of operations per image.
      cta_confidence_threshold: bins whose rate is below this fraction of the best are not drawn.
      cta_decay: decay of the moving averages that the rates are, 0..1.
      cta_epsilon: least rate.
      cta_prob_to_apply: probability of applying each operation to a training view, 0..1.
      cta_num_levels: number of bins per level.
    """
    _require("cta_num_layers", cta_num_layers, 1, math.inf)
    _require("cta_confidence_threshold", cta_confidence_threshold, 0, 1)
    _require("cta_decay", cta_decay, 0, 1)
    _require("cta_epsilon", cta_epsilon, 0, 1)
    _require("cta_prob_to_apply", cta_prob_to_apply, 0, 1)
    _require("cta_num_levels", cta_num_levels, 2, math.inf)
    given = {
        "depth": cta_num_layers,
        "threshold": cta_confidence_threshold,
        "decay": cta_decay,
        "epsilon": cta_epsilon,
        "probability": cta_prob_to_apply,
    }
    chosen = _space(recipe, SEARCH_SPACES)
    chosen = chosen._replace(**{name: x for name, x in given.items() if x is not None})
    if cta_num_levels is not None:
        bins = [(cta_num_levels,) * len(op.bins) for op in chosen.ops]
        ops = (op._replace(bins=b) for op, b in zip(chosen.ops, bins, strict=True))
        chosen = chosen._replace(ops=tuple(ops))

    def views(rates):
        def learned(keys, images):
            return learned_policy.apply(
                images, learned_policy.sample(keys, rates, chosen, probe=False), chosen
            )

        return {"weak": weak, "strong": _after(weak, learned)}

    def probe(keys, images, rates):
        weak_keys, keys = _split(keys)
        policy = learned_policy.sample(keys, rates, chosen, probe=True)
        return learned_policy.apply(weak(weak_keys, images), policy, chosen), policy

    return Augmentation(
        views,
        magnitude_grid=partial(learned_policy.magnitude_grid, space=chosen),
        magnitudes=partial(learned_policy.magnitudes, chosen),
        init=partial(learned_policy.init, chosen),
        probe=probe,
        update=partial(learned_policy.update, space=chosen),
        picture=partial(heat_map.draw, space=chosen),
    )


# The names in FixMatch's ImageNet code.
noop = partial(none)
cta = partial(ctaugment)


def _require(name, value, low, high):
    if value is not None:
        check_range(name, value, low, high)


def _space(name, spaces):
    check_choice("recipe", name, spaces)
    return spaces[name]


def _after(first: View, second: View) -> View:
    def both(keys, images):
        first_keys, second_keys = _split(keys)
        return second(second_keys, first(first_keys, images))

    return both


def _split(keys):
    """Two independent keys for each image: `[N]` -> `[N]`, `[N]`."""
    return jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
