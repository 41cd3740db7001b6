"""Tests golden steps of debiased pseudo-labelling, transcribed from `main_DebiasPL.py`."""

import functools

import numpy as np
import pytest

from helpers import golden, golden_steps
from helpers.golden_steps import SIZES, B, M, evaluate, one_hot
from ssljax.methods.debiaspl import debiaspl


def get_centroids(prob):
    cl = prob.argmin(axis=1)
    centres = np.zeros((3, 3))
    for group in range(3):
        if (cl == group).any():
            centres[group] = prob[cl == group].mean(axis=0)
    return cl, centres


def cld_loss(prob_s, prob_w):
    cl_w, c_w = get_centroids(prob_w)
    return golden.cross_entropy(prob_s @ c_w.T / 0.07, one_hot(cl_w)).mean()


def calculate(params, given, *, views, eman, threshold=0.7, tau=0.4, m=0.9, wu=2.0, cld=0.3):
    weak, strong = given.batch.views[:views], given.batch.views[views:]
    x = given.batch.labeled
    if eman:
        logits, _, stats = given.forward(params, x, *strong)
        weak_logits = [evaluate(given.ema, w, given.ema_stats)[0] for w in weak]
    else:
        logits, _, stats = given.forward(params, x, *weak, *strong)
        fixed = given.forward(given.constant, x, *weak, *strong)[0]
        weak_logits = np.split(fixed[B : B + M * views], views)
    logits_x, logits_s = logits[:B], np.split(logits[-M * views :], views)
    logits_u_w, logits_u_s = sum(weak_logits) / views, sum(logits_s) / views

    qhat = given.state
    targets, masks = [], []
    for w in [logits_u_w, *(weak_logits if views == 2 else [])]:
        pseudo_label = golden.softmax(w - tau * np.log(qhat))
        targets.append(pseudo_label.argmax(axis=1))
        masks.append(pseudo_label.max(axis=1) >= threshold)
    guess = golden.softmax(logits_u_w - tau * np.log(qhat))
    qhat = m * qhat + (1 - m) * golden.softmax(logits_u_w).mean(axis=0)
    logits_s = [s + tau * np.log(qhat) for s in logits_s]
    loss_u = sum(
        (golden.cross_entropy(s, one_hot(target)) * mask).mean()
        for target, mask in zip(targets, masks, strict=True)
        for s in logits_s
    ) / (len(targets) * views)
    loss_x = golden.cross_entropy(logits_x, one_hot(given.batch.labels)).mean()
    logs = {"loss/xe": loss_x, "loss/xeu": loss_u}
    total = loss_x + wu * loss_u
    if cld:
        prob_s = golden.softmax(logits_u_s if views == 2 else logits_s[0])
        logs["loss/cld"] = cld_loss(prob_s, golden.softmax(logits_u_w))
        total = total + cld * logs["loss/cld"]
    return golden.Expected(total, logs, stats, guess, qhat), masks[0]


@functools.cache
def steps(views, teacher, threshold, cld=0.3):
    method = debiaspl(
        views=views, teacher=teacher, threshold=threshold, momentum=0.9, unlabeled_weight=2.0,
        cld_weight=cld,
    )  # fmt: skip
    return golden_steps.Steps(method, average_batch_stats=True)


def check(views, teacher, threshold, **options):
    masks = []

    def calculated(params, given):
        arguments = dict(views=views, eman=teacher == "ema", threshold=threshold)
        expected, mask = calculate(params, given, **arguments, **options)
        masks.append(mask)
        return expected

    steps(views, teacher, threshold, **options).check(calculated)
    return masks[0].sum()


def test_golden_steps():
    assert 0 < check(2, "ema", 0.7) < M


@pytest.mark.slow
@pytest.mark.parametrize(
    ("views", "teacher", "threshold", "counted"),
    [(1, "self", 0.7, range(1, M)), (1, "ema", 0.0, {M}), (2, "self", 1.0, {0})],
)
def test_one_view_no_teacher_and_thresholds(views, teacher, threshold, counted):
    assert check(views, teacher, threshold) in counted
    check(views, teacher, threshold, cld=0.0)


def test_state_and_arguments():
    assert debiaspl().views == ("weak", "weak", "strong", "strong")
    assert (debiaspl(views=1).views, debiaspl().joint) == (("weak", "strong"), True)
    np.testing.assert_allclose(debiaspl().init(SIZES), np.full(3, 1 / 3))
    for name, value in (
        ("threshold", 1.5),
        ("tau", -1.0),
        ("momentum", 2.0),
        ("views", 3),
        ("cld_weight", -1.0),
        ("teacher", "eman"),
    ):
        with pytest.raises(ValueError, match=f"{name} is {value!r}; allowed"):
            debiaspl(**{name: value})
