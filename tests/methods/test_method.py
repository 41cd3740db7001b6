"""Tests logit adjustment, which is part of the method contract."""

import dataclasses
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssljax.methods
from helpers import golden
from helpers.golden import cross_entropy, forward, softmax
from helpers.tiny import build, tiny_config
from ssljax import losses, recipe
from ssljax.errors import UsageError
from ssljax.experiment import Experiment
from ssljax.lookup import find, modules_of
from ssljax.methods.fixmatch import fixmatch
from ssljax.methods.method import Batch, Progress
from ssljax.methods.mixmatch import mixmatch
from ssljax.methods.supervised import supervised
from ssljax.methods.uda import uda

LABELS = np.array([0, 2, 1, 1])
ONE_HOT = np.eye(3)[LABELS]
LABELED, WEAK, STRONG = golden.images(1, 4), golden.images(2, 8), golden.images(3, 8)
COUNTS, STRENGTH = (12, 3, 1), 1.5
ADJUSTMENT = STRENGTH * np.log(np.array(COUNTS) / 16)


def test_the_adjustment_is_the_strength_times_the_log_of_the_shares():
    found = losses.logit_adjustment(COUNTS, STRENGTH)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, ADJUSTMENT, rtol=1e-6)
    with pytest.raises(ValueError, match="2 of 4 classes have no labelled image; allowed for lo"):
        losses.logit_adjustment([1, 0, 3, 0], 1.0)


def test_a_golden_step_of_supervised():
    def calculate(params, constant, ema):
        logits, stats = forward(params, LABELED)
        xe = cross_entropy(logits + ADJUSTMENT, ONE_HOT).mean()
        return golden.Expected(xe, {"loss/xe": xe}, stats, None)

    batch = Batch(LABELED, LABELS, ())
    golden.check(supervised(), batch, (), calculate, adjustment=ADJUSTMENT)


def test_a_golden_step_of_fixmatch_guesses_from_the_logits_themselves():
    def calculate(params, constant, ema):
        everything = np.concatenate([LABELED, WEAK, STRONG])
        logits, stats = forward(params, everything)
        guess = softmax(forward(constant, everything)[0][4:12])
        confident = guess.max(axis=1) >= 0.5
        assert 0 < confident.sum() < 8
        xe = cross_entropy(logits[:4] + ADJUSTMENT, ONE_HOT).mean()
        xeu = (cross_entropy(logits[12:], np.eye(3)[guess.argmax(1)]) * confident).mean()
        return golden.Expected(xe + 2 * xeu, {"loss/xe": xe, "loss/xeu": xeu}, stats, guess)

    batch, method = (
        Batch(LABELED, LABELS, (WEAK, STRONG)),
        fixmatch(threshold=0.5, unlabeled_weight=2.0),
    )
    golden.check(method, batch, (), calculate, adjustment=ADJUSTMENT)


def test_a_golden_step_of_mixmatch_has_soft_labels():
    views, noise = (golden.images(2, 4), golden.images(3, 4)), golden.mixup_noise(7, 12)

    def calculate(params, constant, ema):
        guess = sum(softmax(forward(constant, view)[0]) for view in views) / 2
        guess = guess**2 / (guess**2).sum(axis=1, keepdims=True)
        images = golden.mixup([LABELED, *views], noise)
        targets = golden.mixup([ONE_HOT, guess, guess], noise)
        (logits_x, *logits_y), stats = golden.interleaved_forward(params, images)
        xe = cross_entropy(logits_x + ADJUSTMENT, targets[0]).mean()
        l2u = ((np.concatenate(targets[1:]) - softmax(np.concatenate(logits_y))) ** 2).mean()
        logs = {"loss/xe": xe, "loss/l2u": l2u, "w_match": 3.0}
        return golden.Expected(xe + 3 * l2u, logs, stats[0], guess)

    method = mixmatch(w_match=6.0, ramp_images=80)
    batch = Batch(LABELED, LABELS, views)
    golden.check(method, batch, noise, calculate, step=10, adjustment=ADJUSTMENT)


def names():
    """Returns the methods of the package."""
    return [
        module.__name__.rpartition(".")[2]
        for module in modules_of(ssljax.methods, without=["method"])
    ]


class Linear:
    """A network of one layer, whose features are the pixels."""

    def __init__(self, kernel):
        self.kernel = kernel

    def __call__(self, params, images):
        images = images.value() if isinstance(images, losses.Mixed) else images
        return images.reshape(-1, 4) @ params["dense"], {}

    def with_features(self, params, images):
        return *self(params, images)[:1], images.reshape(-1, 4), {}

    def evaluate(self, params, images):
        return self.with_features(params, images)[:2]


@pytest.mark.parametrize("name", names())
def test_the_labelled_loss_of_every_method_is_adjusted_and_nothing_else(name):
    method = find("config.method", name, modules_of(ssljax.methods, without=["method"]))()
    assert method.adjustable
    random = np.random.RandomState(0)
    n, m = 8, 8
    images = lambda k: jnp.float32(random.uniform(-1, 1, (k, 2, 2, 1)))  # noqa: E731
    batch = Batch(
        images(n),
        jnp.arange(n) % 3,
        tuple(images(m) for _ in method.views),
        labeled_index=jnp.arange(n),
        unlabeled_index=jnp.arange(m),
        more_labeled=tuple(images(n) for _ in method.more_labeled_views),
    )
    apply, key = Linear(jnp.float32(random.normal(size=(4, 3)))), jax.random.PRNGKey(0)
    heads = {head.name: head.init(key, 4, 3) for head in method.heads}
    params = {"dense": apply.kernel, "heads": heads}
    noise = method.noise(key, batch)
    sizes = golden.sizes(3, (4, 3, 1), m)._replace(batch=(n, m))
    progress = Progress(jnp.float32(2**20), jnp.float32(0.5))

    @jax.jit
    def run(adjustment):
        given = batch._replace(adjustment=adjustment)
        return method.loss(params, params, apply, given, noise, method.init(sizes), progress)

    total, aux = run(jnp.zeros(3))
    same, same_aux = run(jnp.full(3, 0.7))
    np.testing.assert_allclose(total, same, rtol=1e-5)
    moved, moved_aux = run(jnp.array([0.0, -4.0, 1.0]))
    change = moved_aux.logs["loss/xe"] - aux.logs["loss/xe"]
    assert abs(change) > 0.05
    np.testing.assert_allclose(moved - total, change, rtol=1e-3, atol=1e-5)
    for logs in (same_aux.logs, moved_aux.logs):
        for key in aux.logs.keys() - {"loss/xe"}:
            np.testing.assert_allclose(logs[key], aux.logs[key], rtol=1e-5)
    jax.tree.map(np.testing.assert_array_equal, moved_aux.guess, aux.guess)
    jax.tree.map(np.testing.assert_array_equal, moved_aux.state, aux.state)


def test_training_signal_annealing_knows_an_image_by_its_prediction():
    logits = jnp.log(jnp.array([[0.6, 0.2, 0.2], [0.1, 0.8, 0.1]]))
    batch = Batch(logits, jnp.array([0, 1]), (logits, logits))
    batch = batch._replace(adjustment=jnp.array([3.0, -3.0, 0.0]))
    apply = lambda params, images: (images, {})  # noqa: E731
    progress = Progress(jnp.float32(5), jnp.float32(0))
    loss = uda(tsa="linear", tsa_images=10).loss  # at most 2/3 halfway
    _, aux = loss((), (), apply, batch, (), (), progress)
    assert aux.logs["mask_sup"] == 0.5
    adjusted = np.array([0.6, 0.2, 0.2]) * np.exp([3.0, -3.0, 0.0])
    np.testing.assert_allclose(
        aux.logs["loss/xe"], -np.log(adjusted[0] / adjusted.sum()), rtol=1e-5
    )


def config_with(strength, **knobs):
    config = tiny_config("fixmatch")
    config.logit_adjustment = strength
    config.dataset = "digits_lt5.1@20+40-0"
    for knob, value in knobs.items():
        config[knob] = value
    return config


def test_an_experiment_adjusts_by_its_labelled_images():
    experiment = build(config_with(0.5))
    assert experiment.class_counts.tolist()[::9] == [20, 4]
    shares = experiment.class_counts / experiment.class_counts.sum()
    np.testing.assert_allclose(experiment.adjustment, 0.5 * np.log(shares), rtol=1e-6)
    assert dataclasses.replace(experiment, logit_adjustment=0.0).adjustment is None
    assert isinstance(experiment, Experiment)


def test_what_cannot_be_adjusted_is_one_line(monkeypatch):
    config = config_with(1.0, dataset="digits.1@5-0")
    with pytest.raises(UsageError, match="logit_adjustment is 1.0: 5 of 10 classes have no label"):
        recipe.build(config)
    with pytest.raises(UsageError, match="config.logit_adjustment is -1.0; allowed: from 0 up"):
        recipe.build(config_with(-1.0))
    mine = types.ModuleType("my_methods")
    mine.plain = lambda: supervised()._replace(adjustable=False)  # does not support adjustment
    monkeypatch.setitem(sys.modules, "my_methods", mine)
    config = config_with(1.0, method="my_methods.plain", method_args={})
    with pytest.raises(UsageError, match="allowed for config.method 'my_methods.plain': 0, as its"):
        recipe.build(config)
