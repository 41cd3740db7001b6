"""Tests batches by step number: exact epochs, random orders, no overflow in long runs."""

from functools import partial
from itertools import count, pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.data import sampling
from ssljax.data.sampling import _permute, batch_positions

KEY = jax.random.PRNGKey(0)


@partial(jax.jit, static_argnames=("size", "batch", "steps"))
def batches(key, *, size, batch, steps):
    """Returns the positions of steps 0, 1, … `[steps, batch]`."""
    return jax.vmap(lambda t: batch_positions(key, t, size=size, batch=batch))(jnp.arange(steps))


def epochs(key):
    """Returns a thousand epochs of 50 `[1000, 50]`; one size only, because each is compiled."""
    return np.asarray(batches(key, size=50, batch=50, steps=1000)).astype(np.int64)


# Batches shorter and longer than an epoch that do not divide it; 16 fills the cipher's domain.
@pytest.mark.parametrize(("size", "batch"), [(1, 3), (16, 5), (50, 64)])
def test_every_epoch_is_a_permutation(size, batch):
    steps = -(-6 * size // batch)  # at least six epochs
    positions = np.asarray(batches(KEY, size=size, batch=batch, steps=steps)).reshape(-1)
    for epoch in positions[: 6 * size].reshape(6, size):
        assert sorted(epoch) == list(range(size))


def test_the_sequence_does_not_depend_on_the_batch_size():
    # The same endless sequence, read in pieces of 64 or 50.
    one = np.asarray(batches(KEY, size=50, batch=64, steps=5)).reshape(-1)
    np.testing.assert_array_equal(one[:300], epochs(KEY)[:6].reshape(-1))


def test_two_epochs_and_two_keys_differ():
    first, second, *_ = epochs(KEY)
    other, *_ = epochs(jax.random.PRNGKey(1))
    # Two independent orders agree at one position on average.
    for a, b in ((first, second), (first, other), (second, other), (first, np.arange(50))):
        assert np.sum(a == b) < 10


def chi_square(table):
    """Returns Pearson's statistic for counts with equal expectations."""
    return np.sum((table - table.mean()) ** 2) / table.mean()


def test_every_image_comes_at_every_place_equally_often():
    orders = epochs(KEY)
    table = np.zeros((50, 50))
    np.add.at(table, (np.arange(50), orders), 1)
    freedom = 49**2  # rows and columns each sum to the number of epochs
    assert chi_square(table) < freedom + 4 * np.sqrt(2 * freedom)


def test_neighbours_in_an_epoch_are_equally_often_any_distance_apart():
    distances = np.diff(epochs(KEY), axis=1) % 50
    table = np.bincount(distances.reshape(-1), minlength=50)[1:]  # never 0
    assert chi_square(table) < 48 + 4 * np.sqrt(2 * 48)


def test_an_images_place_says_nothing_about_its_number_or_its_next_place():
    orders = epochs(KEY)
    places = np.argsort(orders, axis=1)
    limit = 4 / np.sqrt(orders.size)  # four standard deviations of the mean correlation
    straight = [np.corrcoef(np.arange(50), order)[0, 1] for order in orders]
    assert abs(np.mean(straight)) < limit
    following = [np.corrcoef(a, b)[0, 1] for a, b in pairwise(places)]
    assert abs(np.mean(following)) < limit


@partial(jax.jit, static_argnames=("size", "batch"))
def positions_of(step, *, size, batch):
    return batch_positions(KEY, step, size=size, batch=batch)


@partial(jax.jit, static_argnames="size")
def permuted(epochs, places, *, size):
    return _permute(KEY, epochs, places, size)


def expected_positions(step, *, size, batch):
    """Returns the same sequence, with epoch and position computed in Python integers."""
    epoch, place = zip(*(divmod(step * batch + i, size) for i in range(batch)), strict=True)
    return permuted(jnp.array(epoch, jnp.uint32), jnp.array(place, jnp.uint32), size=size)


# 2^20 steps are the published number; 2^24 steps of 448 images exceed 2^32 images.
@pytest.mark.parametrize("start", [1 << 20, 1 << 24])
def test_a_batch_across_an_epoch_border_late_in_a_run(start):
    size, batch = 50_000, 448
    # The first step from `start` whose images belong to two epochs.
    step = next(t for t in count(start) if -t * batch % size in range(1, batch))
    old = -step * batch % size  # number of images left in the earlier epoch
    positions = positions_of(jnp.int32(step), size=size, batch=batch)
    np.testing.assert_array_equal(positions, expected_positions(step, size=size, batch=batch))
    assert len(set(positions[:old].tolist())) == old
    assert len(set(positions[old:].tolist())) == batch - old


def test_a_large_data_set_with_large_batches_does_not_overflow():
    size, batch, step = 1_281_167, 5120, 1_000_000  # FixMatch on ImageNet: 5 · 1024 images
    positions = positions_of(jnp.int32(step), size=size, batch=batch)
    np.testing.assert_array_equal(positions, expected_positions(step, size=size, batch=batch))


def test_jit_changes_nothing_and_positions_are_uint32():
    plain = batch_positions(KEY, jnp.int32(3), size=50, batch=64)
    np.testing.assert_array_equal(plain, batches(KEY, size=50, batch=64, steps=5)[3])
    assert plain.dtype == jnp.uint32
    assert plain.shape == (64,)


# Walks are longest where the cipher's domain is four times the size, as of 257 and of 1,025.
@pytest.mark.parametrize(("size", "stride"), [(1, 8), (50, 3), (256, 8), (257, 3), (1025, 8)])
def test_a_gpu_s_strides_arrive_where_single_rounds_do(size, stride, monkeypatch):
    everywhere = jnp.full(size, 3, jnp.uint32), jnp.arange(size, dtype=jnp.uint32)
    expected = jax.jit(lambda *args: _permute(KEY, *args, size))(*everywhere)
    monkeypatch.setattr(sampling, "_STRIDE", stride)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *args, cuda, default: cuda(*args))
    found = jax.jit(lambda *args: _permute(KEY, *args, size))(*everywhere)
    np.testing.assert_array_equal(found, expected)
    assert sorted(found.tolist()) == list(range(size))
