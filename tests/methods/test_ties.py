"""A guess that is exactly at its threshold: of two classes without any weights, each has 0.5."""

import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.methods.method import Batch, Progress, Sizes

B, M, CLASSES, WIDTH = 2, 4, 2, 3
SIZES = Sizes(CLASSES, np.array([1, 1]), M, (B, M))


class Zeros:
    """A network whose logits and features are 0."""

    def __call__(self, params, images):
        return jnp.zeros((len(images), CLASSES)), {}

    def with_features(self, params, images):
        return jnp.zeros((len(images), CLASSES)), jnp.zeros((len(images), WIDTH)), {}

    def evaluate(self, params, images):
        return self.with_features(params, images)[:2]


def images(n):
    return jnp.zeros((n, 1, 1, 1))


def aux_of(name, arguments, state):
    """What the loss of a method returns beside its value.

    Args:
      state: the method's, or where it is a dict those parts of it that are not the initial ones;
        None: the initial state.
    """
    method = getattr(importlib.import_module(f"ssljax.methods.{name}"), name)(**arguments)
    initial = method.init(SIZES)
    key = jax.random.PRNGKey(0)
    drawn = [head.init(key, WIDTH, CLASSES) for head in method.heads]
    params = {"heads": {head.name: w for head, w in zip(method.heads, drawn, strict=True)}}
    batch = Batch(
        labeled=images(B),
        labels=jnp.arange(B),
        views=tuple(images(M) for _ in method.views),
        labeled_index=jnp.arange(B),
        unlabeled_index=jnp.arange(M),
        more_labeled=tuple(images(B) for _ in method.more_labeled_views),
    )
    state = initial if state is None else jax.tree.map(jnp.asarray, initial | state)
    step = 4 if name == "dash" else 0
    progress = Progress(jnp.float32(step * B), jnp.float32(0), jnp.int32(step))

    @jax.jit
    def aux():
        noise = method.noise(key, batch)
        return method.loss(params, params, Zeros(), batch, noise, state, progress)[1]

    return aux()


@pytest.mark.parametrize(
    ("name", "arguments", "state", "counted"),
    [
        ("flexmatch", {"threshold": 0.5}, {"share": np.float32([1, 1])}, M),
        ("flexmatch", {"threshold": 0.50001}, {"share": np.float32([1, 1])}, 0),
        ("freematch", {"momentum": 0.5}, {"threshold": 0.5}, M),
        ("freematch", {"momentum": 0.5}, {"threshold": 0.50001}, 0),
        ("adamatch", {"threshold": 1.0}, {}, M),
        ("adamatch", {"threshold": 1.0, "variant": "usb"}, {}, M),
        # Dash counts what is below.
        ("dash", {"min_threshold": math.log(2), "start_epoch": 1, "epoch_images": 1}, {}, 0),
        ("dash", {"min_threshold": 0.69315, "start_epoch": 1, "epoch_images": 1}, {}, M),
        ("debiaspl", {"threshold": 0.5}, None, M),
        ("debiaspl", {"threshold": 0.50001}, None, 0),
        ("simmatch", {"threshold": 0.5, "embedding": 2}, {}, M),
        ("simmatch", {"threshold": 0.50001, "embedding": 2}, {}, 0),
        ("comatch", {"threshold": 0.5, "embedding": 2}, {}, M),
        ("comatch", {"threshold": 0.50001, "embedding": 2}, {}, 0),
        ("crest", {"threshold": 0.5}, {}, M),
        ("crest", {"threshold": 0.50001}, {}, 0),
        ("softmatch", {"momentum": 0.5}, {"mean": 0.5}, M),  # at the average, a weight is 1
        ("abc", {"threshold": 0.5}, {}, M),
        ("abc", {"threshold": 0.50001}, {}, 0),
        ("iomatch", {"threshold": 0.5}, {}, 0),  # belonging is a tie too: it is foreign
    ],
)
def test_a_guess_at_the_threshold(name, arguments, state, counted):
    mask = aux_of(name, arguments, state).mask
    assert mask.sum() == counted
    assert mask.dtype == jnp.float32


@pytest.mark.parametrize(("threshold", "chosen"), [(0.5, 0), (0.50001, -1)])
def test_flexmatch_remembers_a_guess_at_the_threshold(threshold, chosen):
    aux = aux_of("flexmatch", {"threshold": threshold}, {})
    np.testing.assert_array_equal(aux.state["chosen"], np.full(M, chosen))
