"""Tests a golden step of VAT, from `vat.py` and `vat_utils.py` of google-research/mixmatch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import golden
from ssljax.methods.method import Batch, Progress
from ssljax.methods.vat import vat

LABELS = np.array([0, 2])
BATCH = Batch(golden.images(1, 2), LABELS, (golden.images(2, 4),))
NOISE = golden.numbers(3, 4, *golden.PIXELS)


def kl(p_logits, q_logits):
    p, q = golden.softmax(p_logits), golden.softmax(q_logits)
    return (p * (np.log(p) - np.log(q))).sum(axis=1)


def normalized(d):
    d = d / (1e-12 + np.abs(d).max(axis=(1, 2, 3), keepdims=True))
    return d / np.sqrt(1e-6 + (d**2).sum(axis=(1, 2, 3), keepdims=True))


def perturbation(params, y, eps, xi):
    logits = golden.forward(params, y)[0]

    def distance(d):
        return kl(logits, golden.forward(params, y + d)[0]).mean()

    return eps * normalized(golden.complex_step(distance, xi * normalized(NOISE)))


def calculate(params, constant, ema, *, weight, eps, entmin_weight, xi):
    del ema
    (y,) = BATCH.views
    logits_x, stats = golden.forward(params, BATCH.labeled)
    logits_y, _ = golden.forward(params, y)
    teacher, _ = golden.forward(constant, y)
    student, _ = golden.forward(params, y + perturbation(constant, y, eps, xi))
    xe = golden.cross_entropy(logits_x, np.eye(3)[LABELS]).mean()
    loss_vat = kl(student, teacher).mean()
    entmin = golden.cross_entropy(logits_y, golden.softmax(logits_y)).mean()
    logs = {"loss/xe": xe, "loss/vat": loss_vat, "loss/entmin": entmin, "vat_weight": weight}
    total = xe + weight * loss_vat + entmin_weight * entmin
    return golden.Expected(total, logs, stats, golden.softmax(teacher))


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (20, 0.5), (40, 1.0), (90, 1.0)])
def test_a_golden_step(step, share):
    # Float32 resolves a random change of half a pixel value, but not the published one.
    calculated = functools.partial(
        calculate, weight=1.5 * share, eps=0.8, entmin_weight=0.4, xi=0.5
    )
    method = vat(vat_weight=1.5, vat_eps=0.8, entmin_weight=0.4, xi=0.5)
    golden.check(method, BATCH, NOISE, calculated, step=step, num_steps=100)


def test_defaults_are_the_published_ones():
    calculated = functools.partial(calculate, weight=0.3, eps=6.0, entmin_weight=0.06, xi=0.5)
    golden.check(vat(xi=0.5), BATCH, NOISE, calculated, step=40, num_steps=100)


def test_the_published_direction_in_float64():
    """ξ = 1e-6: in float64, which resolves it, the changed images equal the calculated ones."""
    params = golden.weights(0)
    seen = []

    def apply(weights, images):
        seen.append(images)
        x = images.reshape(len(images), -1)
        x = (x - x.mean(0, keepdims=True)) / jnp.sqrt(x.var(0, keepdims=True) + 0.01)
        x = x * weights["BatchNorm_0"]["scale"][None] + weights["BatchNorm_0"]["bias"][None]
        hidden, classes = weights["Dense_0"], weights["Dense_1"]
        features = jnp.tanh(x @ hidden["kernel"] + hidden["bias"][None])
        return features @ classes["kernel"] + classes["bias"][None], {}

    with jax.enable_x64(True):
        batch, noise = jax.tree.map(jnp.asarray, (BATCH, NOISE))
        vat().loss(params, None, apply, batch, noise, (), Progress(jnp.float64(0), jnp.float64(0)))
        expected = BATCH.views[0] + perturbation(params, BATCH.views[0], 6.0, 1e-6)
        np.testing.assert_allclose(seen[-1], expected, rtol=1e-6)
        assert len(seen) == 4


def test_noise_is_normal_and_one_number_a_pixel():
    batch = Batch(None, None, (jnp.zeros((3000, 2, 2, 1)),))
    noise = vat().noise(jax.random.PRNGKey(0), batch)
    assert noise.shape == (3000, 2, 2, 1)
    np.testing.assert_allclose([noise.mean(), noise.std()], [0, 1], atol=0.03)


def test_it_has_one_weak_view_and_no_state():
    method = vat()
    assert (method.views, method.joint, method.init(3)) == (("weak",), False, ())


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("vat_weight", -1.0),
        ("vat_eps", 0.0),
        ("entmin_weight", -0.1),
        ("warmup_pos", 0.0),
        ("warmup_pos", float("nan")),
        ("xi", 0.0),
    ],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"{argument} is {value}; allowed"):
        vat(**{argument: value})
