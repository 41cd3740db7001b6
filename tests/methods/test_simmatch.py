"""Tests golden steps of SimMatch, transcribed from its authors' `models/simmatch.py` and USB."""

import functools

import numpy as np
import pytest

from helpers import golden, golden_steps
from helpers.golden_steps import SIZES, B, M, evaluate, one_hot
from ssljax.methods.simmatch import simmatch

DIM, QUEUE = 4, 3


def relu(x):
    return x * (x.real > 0)


def project(weights, features):
    heads = weights["heads"]["projection"]
    each = [heads] if "Dense_0" in heads else list(heads.values())
    hidden = [relu(golden.dense(w["Dense_0"], features)) for w in each]
    embedding = sum(golden.dense(w["Dense_1"], x) for w, x in zip(each, hidden, strict=True))
    return embedding / np.sqrt((embedding**2).sum(axis=1, keepdims=True))


def passes(params, given, teacher):
    x, (w, s) = given.batch.labeled, given.batch.views
    if teacher == "self":
        logits, features, stats = given.forward(params, x, w, s)
        fixed, fixed_features, _ = given.forward(given.constant, x, w, s)
        student = np.delete(logits, np.s_[B : B + M], 0), np.delete(features, np.s_[B : B + M], 0)
        teacher_logits, feat_k = fixed[: B + M], project(given.constant, fixed_features[: B + M])
    else:
        *student, stats = given.forward(params, x, s)
        if teacher == "eman":
            teacher_logits, features = evaluate(given.ema, np.concatenate([x, w]), given.ema_stats)
        else:
            teacher_logits, features, _ = given.forward(given.ema, x, w)
        feat_k = project(given.ema, features)
    logits_q, feat_q = student[0], project(params, student[1])
    return logits_q[:B], logits_q[B:], feat_q[B:], teacher_logits[B:], feat_k[:B], feat_k[B:], stats


def calculate(
    params, given, *, threshold, teacher="ema", start=2, t=0.2, c_smooth=0.8, wu=2.0, wi=1.5, keep=0
):
    state = given.state
    bank, labels = state["bank"].T, state["labels"]
    logits_qx, logits_qu, feat_qu, logits_ku, feat_kx, feat_ku, stats = passes(
        params, given, teacher
    )
    prob = golden.softmax(logits_ku)
    queue = np.concatenate([state["guesses"][1:], prob.mean(axis=0)[None]])
    prob = prob / queue.mean(axis=0)
    prob = prob / prob.sum(axis=1, keepdims=True)
    loss_in = 0.0
    if given.step >= start:
        teacher_prob_orig = golden.softmax(feat_ku @ bank / t)
        teacher_prob = teacher_prob_orig * prob[:, labels]
        teacher_prob = teacher_prob / teacher_prob.sum(axis=1, keepdims=True)
        aggregated = np.zeros((M, 3))
        for column, label in enumerate(labels):
            aggregated[:, label] += teacher_prob_orig[:, column]
        prob = prob * c_smooth + aggregated * (1 - c_smooth)
        student_prob = golden.softmax(feat_qu @ bank / t)
        loss_in = (-teacher_prob * np.log(student_prob)).sum(axis=1).mean()

    bank, labels = state["bank"].copy(), labels.copy()
    for index, label, embedding in zip(
        given.batch.labeled_index, given.batch.labels, feat_kx, strict=True
    ):
        mixed = keep * state["bank"][index] + (1 - keep) * embedding
        bank[index], labels[index] = mixed / np.sqrt((mixed**2).sum()), label
    mask = prob.max(axis=1) >= threshold
    loss_x = golden.cross_entropy(logits_qx, one_hot(given.batch.labels)).mean()
    loss_u = (golden.cross_entropy(logits_qu, prob) * mask).mean()
    logs = {"loss/xe": loss_x, "loss/xeu": loss_u, "loss/instance": loss_in}
    total = loss_x + wu * loss_u + wi * loss_in
    after = {"bank": bank, "labels": labels, "guesses": queue}
    return golden.Expected(total, logs, stats, prob, after), mask


@functools.cache
def steps(threshold, **arguments):
    method = simmatch(
        threshold=threshold, unlabeled_weight=2.0, instance_weight=1.5, temperature=0.2,
        smoothing=0.8, warmup_steps=2, alignment_steps=QUEUE, embedding=DIM, **arguments,
    )  # fmt: skip
    return golden_steps.Steps(method)


@pytest.mark.parametrize("twice", [False, True])
def test_golden_steps(twice):
    """Two steps of the first epoch, and two steps after it."""
    masks = []

    def calculated(params, given):
        expected, mask = calculate(params, given, threshold=0.8)
        masks.append(mask.sum())
        return expected

    steps(0.8).check(calculated, steps=4, twice=twice)
    assert 0 < masks[0] < M


@pytest.mark.slow
@pytest.mark.parametrize(("threshold", "counted"), [(0.0, M), (1.0, 0)])
def test_no_image_and_all_images(threshold, counted):
    def calculated(params, given):
        expected, mask = calculate(params, given, threshold=threshold)
        assert mask.sum() == counted
        return expected

    steps(threshold).check(calculated, steps=1, start=5)


@pytest.mark.slow
def test_one_network_three_projectors_and_a_bank_that_moves_slowly():
    arguments = dict(teacher="self", keep=0.7)

    def calculated(params, given):
        return calculate(params, given, threshold=0.8, **arguments)[0]

    method = steps(0.8, teacher="self", bank_momentum=0.7, projectors=3)
    method.check(calculated, steps=4, twice=True)


@pytest.mark.slow
def test_a_teacher_in_evaluation_mode():
    def calculated(params, given):
        return calculate(params, given, threshold=0.8, teacher="eman")[0]

    steps(0.8, teacher="eman").check(calculated, steps=3)


def test_state_and_arguments():
    method = simmatch()
    assert (method.views, method.joint) == (("weak", "strong"), True)
    state = method.init(SIZES)
    np.testing.assert_allclose(np.linalg.norm(state["bank"], axis=1), np.ones(6), rtol=1e-6)
    assert (state["bank"].shape, state["guesses"].shape) == ((6, 128), (256, 3))
    for name, value in (
        ("threshold", 1.5),
        ("temperature", 0.0),
        ("smoothing", 1.1),
        ("instance_weight", -1.0),
        ("alignment_steps", 0),
        ("projectors", 0),
        ("teacher", "other"),
    ):
        with pytest.raises(ValueError, match=f"{name} is {value!r}; allowed"):
            simmatch(**{name: value})
