"""Tests golden steps of ABC, transcribed from its authors' `ABCfix.py`."""

import functools

import numpy as np
import pytest

from helpers import golden, golden_steps
from helpers.golden_steps import SIZES, B, M, one_hot
from ssljax.methods.abc import abc

EPOCHS = 4  # of 100 steps each


def mean_stats(each):
    stats = [x["BatchNorm_0"] for x in each]
    return {"BatchNorm_0": {k: sum(x[k] for x in stats) / len(stats) for k in ("mean", "var")}}


def calculate(params, given, *, tau, wu=2.0, wa=0.5):
    u, u2, u3 = given.batch.views
    x, labels = given.batch.labeled, one_hot(given.batch.labels)
    passed = [given.forward(params, images) for images in (u, x, u2, u3)]
    constant = given.forward(given.constant, u)

    def classify(features, weights=params):
        return golden.dense(weights["heads"]["fixmatch"], features)

    targets_u2 = golden.softmax(classify(constant[1], given.constant))
    p_hat, select_mask = one_hot(targets_u2.argmax(axis=1)), targets_u2.max(axis=1) >= tau
    logits_x, logits_u1, logits_u2 = (classify(features) for _, features, _ in passed[1:])
    ir2 = SIZES.class_counts.min() / SIZES.class_counts
    maskforbalance = given.noise[0] < labels @ ir2

    logitsu1 = golden.softmax(constant[0])
    select_mask2 = logitsu1.max(axis=1) >= tau
    epoch = given.step // (100 // EPOCHS)
    ir22 = 1 - (epoch / EPOCHS) * (1 - ir2)
    maskforbalanceu = given.noise[1] < one_hot(logitsu1.argmax(axis=1)) @ ir22
    abcloss = (maskforbalance * golden.cross_entropy(passed[1][0], labels)).mean()
    counted = select_mask2 * maskforbalanceu
    abclossu = sum(
        (counted * golden.cross_entropy(logits, logitsu1)).mean() for logits, _, _ in passed[2:]
    )
    lx = golden.cross_entropy(logits_x, labels).mean()
    both = np.concatenate([logits_u1, logits_u2])
    lu = (
        golden.cross_entropy(both, np.concatenate([p_hat, p_hat])) * np.tile(select_mask, 2)
    ).mean()
    logs = {"loss/xe": lx, "loss/xeu": lu, "loss/abc": abcloss, "loss/abcu": abclossu}
    total = lx + wu * lu + wa * (abcloss + abclossu)
    stats = mean_stats([stats for _, _, stats in passed])
    return golden.Expected(total, logs, stats, logitsu1, given.state), counted


@functools.cache
def steps(tau):
    method = abc(threshold=tau, unlabeled_weight=2.0, abc_weight=0.5, epochs=EPOCHS)
    return golden_steps.Steps(method)


@pytest.mark.parametrize("start", [0, 49, 98])
def test_golden_steps(start):
    """Guesses count with decreasing probability, in steps at quarters of the run."""
    counted = []

    def calculated(params, given):
        expected, mask = calculate(params, given, tau=0.6)
        counted.append(mask.sum())
        return expected

    steps(0.6).check(calculated, start=start)
    assert 0 < counted[0] < M


@pytest.mark.slow
@pytest.mark.parametrize(("tau", "counted"), [(0.0, M), (1.0, 0)])
def test_no_image_and_all_images(tau, counted):
    def calculated(params, given):
        expected, mask = calculate(params, given, tau=tau)
        assert mask.sum() == counted
        return expected

    steps(tau).check(calculated, steps=1)


def test_state_and_arguments():
    method = abc()
    assert (method.views, method.joint) == (("weak", "strong", "strong"), True)
    np.testing.assert_allclose(method.init(SIZES)["rate"], [1 / 3, 1 / 2, 1])
    assert sum(SIZES.batch) == B + M
    for name, value in (("threshold", 1.5), ("abc_weight", -1.0), ("epochs", 0)):
        with pytest.raises(ValueError, match=f"{name} is {value}; allowed"):
            abc(**{name: value})
