"""Tests golden steps of SoftMatch, transcribed from `softmatch.py` of USB."""

import functools

import numpy as np
import pytest

from helpers import golden, golden_steps
from helpers.golden_steps import SIZES, B, one_hot
from helpers.tiny import tiny_config
from ssljax import recipe
from ssljax.errors import UsageError
from ssljax.methods.softmatch import softmatch


def calculate(params, given, *, m=0.9, n_sigma=2, wu=1.0, dist_align=True, dist_uniform=True):
    x, probs, strong, stats = golden_steps.weak_and_strong(params, given)
    state = given.state
    p_model = probs.mean(axis=0)
    if given.step > 0:
        p_model = state["guesses"] * m + p_model * (1 - m)
    p_target = state["target"]
    if not dist_uniform:
        images = given.batch.labeled, *given.batch.views
        labeled = golden.softmax(given.forward(given.constant, *images)[0][:B])
        p_target = p_target * m + labeled.mean(axis=0) * (1 - m)
    aligned = probs
    if dist_align:
        aligned = probs * (p_target + 1e-6) / (p_model + 1e-6)
        aligned = aligned / aligned.sum(axis=1, keepdims=True)
    max_probs = aligned.max(axis=1)
    mu = m * state["mean"] + (1 - m) * max_probs.mean()
    var = m * state["variance"] + (1 - m) * max_probs.var(ddof=1)
    mask = np.exp(-(np.minimum(max_probs - mu, 0.0) ** 2) / (2 * var / n_sigma**2))

    sup = golden.cross_entropy(x, one_hot(given.batch.labels)).mean()
    unsup = (golden.cross_entropy(strong, one_hot(probs.argmax(axis=1))) * mask).mean()
    logs = {"loss/xe": sup, "loss/xeu": unsup, "confidence/mean": mu, "confidence/var": var}
    after = {"mean": mu, "variance": var, "guesses": p_model, "target": p_target}
    return golden.Expected(sup + wu * unsup, logs, stats, probs, after), mask


@functools.cache
def steps(**arguments):
    return golden_steps.Steps(softmatch(momentum=0.9, **arguments))


# The average confidence before the first step: all, some or no images are above it.
@pytest.mark.parametrize(("mean", "full"), [(1 / 3, {8}), (0.85, range(1, 8)), (1.2, {0})])
def test_golden_steps(mean, full):
    masks = []

    def calculated(params, given):
        expected, mask = calculate(params, given, wu=2.0)
        masks.append(mask)
        return expected

    uniform = np.full(3, 1 / 3)
    state = {"mean": np.float64(mean), "variance": np.float64(0.04), "guesses": uniform}
    steps(unlabeled_weight=2.0).check(calculated, state=state | {"target": uniform})
    assert (masks[0] == 1).sum() in full
    assert masks[0].min() > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"dist_uniform": False}, {"dist_align": False}, {"n_sigma": 3}], ids=str
)
def test_options(options):
    steps(**options).check(lambda *x: calculate(*x, **options)[0], start=1)


def test_state_and_arguments():
    method = softmatch()
    assert (method.views, method.joint) == (("weak", "strong"), True)
    state = method.init(SIZES)
    assert state.pop("variance") == 1
    for value in state.values():
        np.testing.assert_allclose(value, 1 / 3)
    for name, value in (("momentum", 1.5), ("n_sigma", 0.0), ("unlabeled_weight", -1.0)):
        with pytest.raises(ValueError, match=f"{name} is {value}; allowed"):
            softmatch(**{name: value})


def test_one_unlabelled_image_per_step_has_no_variance():
    config = tiny_config("softmatch")
    config.batch_size = config.uratio = 1
    with pytest.raises(UsageError, match="batch_size · uratio is 1; allowed: from 2"):
        recipe.build(config, max_devices=1)
