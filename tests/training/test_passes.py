"""Tests that dropout in a network is drawn per image, whatever the image's position."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.steps import largest_difference, run_steps, weights
from helpers.tiny import build, tiny_vit
from ssljax import losses
from ssljax.training.passes import Network, _shares
from ssljax.training.replica import SINGLE, Replica


class Drawing(nn.Module):
    """A network whose logits are its random draws per image, from the image's key."""

    @nn.compact
    def __call__(self, images, *, train, keys=None):
        drawn = jax.vmap(jax.random.uniform)(keys)[:, None] if train else images[:, 0, 0]
        return drawn, drawn


def network(replica, whole, sizes, key=7):
    return Network(
        Drawing(), batch_stats={}, averaged={}, key=jax.random.PRNGKey(key), replica=replica,
        whole=whole, sizes=sizes,
    )  # fmt: skip


def drawn(parts, sizes, devices, *, whole=False):
    """Returns the draws for the images of one call, in the order of the full batch.

    Args:
      parts: the kind of each part of the call, 0: labelled, 1: unlabelled.
      sizes: numbers of images in the full batch.
    """
    local = [size // devices for size in sizes]

    def call(_):
        replica = Replica("devices", devices) if devices > 1 else SINGLE
        lengths = [sizes[p] if whole else local[p] for p in parts]
        images = jnp.zeros((sum(lengths), 1, 1, 1))
        logits, _ = network(replica, whole, tuple(local))({}, images)
        return logits[:, 0]

    if devices == 1:
        return np.asarray(call(0))
    found = np.asarray(
        jax.pmap(call, "devices", devices=jax.devices()[:devices])(np.arange(devices))
    )
    if whole:
        return found[0]
    ends = np.cumsum([local[p] for p in parts])[:-1]
    return np.concatenate([part.reshape(-1) for part in np.split(found, ends, axis=1)])


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        ((0,), (4, 12)),
        ((1,), (4, 12)),
        ((0, 1, 1), (4, 28)),  # FixMatch
        ((0, 1), (4, 28)),
        ((0, 0, 1, 1), (4, 12)),  # two views of the labelled images
        ((0, 1, 1), (4, 4)),
    ],
)
def test_an_image_draws_the_same_on_one_device_and_on_several(parts, sizes):
    one = drawn(parts, sizes, 1)
    assert len({*one.tolist()}) == len(one)
    for devices in (2, 4):
        np.testing.assert_array_equal(drawn(parts, sizes, devices), one)


def test_so_does_an_image_of_a_batch_that_every_device_holds():
    one = drawn((0, 1, 1), (4, 8), 1, whole=True)
    np.testing.assert_array_equal(drawn((0, 1, 1), (4, 8), 4, whole=True), one)


def test_shares_that_no_batch_is_of_are_one():
    assert _shares(5, 2, 6) == [5]
    assert _shares(14, 2, 6) == [2, 6, 6]


def test_each_call_and_each_step_draws_anew():
    images = jnp.zeros((3, 1, 1, 1))
    first, later = network(SINGLE, False, (3, 3)), network(SINGLE, False, (3, 3), key=8)
    found = [first({}, images)[0], first({}, images)[0], later({}, images)[0]]
    assert len({float(x) for rows in found for x in np.ravel(rows)}) == 9


def test_flax_s_own_dropout_has_a_key():
    class Dropping(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            x = nn.Dropout(0.5, deterministic=not train)(images.reshape(len(images), -1))
            return x, x

    passes = Network(
        Dropping(), batch_stats={}, averaged={}, key=jax.random.PRNGKey(0), replica=SINGLE,
        whole=False,
    )  # fmt: skip
    logits, _ = passes({}, jnp.ones((4, 8, 8, 1)))
    assert 0.3 < np.mean(np.asarray(logits) == 0) < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fixmatch", "mixmatch"])
def test_steps_with_drop_path_are_the_same_on_one_device_and_on_two(method):
    config = tiny_vit(method, drop_path=0.5, dropout=0.3)
    config.optimizer.lr = 0.01
    two, _ = run_steps(build(config, 2), 2)
    one, _ = run_steps(build(config, 1), 2)
    assert largest_difference(weights(one), weights(two)) < 2e-4


def test_a_device_mixes_its_own_rows_alone():
    seen = []

    class Pixels(nn.Module):
        @nn.compact
        def __call__(self, images, *, train):
            seen.append(images.shape)
            return images[:, 0, 0], images[:, 0, 0]

    images, lam = jnp.arange(8.0).reshape(8, 1, 1, 1), jnp.linspace(0.5, 1, 8)
    permutation = jnp.array([3, 0, 1, 7, 6, 5, 2, 4])

    def call(_):
        two = Replica("devices", 2)
        options = dict(batch_stats={}, averaged={}, key=None, replica=two, whole=True)
        mixed = losses.mixed(images, lam, permutation)
        return Network(Pixels(), **options)({}, mixed)[0][:, 0]

    found = jax.pmap(call, "devices", devices=jax.devices()[:2])(np.arange(2))
    expected = losses.mixup(images, lam, permutation)[:, 0, 0, 0]
    np.testing.assert_allclose(found, [expected, expected], rtol=1e-6)
    assert {*seen} == {(4, 1, 1, 1)}
