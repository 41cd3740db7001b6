import dataclasses

import jax
import numpy as np
import pytest
from conftest import tiny_config

from ssljax import recipe
from ssljax.training import parallel


def run_steps(parts, steps, *, data=None, **options):
    """State and metric sums on the host after `steps` steps of a recipe."""
    window = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), parts.shapes()["window"])
    state, window, data = (
        parallel.replicate(x, parts.devices)
        for x in (parts.init_state(), window, data or parts.data())
    )
    run = parallel.make_run(parts.train_step, parts.devices, **options)
    after = run(state, window, data, steps)
    for x in jax.tree.leaves(jax.device_get(after)):
        np.testing.assert_array_equal(x, np.broadcast_to(x[:1], x.shape))  # all devices agree
    return parallel.fetch(after)


def largest_difference(a, b):
    """The largest difference of two trees, relative to the largest entry of each leaf."""
    return max(
        np.max(np.abs(x - y)) / max(np.max(np.abs(x)), 1e-3)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def weights(state):
    return state.params, state.batch_stats, state.ema


@pytest.mark.parametrize("method", ["supervised", "fixmatch", "mixmatch"])
def test_four_devices_compute_what_one_computes(method):
    config = tiny_config(method)
    config.optimizer.name = "sgd"  # Adam divides by tiny second moments, which amplifies rounding
    parts = recipe.build(config)
    assert len(parts.devices) == 4
    four, four_sums = run_steps(parts, 3)
    one, one_sums = run_steps(dataclasses.replace(parts, devices=parts.devices[:1]), 3)
    # float32 sums in another order, through three steps
    assert largest_difference(weights(one), weights(four)) < 2e-4
    for name in one_sums:  # a mean over no image is NaN in both
        with np.errstate(invalid="ignore"):
            means = one_sums[name].compute(), four_sums[name].compute()
        np.testing.assert_allclose(*means, rtol=2e-4, atol=1e-5)


def test_without_sync_bn_devices_normalise_their_own_images(config):
    config.sync_bn = False
    parts = recipe.build(config)
    four, _ = run_steps(parts, 3)
    one, _ = run_steps(dataclasses.replace(parts, devices=parts.devices[:1]), 3)
    assert largest_difference(weights(one), weights(four)) > 1e-2


@pytest.mark.parametrize("method", ["fixmatch", "mixmatch"])
def test_hidden_labels_cannot_change_the_training(method):
    parts = recipe.build(tiny_config(method))
    data = parts.data()
    random_labels = np.random.RandomState(0).randint(-10, 10, data.hidden.shape)
    shuffled = data._replace(hidden=np.maximum(random_labels, -1).astype(np.int32))
    state, sums = run_steps(parts, 4, data=data)
    other_state, other_sums = run_steps(parts, 4, data=shuffled)
    jax.tree.map(np.testing.assert_array_equal, state, other_state)
    # They do reach the monitor, which leaves out -1.
    assert sums["guess/accuracy"].count > other_sums["guess/accuracy"].count


def test_the_loop_on_the_device_computes_what_single_calls_compute(config):
    parts = recipe.build(config)
    parts = dataclasses.replace(parts, devices=parts.devices[:2])
    looped, looped_sums = run_steps(parts, 3, loop_on_device=True)
    single, single_sums = run_steps(parts, 3, loop_on_device=False)
    assert looped.step == single.step == 3
    assert largest_difference(weights(looped), weights(single)) < 2e-4
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5),
        looped_sums,
        single_sums,
    )


def test_the_moving_average_follows_the_updated_weights(config):
    parts = recipe.build(config)
    before = parts.init_state()
    after, _ = run_steps(parts, 1)
    expected = jax.tree.map(lambda old, new: 0.9 * old + 0.1 * new, before.ema, after.params)
    assert largest_difference(expected, after.ema) < 1e-6
    assert largest_difference(before.params, after.params) > 1e-3


def test_monitors_count_every_unlabelled_image(config):
    config.method_args.threshold = 0.0
    _, sums = run_steps(recipe.build(config), 1)
    assert sums["guess/mask_rate"].compute() == 1
    assert sums["guess/mask_rate"].count == 16  # batch_size 8, uratio 2
    assert sums["guess/classes"].total.sum() == 16
    np.testing.assert_allclose(sums["guess/accuracy"].total, sums["guess/accuracy_masked"].total)


def test_bfloat16_computes_roughly_the_same_with_float32_weights(config):
    _, exact_sums = run_steps(recipe.build(config), 1)
    config.dtype = "bfloat16"
    state, sums = run_steps(recipe.build(config), 1)
    assert {x.dtype for x in jax.tree.leaves(weights(state))} == {np.dtype("float32")}
    loss, exact_loss = sums["loss/total"].compute(), exact_sums["loss/total"].compute()
    assert 1e-6 < abs(loss - exact_loss) < 0.05 * exact_loss  # 8 bits of mantissa
