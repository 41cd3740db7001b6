"""Tests augmentation within the step: RandAugment, and CTAugment, which learns there."""

import dataclasses
import functools
import os
import signal

import jax
import numpy as np
import pytest
from PIL import Image

from helpers.processes import final_state
from helpers.steps import largest_difference, run_steps, weights
from helpers.tiny import build, tiny_config
from ssljax.augment import ctaugment
from ssljax.augment.ctaugment_spaces import CIFAR
from ssljax.errors import Interrupted
from ssljax.run import loop
from ssljax.training import parallel, step_memory


def cta_config(method):
    config = tiny_config(method)
    config.augment.strong = "ctaugment"
    config.num_steps = 8
    if method == "supervised":
        config.method_args = dict(view="strong")
    return config


@pytest.mark.slow
def test_four_devices_learn_the_rates_that_one_learns():
    four, _ = run_steps(build(cta_config("supervised"), devices=4), 2)
    one, _ = run_steps(build(cta_config("supervised")), 2)
    # Two steps with 8 probes of 2 operations each: many rates have changed, none by much.
    assert 20 < np.sum(four.augment != 1) <= 2 * 8 * 2 * 2
    assert 0.95 < four.augment.min() < 1
    np.testing.assert_allclose(four.augment, one.augment, atol=2e-6)
    assert largest_difference(weights(one), weights(four)) < 2e-4


def test_rates_follow_the_ema_model_s_probability_of_the_true_label():
    """One step, whose probes' matches are recomputed outside of it."""
    experiment = build(cta_config("supervised"))
    seen = {}

    def update(rates, policy, match):
        jax.debug.callback(lambda p, m: seen.update(policy=p, match=m), policy, match)
        return ctaugment.update(rates, policy, match, CIFAR)

    def probe(keys, images, rates):
        probes, policy = experiment.augmentation.probe(keys, images, rates)
        jax.debug.callback(lambda x, y: seen.update(images=x, probes=y), images, probes)
        return probes, policy

    watched = experiment.augmentation._replace(probe=probe, update=update)
    state, _ = run_steps(dataclasses.replace(experiment, augmentation=watched), 1)
    jax.effects_barrier()
    model = experiment.model.clone(axis_name=None)
    variables = {"params": state.ema, "batch_stats": state.batch_stats}
    apply = jax.jit(functools.partial(model.apply, train=False))
    logits, _ = apply(variables, np.float32(np.asarray(seen["probes"]) / 127.5 - 1))
    known = experiment.dataset.images
    same = [(x == known).all(axis=(1, 2, 3)) for x in np.asarray(seen["images"])]
    labels = experiment.dataset.labels[np.argmax(same, axis=1)]
    match = np.asarray(seen["match"])
    np.testing.assert_allclose(match, jax.nn.softmax(logits)[np.arange(8), labels], atol=1e-5)
    assert match.std() > 0
    assert (seen["policy"].cutout == 0).all()  # drawn as probes, not as training views
    expected = ctaugment.update(ctaugment.init(CIFAR), seen["policy"], match, CIFAR)
    np.testing.assert_allclose(state.augment, expected, rtol=1e-6)


@pytest.mark.slow
def test_a_resumed_run_continues_with_the_same_rates(tmp_path, monkeypatch):
    """Stopped at step 5 of 8, and resumed."""
    experiment = build(cta_config("supervised"), devices=4)
    loop.train(experiment, tmp_path / "whole")
    advance = loop.ProgressBar.advance

    def advance_and_interrupt(self, steps):
        advance(self, steps)
        if self._steps_left == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop.ProgressBar, "advance", advance_and_interrupt)
        with pytest.raises(Interrupted, match="saved after step 5"):
            loop.train(experiment, tmp_path / "cut")
    loop.train(experiment, tmp_path / "cut")
    (_, whole), (_, cut) = final_state(tmp_path / "whole"), final_state(tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, whole, cut)
    assert (whole["state"]["augment"] != 1).sum() > 50
    # The heat map in the run directory shows these rates.
    picture = np.asarray(Image.open(tmp_path / "cut" / "augment.png"))
    expected = experiment.augmentation.picture(whole["state"]["augment"])
    np.testing.assert_array_equal(picture, expected)


@pytest.mark.parametrize(
    "strong", ["randaugment", pytest.param("ctaugment", marks=pytest.mark.slow)]
)
def test_bfloat16_training(strong):
    config = tiny_config("supervised")
    config.method_args = dict(view="strong")
    config.augment.strong = strong
    config.augment.recipe = "imagenet"  # CIFAR's Cutout covers an entire digit
    config.bfloat16 = True
    state, sums = run_steps(build(config), 1)
    assert np.isfinite(sums["loss/total"].compute())
    if strong == "ctaugment":
        assert state.augment.dtype == np.float32
        assert np.sum(state.augment != 1) > 8
    else:
        assert state.augment == ()


@pytest.mark.slow
def test_supervised_training_on_strong_views_differs_from_weak_ones():
    config = tiny_config("supervised")
    weak, _ = run_steps(build(config), 1)
    config.method_args = dict(view="strong")
    strong, _ = run_steps(build(config), 1)
    assert largest_difference(weak.params, strong.params) > 1e-4


def test_each_view_is_one_call_and_all_images_are_sent_at_once():
    """Three strong views, and a strong one of the labelled images."""
    config = tiny_config("remixmatch")
    config.method_args.strong_views = 3
    experiment, calls = build(config, devices=2), []

    def counting(name, view):
        return lambda keys, images: calls.append((name, len(images))) or view(keys, images)

    def views(state):
        found = experiment.augmentation.views(state)
        return {name: counting(name, view) for name, view in found.items()}

    augmentation = experiment.augmentation._replace(views=views)
    step = dataclasses.replace(experiment, augmentation=augmentation).train_step
    _, program = parallel.trace_step(
        step, experiment.shapes["state"], experiment.data(), experiment.devices
    )
    assert sorted(calls) == [("strong", 4 * 4), ("weak", 4)]
    assert len(list(gathers_of_pixels(program))) == 1


def gathers_of_pixels(program):
    for eqn in program.eqns:
        if eqn.primitive.name == "all_gather" and eqn.outvars[0].aval.dtype == np.uint8:
            yield eqn
        for inner in step_memory.inner_programs(eqn, "cpu"):
            yield from gathers_of_pixels(inner)
