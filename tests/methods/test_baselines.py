"""Tests golden steps of the smaller baselines, transcribed from google-research/mixmatch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import golden
from helpers.golden import cross_entropy, forward, softmax
from ssljax.methods.mean_teacher import mean_teacher
from ssljax.methods.method import Batch
from ssljax.methods.mixup import mixup
from ssljax.methods.pi_model import pi_model
from ssljax.methods.pseudo_label import pseudo_label

LABELS = np.array([0, 2, 1, 1])
ONE_HOT = np.eye(3)[LABELS]
LABELED, FIRST, SECOND = golden.images(1, 4), golden.images(2, 8), golden.images(3, 8)
RAMP = [(0, 0.0), (20, 0.5), (40, 1.0), (90, 1.0)]  # step of 100, fraction of the weight


@pytest.mark.parametrize(("step", "share"), RAMP)
def test_a_golden_step_of_pseudo_label(step, share):
    batch = Batch(LABELED, LABELS, (FIRST,))

    def calculate(params, constant, ema):
        logits_x, stats = forward(params, LABELED)
        logits_y, _ = forward(params, FIRST)
        probabilities = softmax(forward(constant, FIRST)[0])
        confident = (probabilities > 0.6).any(axis=1)
        assert 0 < confident.sum() < 8
        pl = (cross_entropy(logits_y, np.eye(3)[probabilities.argmax(1)]) * confident).mean()
        xe = cross_entropy(logits_x, ONE_HOT).mean()
        logs = {"loss/xe": xe, "loss/pl": pl, "consistency_weight": 2 * share}
        return golden.Expected(xe + 2 * share * pl, logs, stats, probabilities)

    method = pseudo_label(threshold=0.6, consistency_weight=2.0, warmup_pos=0.4)
    golden.check(method, batch, (), calculate, step=step)


def consistency(params, teacher, name, weight):
    """Computes what the Π-model and Mean Teacher share, given the weights that make the targets."""
    logits_x, stats = forward(params, LABELED)
    target = softmax(forward(teacher, FIRST)[0])
    error = ((softmax(forward(params, SECOND)[0]) - target) ** 2).mean(axis=-1).mean()
    xe = cross_entropy(logits_x, ONE_HOT).mean()
    logs = {"loss/xe": xe, f"loss/{name}": error, "consistency_weight": weight}
    return golden.Expected(xe + weight * error, logs, stats, target)


@pytest.mark.parametrize(("step", "share"), RAMP)
def test_a_golden_step_of_the_pi_model(step, share):
    def calculate(params, constant, ema):
        return consistency(params, constant, "pm", 7 * share)

    batch = Batch(LABELED, LABELS, (FIRST, SECOND))
    golden.check(pi_model(consistency_weight=7.0), batch, (), calculate, step=step)


@pytest.mark.parametrize(("step", "share"), RAMP)
def test_a_golden_step_of_mean_teacher(step, share):
    def calculate(params, constant, ema):
        return consistency(params, ema, "mt", 7 * share)

    batch = Batch(LABELED, LABELS, (FIRST, SECOND))
    golden.check(mean_teacher(consistency_weight=7.0), batch, (), calculate, step=step)


def reversed_noise(seed, n):
    return golden.mixup_noise(seed, n) | {"permutation": np.arange(n)[::-1].copy()}


def mixed(values, lam):
    lam = lam.reshape(-1, *[1] * (values.ndim - 1))
    return values * lam + values[::-1] * (1 - lam)


@pytest.mark.parametrize("use_unlabeled", [False, True])
def test_a_golden_step_of_mixup(use_unlabeled):
    noise = [reversed_noise(4, 4), reversed_noise(5, 8)]
    lam, lam_y = (entry["lam"] for entry in noise)

    def calculate(params, constant, ema):
        logits_x, stats = forward(params, mixed(LABELED, lam))
        xe = cross_entropy(logits_x, mixed(ONE_HOT, lam)).mean()
        if not use_unlabeled:
            return golden.Expected(xe, {"loss/xe": xe}, stats, None)
        guess = softmax(forward(constant, FIRST)[0])
        logits_y, _ = forward(params, mixed(FIRST, lam_y))
        xeu = cross_entropy(logits_y, mixed(guess, lam_y)).mean()
        return golden.Expected(xe + xeu, {"loss/xe": xe, "loss/xeu": xeu}, stats, guess)

    views = (FIRST,) if use_unlabeled else ()
    method = mixup(use_unlabeled=use_unlabeled)
    golden.check(method, Batch(LABELED, LABELS, views), noise[: 1 + len(views)], calculate)


def test_mixup_s_lam_is_the_larger_part_and_partners_come_from_the_end():
    batch = Batch(jnp.zeros((4000, 1, 2, 1)), LABELS, (jnp.zeros((400, 1, 2, 1)),))
    first, second = mixup(beta=1.0, use_unlabeled=True).noise(jax.random.PRNGKey(0), batch)
    assert first["lam"].shape == (4000,)
    assert first["lam"].min() >= 0.5
    np.testing.assert_allclose(first["lam"].mean(), 0.75, atol=0.01)  # Beta(1, 1) is uniform
    np.testing.assert_array_equal(second["permutation"], np.arange(400)[::-1])
    assert len(np.intersect1d(first["lam"], second["lam"])) < 5


def test_what_each_method_asks_for():
    for method, views, joint in (
        (pseudo_label(), ("weak",), False),
        (pi_model(), ("weak", "weak"), False),
        (mean_teacher(), ("weak", "weak"), False),
        (mixup(), (), True),
        (mixup(use_unlabeled=True), ("weak",), True),
    ):
        assert (method.views, method.joint, method.init(3)) == (views, joint, ())
        assert (method.labeled_view, method.heads) == ("weak", ())


@pytest.mark.parametrize(
    ("method", "argument", "value"),
    [
        (pseudo_label, "threshold", 1.1),
        (pseudo_label, "threshold", float("nan")),
        (pseudo_label, "consistency_weight", -1.0),
        (pseudo_label, "warmup_pos", 0.0),
        (pi_model, "consistency_weight", float("inf")),
        (pi_model, "warmup_pos", 1.5),
        (mean_teacher, "consistency_weight", float("nan")),
        (mean_teacher, "warmup_pos", float("nan")),
        (mixup, "beta", 0.0),
    ],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(method, argument, value):
    with pytest.raises(ValueError, match=rf"{argument} is {value}; allowed"):
        method(**{argument: value})
