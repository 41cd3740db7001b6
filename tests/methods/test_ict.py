"""Tests a golden step of ICT, transcribed from `ict.py` of google-research/mixmatch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import golden
from ssljax.methods.ict import ict
from ssljax.methods.method import Batch

LABELS = np.array([0, 2, 1, 1])
BATCH = Batch(golden.images(1, 4), LABELS, (golden.images(2, 4),))
MIX = np.float64(np.float32([0.9, 0.5, 0.75, 0.6]))


def calculate(params, constant, ema, *, weight):
    del constant  # only the teacher has no gradient, and its weights are not params
    (y,) = BATCH.views
    mix, pixels_mix = MIX[:, None], MIX[:, None, None, None]
    logits_x, stats = golden.forward(params, BATCH.labeled)
    teacher = golden.softmax(golden.forward(ema, y)[0])
    labels = teacher * mix + teacher[::-1] * (1 - mix)
    student = golden.softmax(golden.forward(params, y * pixels_mix + y[::-1] * (1 - pixels_mix))[0])
    mt = ((labels - student) ** 2).mean()
    xe = golden.cross_entropy(logits_x, np.eye(3)[LABELS]).mean()
    logs = {"loss/xe": xe, "loss/mt": mt, "consistency_weight": weight}
    return golden.Expected(xe + weight * mt, logs, stats, teacher)


@pytest.mark.parametrize(("step", "share"), [(0, 0.0), (20, 0.5), (40, 1.0), (90, 1.0)])
def test_a_golden_step(step, share):
    method = ict(consistency_weight=7.0, warmup_pos=0.4)

    def calculated(*trees):
        return calculate(*trees, weight=7.0 * share)

    golden.check(method, BATCH, MIX, calculated, step=step, num_steps=100)


def test_defaults_are_those_of_the_published_cifar_10_runs():
    def calculated(*trees):
        return calculate(*trees, weight=500.0)

    golden.check(ict(), BATCH, MIX, calculated, step=20, num_steps=100)
    np.testing.assert_array_equal(draw(ict()), draw(ict(beta=0.75)))


def draw(method):
    views = (jnp.zeros((4000, 1, 2, 1)),)
    return method.noise(jax.random.PRNGKey(0), Batch(jnp.zeros((9, 1, 2, 1)), LABELS, views))


def test_lam_is_the_larger_part_one_an_unlabelled_image():
    lam = draw(ict(beta=1.0))
    assert lam.shape == (4000,)
    assert lam.min() >= 0.5
    np.testing.assert_allclose(lam.mean(), 0.75, atol=0.01)  # Beta(1, 1) is uniform


def test_it_is_joint_with_one_weak_view():
    method = ict()
    assert (method.views, method.joint, method.init(3), method.heads) == (
        ("weak",), True, (), ()
    )  # fmt: skip


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("beta", 0.0),
        ("beta", float("nan")),
        ("consistency_weight", -1.0),
        ("consistency_weight", float("inf")),
        ("warmup_pos", 0.0),
        ("warmup_pos", 1.5),
    ],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"{argument} is {value}; allowed"):
        ict(**{argument: value})
