"""Tests golden steps of IOMatch, transcribed from `iomatch.py` of nukezil/IOMatch."""

import functools

import numpy as np
import pytest

from helpers import golden, golden_steps
from helpers.golden_steps import SIZES, B, M, one_hot
from ssljax.methods import iomatch as module
from ssljax.methods.iomatch import iomatch


def heads(weights, features):
    head = weights["heads"]["open_set"]
    hidden = golden.dense(head["projection"]["Dense_0"], features)
    projected = golden.dense(head["projection"]["Dense_1"], hidden * (hidden.real > 0))
    mb = golden.dense(head["one_vs_all"], projected).reshape(len(features), 2, 3)
    r = np.exp(mb) / np.exp(mb).sum(axis=1, keepdims=True)
    return r, golden.dense(head["open"], projected)


def mb_sup_loss(probs_ova, label):
    positive = one_hot(label)
    outside = -np.log(probs_ova[:, 0] + 1e-8) * (1 - positive)
    worst = outside[np.arange(len(label)), outside.real.argmax(axis=1)]
    return worst.mean() + (-np.log(probs_ova[:, 1] + 1e-8) * positive).sum(axis=1).mean()


def calculate(params, given, *, p_cutoff, align=True, q_cutoff=0.7, start=1):
    images = given.batch.labeled, *given.batch.views
    logits, features, stats = given.forward(params, *images)
    ova, opened = heads(params, features)
    fixed, fixed_features, _ = given.forward(given.constant, *images)
    weak = np.s_[B : B + M]
    state = given.state

    targets_p = golden.softmax(fixed[weak])
    if align:
        p_model = np.concatenate([state["guesses"][1:], targets_p.mean(axis=0)[None]])
        targets_p = targets_p * (1 / 3 + 1e-6) / (p_model.mean(axis=0) + 1e-6)
        targets_p = targets_p / targets_p.sum(axis=1, keepdims=True)
        state = {"guesses": p_model}
    r = heads(given.constant, fixed_features)[0][weak]
    out_scores = (targets_p * r[:, 0]).sum(axis=1)
    in_mask = out_scores < 0.5
    targets_q = np.concatenate([targets_p * r[:, 1], out_scores[:, None]], axis=1)
    p_mask, q_mask = targets_p.max(axis=1) >= p_cutoff, targets_q.max(axis=1) >= q_cutoff

    sup_closed = golden.cross_entropy(logits[:B], one_hot(given.batch.labels)).mean()
    sup_mb = mb_sup_loss(ova[:B], given.batch.labels)
    ui = (golden.cross_entropy(logits[B + M :], targets_p) * in_mask * p_mask).mean()
    op = (golden.cross_entropy(opened[B + M :], targets_q) * q_mask).mean()
    op = op if given.step >= start else 0.0
    logs = {
        "loss/xe": sup_closed,
        "loss/one_vs_all": sup_mb,
        "loss/xeu": ui,
        "loss/open": op,
        "foreign": 1 - in_mask.mean(),
    }
    total = sup_closed + 0.7 * sup_mb + 2 * ui + 0.4 * op
    return golden.Expected(total, logs, stats, targets_p, state), (in_mask, p_mask, q_mask)


@functools.cache
def steps(threshold, align=True):
    method = iomatch(
        threshold=threshold, unlabeled_weight=2.0, one_vs_all_weight=0.7, open_weight=0.4,
        dist_align=align, warmup_steps=1, open_threshold=0.7,
    )  # fmt: skip
    return golden_steps.Steps(method)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Reduces the layer: a complex step for each of 128 × 5 weights would take minutes."""
    monkeypatch.setattr(module, "_EMBEDDING", 4)
    monkeypatch.setattr(module, "_STEPS", 3)


def test_golden_steps():
    """A step of the first epoch, and two steps after it."""
    masks = []

    def calculated(params, given):
        expected, mask = calculate(params, given, p_cutoff=0.7)
        masks.append(mask)
        return expected

    steps(0.7).check(calculated, steps=3)
    for mask in masks[0]:
        assert 0 < mask.sum() < M


@pytest.mark.slow
@pytest.mark.parametrize(("threshold", "counted"), [(0.0, M), (1.0, 0)])
def test_thresholds_and_no_alignment(threshold, counted):
    def calculated(params, given):
        expected, (_, mask, _) = calculate(params, given, p_cutoff=threshold, align=False)
        assert mask.sum() == counted
        return expected

    steps(threshold, align=False).check(calculated)


def test_state_and_arguments():
    method = iomatch()
    assert (method.views, method.joint) == (("weak", "strong"), True)
    assert [head.name for head in method.heads] == ["open_set"]
    assert method.init(SIZES)["guesses"].shape == (3, 3)
    assert iomatch(dist_align=False).init(SIZES) == ()
    for name, value in (
        ("threshold", 1.5),
        ("open_threshold", -0.1),
        ("one_vs_all_weight", -1.0),
        ("warmup_steps", -1),
    ):
        with pytest.raises(ValueError, match=f"{name} is {value}; allowed"):
            iomatch(**{name: value})
