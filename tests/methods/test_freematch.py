"""Tests golden steps of FreeMatch, transcribed from `freematch.py` of USB."""

import functools

import numpy as np
import pytest

from helpers import golden, golden_steps
from helpers.golden_steps import SIZES, M, one_hot
from ssljax.methods.freematch import freematch


def replace_inf_to_zero(x):
    with np.errstate(divide="ignore"):
        return np.where(np.isinf(1 / x), 0.0, 1 / x)


def entropy_loss(mask, logits_s, prob_model, label_hist):
    prob_s = golden.softmax(logits_s[mask])
    hist_s = np.bincount(prob_s.real.argmax(axis=1), minlength=3) / mask.sum()
    mod_prob_model = prob_model * replace_inf_to_zero(label_hist)
    mod_prob_model = mod_prob_model / mod_prob_model.sum()
    mod_mean_prob_s = prob_s.mean(axis=0) * replace_inf_to_zero(hist_s)
    mod_mean_prob_s = mod_mean_prob_s / mod_mean_prob_s.sum()
    return (mod_prob_model * np.log(mod_mean_prob_s + 1e-12)).sum()


def calculate(params, given, *, m=0.9, wu=1.0, wf=0.3, use_quantile=False, clip=False):
    x, probs, strong, stats = golden_steps.weak_and_strong(params, given)
    state = given.state
    max_probs, max_idx = probs.max(axis=1), probs.argmax(axis=1)
    seen = np.quantile(max_probs, 0.8) if use_quantile else max_probs.mean()
    time_p = state["threshold"] * m + (1 - m) * seen
    time_p = np.clip(time_p, 0.0, 0.95) if clip else time_p
    p_model = state["probabilities"] * m + (1 - m) * probs.mean(axis=0)
    label_hist = state["predicted"] * m + (1 - m) * np.bincount(max_idx, minlength=3) / M
    mask = max_probs >= time_p * (p_model / p_model.max())[max_idx]

    sup = golden.cross_entropy(x, one_hot(given.batch.labels)).mean()
    unsup = (golden.cross_entropy(strong, one_hot(max_idx)) * mask).mean()
    ent = entropy_loss(mask, strong, p_model, label_hist) if mask.any() else 0.0
    logs = {"loss/xe": sup, "loss/xeu": unsup, "loss/fairness": ent, "threshold": time_p}
    after = {"threshold": time_p, "probabilities": p_model, "predicted": label_hist}
    total = sup + wu * unsup + wf * ent
    return golden.Expected(total, logs, stats, probs, after), mask


@functools.cache
def steps(**arguments):
    return golden_steps.Steps(freematch(momentum=0.9, fairness_weight=0.3, **arguments))


# Thresholds before the first step: as published, and such that a few or no images count.
@pytest.mark.parametrize(("threshold", "counted"), [(1 / 3, M), (0.95, 3), (1.3, 0)])
def test_golden_steps(threshold, counted):
    masks = []

    def calculated(params, given):
        expected, mask = calculate(params, given, wu=2.0)
        masks.append(mask)
        return expected

    uniform = np.full(3, 1 / 3)
    state = {"threshold": np.float64(threshold), "probabilities": uniform, "predicted": uniform}
    steps(unlabeled_weight=2.0).check(calculated, state=state)
    assert masks[0].sum() == counted


@pytest.mark.parametrize(
    "options", [{"use_quantile": True}, pytest.param({"clip": True}, marks=pytest.mark.slow)]
)
def test_options(options):
    renamed = {"clip_thresh" if name == "clip" else name: x for name, x in options.items()}
    state = {
        "threshold": np.float64(1.1),
        "probabilities": np.full(3, 1 / 3),
        "predicted": np.array([0.0, 0.5, 0.5]),  # the last class was never predicted
    }
    steps(**renamed).check(lambda *x: calculate(*x, **options)[0], state=state, steps=1)


def test_state_and_arguments():
    method = freematch()
    assert (method.views, method.joint) == (("weak", "strong"), True)
    for value in method.init(SIZES).values():
        np.testing.assert_allclose(value, 1 / 3)
    for name, value in (("momentum", 1.5), ("fairness_weight", -1.0), ("unlabeled_weight", -1.0)):
        with pytest.raises(ValueError, match=f"{name} is {value}; allowed"):
            freematch(**{name: value})
