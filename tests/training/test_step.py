import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.steps import compiled, largest_difference, run_steps, shared, weights
from helpers.tiny import tiny_config
from ssljax import heads, losses, recipe
from ssljax.methods.method import Aux, Method, no_noise, no_state
from ssljax.training import optim, parallel


@pytest.mark.parametrize(
    "method",
    [
        "fixmatch",
        *(
            pytest.param(x, marks=pytest.mark.slow)
            for x in ("remixmatch", "supervised", "mixmatch", "uda", "ict", "vat")
        ),
    ],
)  # fmt: skip
def test_four_devices_compute_what_one_computes(method):
    four, four_sums = run_steps(shared(method, 4), 3)
    one, one_sums = run_steps(shared(method, 1), 3)
    # float32 sums in another order, accumulated over three steps
    assert largest_difference(weights(one), weights(four)) < 2e-4
    for name in one_sums:  # a mean over no images is NaN in both
        with np.errstate(invalid="ignore"):
            means = one_sums[name].compute(), four_sums[name].compute()
        np.testing.assert_allclose(*means, rtol=2e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["supervised", "mixmatch"])
def test_four_devices_adjust_logits_as_one_does(method):
    config = tiny_config(method)
    config.optimizer.name = "sgd"
    config.dataset = "digits_lt5.1@20+60-0"
    unadjusted, _ = run_steps(recipe.build(config, max_devices=1), 3)
    config.logit_adjustment = 1.0
    (four, _), (one, _) = (run_steps(recipe.build(config, max_devices=n), 3) for n in (4, 1))
    assert largest_difference(weights(one), weights(four)) < 2e-4
    assert largest_difference(weights(one), weights(unadjusted)) > 1e-2


def test_without_sync_bn_devices_normalise_their_own_images(config):
    config.sync_bn = False
    config.optimizer.name = "sgd"
    four, _ = run_steps(recipe.build(config), 3)
    one, _ = run_steps(shared("fixmatch", 1), 3)
    assert largest_difference(weights(one), weights(four)) > 1e-2


@pytest.mark.parametrize("method", ["fixmatch", pytest.param("mixmatch", marks=pytest.mark.slow)])
def test_hidden_labels_cannot_change_the_training(method):
    experiment = shared(method, 4)
    data = experiment.data()
    random_labels = np.random.RandomState(0).randint(-10, 10, data.unlabeled_labels.shape)
    shuffled = data._replace(unlabeled_labels=np.maximum(random_labels, -1).astype(np.int32))
    state, sums = run_steps(experiment, 4, data=data)
    other_state, other_sums = run_steps(experiment, 4, data=shuffled)
    jax.tree.map(np.testing.assert_array_equal, state, other_state)
    # The labels do reach the monitor, which ignores -1.
    assert sums["guess/accuracy"].count > other_sums["guess/accuracy"].count


def test_the_loop_on_the_device_computes_what_single_calls_compute():
    experiment = shared("fixmatch", 4)
    looped, looped_sums = run_steps(experiment, 3, loop_on_device=True)
    single, single_sums = run_steps(experiment, 3)
    assert looped.step == single.step == 3
    assert largest_difference(weights(looped), weights(single)) < 2e-4
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-5),
        looped_sums,
        single_sums,
    )


def test_the_moving_average_follows_the_updated_weights():
    experiment = shared("fixmatch", 4)
    before = experiment.init_state()
    after, _ = run_steps(experiment, 1)
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
    _, exact_sums = run_steps(shared("fixmatch", 4), 1)
    config.bfloat16 = True
    state, sums = run_steps(recipe.build(config), 1)
    assert {x.dtype for x in jax.tree.leaves(weights(state))} == {np.dtype("float32")}
    loss, exact_loss = sums["loss/total"].compute(), exact_sums["loss/total"].compute()
    assert 1e-6 < abs(loss - exact_loss) < 0.05 * exact_loss  # 8 bits of mantissa


def noisy_headed(joint):
    """A method for tests: unlabelled images teach a head the numbers that were drawn."""

    head = heads.dense("drawn", 3)

    def noise(key, batch):
        return jax.random.randint(key, (len(batch.views[0]),), 0, 3)

    def loss(params, ema_params, apply, batch, noise, state, progress):
        logits, _ = apply(params, batch.labeled)
        _, features, batch_stats = apply.with_features(params, batch.views[0])
        drawn = head(params, features)
        xe = jnp.mean(losses.cross_entropy(logits, jax.nn.one_hot(batch.labels, 10)))
        xeu = jnp.mean(losses.cross_entropy(drawn, jax.nn.one_hot(noise, 3)))
        return xe + xeu, Aux(batch_stats, state, {"drawn": xeu})

    return Method(("weak",), no_state, noise, loss, joint=joint, heads=(head,))


@pytest.mark.parametrize("joint", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_heads_and_noise_are_the_same_on_one_device_and_on_four(config, joint):
    experiment = dataclasses.replace(recipe.build(config), method=noisy_headed(joint))
    before = experiment.init_state()
    assert before.params["heads"]["drawn"]["kernel"].shape == (4, 3)
    np.testing.assert_array_equal(before.params["heads"]["drawn"]["bias"], 0)
    four, four_sums = run_steps(experiment, 3)
    one, one_sums = run_steps(dataclasses.replace(experiment, devices=experiment.devices[:1]), 3)
    assert largest_difference(weights(one), weights(four)) < 2e-4
    np.testing.assert_allclose(one_sums["drawn"].compute(), four_sums["drawn"].compute(), rtol=2e-4)
    # The heads learn, decay and are averaged.
    old, new, average = (tree["heads"]["drawn"] for tree in (before.params, one.params, one.ema))
    assert largest_difference(old, new) > 1e-3
    assert largest_difference(new, average) > 1e-4
    assert optim.kernels(one.params)["heads"]["drawn"] == {"kernel": True, "bias": False}


def test_heads_are_drawn_like_the_last_layer_and_apart(config):
    config.model_args.filters = 64
    experiment = recipe.build(config)
    experiment = dataclasses.replace(
        experiment,
        method=noisy_headed(False)._replace(heads=(heads.dense("a", 100), heads.dense("b", 100))),
    )
    drawn = experiment.init_state().params["heads"]
    for head in drawn.values():
        np.testing.assert_allclose(np.std(head["kernel"]), np.sqrt(2 / (64 + 100)), rtol=0.05)
    assert np.abs(drawn["a"]["kernel"] - drawn["b"]["kernel"]).mean() > 0.05


@pytest.mark.slow
def test_each_pass_of_a_step_and_each_device_draws_its_own_shake_shake_weights(monkeypatch):
    """MixMatch has five passes per step; without its key, the model would not run at all."""
    config = tiny_config("mixmatch")
    config.model, config.model_args = "shake_resnet", dict(filters=4, repeat=1, scales=1)
    config.augment.weak = "none"
    drawn, uniform = [], jax.random.uniform

    def watch(key, shape=(), *args, **options):
        x = uniform(key, shape, *args, **options)
        if shape == (2, 1, 1, 1):  # 8 images per pass on 4 devices
            jax.debug.callback(lambda x: drawn.append(np.asarray(x)), x)
        return x

    monkeypatch.setattr(jax.random, "uniform", watch)
    state, _ = run_steps(recipe.build(config), 1)
    jax.effects_barrier()
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(state.params))
    weights = {x.tobytes() for x in drawn}
    assert len(weights) == 5 * 4


def test_a_view_can_be_the_image_as_it_is():
    config = tiny_config("remixmatch")
    config.method_args = dict(anchor="none", strong_views=1)
    experiment = recipe.build(config)
    experiment = dataclasses.replace(experiment, devices=experiment.devices[:1])
    seen = {}

    def loss(params, ema_params, apply, batch, noise, state, progress):
        jax.debug.callback(lambda views: seen.update(views=views), batch.views)
        logits, batch_stats = apply(params, batch.labeled)  # the method's loss would compile longer
        return jnp.mean(logits**2), Aux(batch_stats, state, {})

    run_steps(dataclasses.replace(experiment, method=experiment.method._replace(loss=loss)), 1)
    jax.effects_barrier()
    known = {image.tobytes() for image in experiment.dataset.images}
    anchors, strong = (np.asarray(np.round((v + 1) * 127.5), np.uint8) for v in seen["views"])
    assert all(image.tobytes() in known for image in anchors)
    assert not all(image.tobytes() in known for image in strong)


@pytest.mark.parametrize("joint", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_method_is_told_which_images_it_sees(config, joint):
    seen = []

    def loss(params, ema_params, apply, batch, noise, state, progress):
        jax.debug.callback(lambda *x: seen.append(x), batch, progress.step)
        logits, batch_stats = apply(params, batch.labeled)
        return jnp.mean(logits**2), Aux(batch_stats, state, {})

    config.augment.strong = "strong_digits"
    experiment = recipe.build(config)
    method = Method(
        ("none",), no_state, no_noise, loss, joint, "none", more_labeled_views=("none", "strong")
    )
    run_steps(dataclasses.replace(experiment, method=method), 2)
    jax.effects_barrier()
    images, split = experiment.dataset.images, experiment.split
    assert len(seen) == 8
    for batch, step in seen:
        assert step in (0, 1)
        assert len(batch.labels) == (8 if joint else 2)
        same, other = batch.more_labeled
        for view, index, part in (
            (batch.labeled, batch.labeled_index, split.labeled),
            (same, batch.labeled_index, split.labeled),
            (batch.views[0], batch.unlabeled_index, split.unlabeled),
        ):
            pixels = np.asarray(np.round((view + 1) * 127.5), np.uint8)
            np.testing.assert_array_equal(pixels, images[part[index]])
        labels = experiment.dataset.labels[split.labeled[batch.labeled_index]]
        np.testing.assert_array_equal(batch.labels, labels)
        assert not np.array_equal(same, other)


@pytest.mark.parametrize("options", [{"loop_on_device": True}, {}])
def test_steps_of_one_call_ask_nothing_of_the_host(options):
    experiment = shared("fixmatch", 4)
    metric_sums = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), experiment.shapes["window"])
    state, metric_sums, data = (
        parallel.replicate(x, experiment.devices)
        for x in (experiment.init_state(), metric_sums, experiment.data())
    )
    run = compiled(experiment, **options)
    state, metric_sums = run(state, metric_sums, data, 1)  # compiles
    with jax.transfer_guard("disallow"):
        state, metric_sums = run(state, metric_sums, data, 1)
    assert parallel.fetch(state.step) == 2
