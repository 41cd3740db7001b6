"""Tests golden steps of AdaMatch, transcribed from `semi_supervised/adamatch.py` and from USB."""

import functools

import jax
import numpy as np
import pytest

from helpers import golden, golden_steps
from helpers.golden_steps import SIZES, B, M, one_hot
from ssljax.methods.adamatch import adamatch


def authors(weights, given):
    """Returns logits of labelled and unlabelled images (weak, strong each), and statistics."""
    weak, strong = given.batch.views
    sx = np.concatenate([given.batch.labeled, *given.batch.more_labeled])
    logit_bn_x, _, _ = given.forward(weights, sx)
    logit, _, stats = given.forward(weights, sx, weak, strong)
    logit_sx, logit_tu_weak, logit_tu_strong = np.split(logit, [2 * B, 2 * B + M])
    uniform = np.float64(jax.random.uniform(given.noise, logit_sx.shape))
    logit_sx = logit_sx + (logit_bn_x - logit_sx) * uniform
    return logit_sx[:B], logit_sx[B:], logit_tu_weak, logit_tu_strong, stats


def phases(progress, wu):
    """`ScheduleCosPhases(1, [(0.5, 1), (1, wu)], start_value=0)`."""
    start, gain, cur_gain = 0.0, 0.0, 0.0
    for stop, next_gain in ((0.5, 1.0), (1.0, wu)):
        scale = 0.5 - 0.5 * np.cos(np.pi * (progress - start) / (stop - start))
        if start <= progress <= stop:
            gain = cur_gain + (next_gain - cur_gain) * scale
        cur_gain, start = next_gain, stop
    return gain


def calculate(params, given, *, confidence, wu=1.5, m=0.9):
    weak_x, strong_x, _, strong, stats = authors(params, given)
    fixed_x, _, fixed_weak, _, _ = authors(given.constant, given)
    real_confidence = golden.softmax(fixed_x)
    confidence_ratio = real_confidence.max(axis=1).mean() * confidence
    pseudo_labels = golden.softmax(fixed_weak)
    p_labeled = m * given.state["labeled"] + (1 - m) * real_confidence.mean(axis=0)
    buffer = np.concatenate([given.state["guesses"][1:], pseudo_labels.mean(axis=0)[None]])
    pseudo_labels = pseudo_labels * (1e-6 + p_labeled) / (1e-6 + buffer.mean(axis=0))
    pseudo_labels = pseudo_labels / pseudo_labels.sum(axis=1, keepdims=True)
    mask = pseudo_labels.max(axis=1) >= confidence_ratio

    labels = one_hot(given.batch.labels)
    xe = 0.5 * (
        golden.cross_entropy(weak_x, labels).mean() + golden.cross_entropy(strong_x, labels).mean()
    )
    xeu = (golden.cross_entropy(strong, one_hot(pseudo_labels.argmax(axis=1))) * mask).mean()
    weight = phases(given.step / 100, wu)
    logs = {
        "loss/xe": xe,
        "loss/xeu": xeu,
        "threshold": confidence_ratio,
        "unlabeled_weight": weight,
    }
    state = {"labeled": p_labeled, "guesses": buffer}
    return golden.Expected(xe + weight * xeu, logs, stats, pseudo_labels, state), mask


def usb(params, given, *, confidence, m=0.9):
    x, probs, strong, stats = golden_steps.weak_and_strong(params, given)
    images = given.batch.labeled, *given.batch.views
    probs_x = golden.softmax(given.forward(given.constant, *images)[0][:B])
    p_model = probs.mean(axis=0)
    if given.step > 0:
        p_model = given.state["guesses"] * m + p_model * (1 - m)
    p_target = given.state["labeled"] * m + probs_x.mean(axis=0) * (1 - m)
    aligned = probs * (p_target + 1e-6) / (p_model + 1e-6)
    aligned = aligned / aligned.sum(axis=1, keepdims=True)
    p_cutoff = probs_x.max(axis=1).mean() * confidence
    mask = aligned.max(axis=1) >= p_cutoff

    sup = golden.cross_entropy(x, one_hot(given.batch.labels)).mean()
    unsup = (golden.cross_entropy(strong, one_hot(aligned.argmax(axis=1))) * mask).mean()
    logs = {"loss/xe": sup, "loss/xeu": unsup, "threshold": p_cutoff, "unlabeled_weight": 1.0}
    state = {"labeled": p_target, "guesses": p_model}
    return golden.Expected(sup + unsup, logs, stats, aligned, state), mask


@functools.cache
def steps(confidence, **arguments):
    return golden_steps.Steps(adamatch(threshold=confidence, momentum=0.9, **arguments))


def check(transcription, confidence, start, **arguments):
    masks = []

    def calculated(params, given):
        expected, mask = transcription(params, given, confidence=confidence)
        masks.append(mask)
        return expected

    steps(confidence, **arguments).check(calculated, start=start)
    return masks[0].sum()


def test_golden_steps_of_the_authors():
    """λu rises, and reaches its final value in the middle of the run."""
    assert 0 < check(calculate, 0.9, 0, unlabeled_weight=1.5) < M
    check(calculate, 0.9, 49, unlabeled_weight=1.5)
    check(calculate, 0.9, 98, unlabeled_weight=1.5)


@pytest.mark.slow
@pytest.mark.parametrize(("confidence", "counted"), [(0.0, {M}), (1.0, range(1, M))])
def test_thresholds_of_the_authors(confidence, counted):
    assert check(calculate, confidence, 30, unlabeled_weight=1.5) in counted


def test_golden_steps_of_usb():
    assert 0 < check(usb, 0.95, 0, variant="usb") < M


def test_what_each_variant_asks_for():
    method = adamatch()
    assert (method.views, method.joint) == (("weak", "strong"), True)
    assert (method.labeled_view, method.more_labeled_views) == ("weak", ("strong",))
    assert method.init(SIZES)["guesses"].shape == (128, 3)
    variant = adamatch(variant="usb", threshold=0.95)
    assert (variant.more_labeled_views, variant.noise(None, None)) == ((), ())
    np.testing.assert_allclose(variant.init(SIZES)["guesses"], np.full(3, 1 / 3))
    for name, value in (("threshold", 1.5), ("momentum", -0.1), ("variant", "torchssl")):
        with pytest.raises(ValueError, match=f"{name} is {value!r}; allowed"):
            adamatch(**{name: value})
