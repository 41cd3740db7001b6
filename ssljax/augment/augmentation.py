"""`config.augment` -> the views of a run, and how they learn.

`config.augment.strong` names a function of this file. Each is given the weak view and the name of
the data set's recipe, and returns an `Augmentation`.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.augment import ctaugment as cta
from ssljax.augment import heat_map, policies
from ssljax.augment import randaugment as ra
from ssljax.augment.ctaugment_recipes import RECIPES

PyTree = Any
# One random key an image `[N]`, images `[N, H, W, C]` uint8 -> augmented images, same shape.
View = Callable[[jax.Array, jax.Array], jax.Array]


def _no_state() -> PyTree:
    return ()


class Augmentation(NamedTuple):
    """The views of a run. What an augmentation has learned is its state, a pytree.

    One that learns has `probe` and `update`: the step applies `probe` to labelled images, has the
    EMA model classify them, and passes `update` the probability of each true label.
    """

    views: Callable[[PyTree], Mapping[str, View]]  # state -> {"weak", "strong"}
    # A batch of one image -> each operation's name and the image at increasing magnitudes.
    ladder: Callable[[jax.Array], Mapping[str, jax.Array]]
    init: Callable[[], PyTree] = _no_state
    # (keys [N], images [N, H, W, C], state) -> images, what was applied: a pytree of [N, …]
    probe: Callable[[jax.Array, jax.Array, PyTree], tuple[jax.Array, PyTree]] | None = None
    # (state, what was applied, match [N] in 0..1) -> state
    update: Callable[[PyTree, PyTree, jax.Array], PyTree] | None = None
    # The state as a picture: uint8 [height, width, 3].
    picture: Callable[[PyTree], np.ndarray] | None = None


def none(weak: View, recipe: str) -> Augmentation:
    """Strong views are weak ones."""
    del recipe
    return Augmentation(lambda state: {"weak": weak, "strong": weak}, lambda image: {})


def strong_digits(weak: View, recipe: str) -> Augmentation:
    """The strong view for images of 8×8 pixels, which needs no weak one before it."""
    del recipe
    views = {"weak": weak, "strong": policies.strong_digits}
    return Augmentation(lambda state: views, policies.digits_ladder)


def randaugment(weak: View, recipe: str) -> Augmentation:
    """The weak view, then RandAugment; recipes: cifar, imagenet."""
    strong = _after(weak, partial(ra.randaugment, recipe=_recipe(recipe, ra.RECIPES)))
    views = {"weak": weak, "strong": strong}
    return Augmentation(lambda state: views, partial(ra.ladder, recipe=ra.RECIPES[recipe]))


def ctaugment(weak: View, recipe: str) -> Augmentation:
    """The weak view, then CTAugment; recipes: cifar, imagenet. The state is its rates."""
    chosen = _recipe(recipe, RECIPES)

    def views(rates):
        def learned(keys, images):
            return cta.apply(images, cta.sample(keys, rates, chosen, probe=False), chosen)

        return {"weak": weak, "strong": _after(weak, learned)}

    def probe(keys, images, rates):
        weak_keys, keys = _split(keys)
        policy = cta.sample(keys, rates, chosen, probe=True)
        return cta.apply(weak(weak_keys, images), policy, chosen), policy

    return Augmentation(
        views,
        ladder=partial(cta.ladder, recipe=chosen),
        init=partial(cta.init, chosen),
        probe=probe,
        update=partial(cta.update, recipe=chosen),
        picture=partial(heat_map.draw, recipe=chosen),
    )


def _recipe(name, recipes):
    if name not in recipes:
        raise ValueError(f"recipe is {name!r}; allowed: {', '.join(recipes)}")
    return recipes[name]


def _after(first: View, second: View) -> View:
    def both(keys, images):
        first_keys, second_keys = _split(keys)
        return second(second_keys, first(first_keys, images))

    return both


def _split(keys):
    """Two independent keys for each image: `[N]` -> `[N]`, `[N]`."""
    return jnp.unstack(jax.vmap(jax.random.split)(keys), axis=1)
