"""Tests golden steps of CReST+, transcribed from `util/semisup.py`, and its selection."""

import functools

import numpy as np
import pytest

from helpers import golden, golden_steps
from helpers.golden_steps import SIZES, M, one_hot
from ssljax.methods.crest import _pick_labels, crest


def calculate(params, given, *, threshold, target=None):
    x, probs, strong, stats = golden_steps.weak_and_strong(params, given)
    state = given.state
    if target is not None:
        p_model = given.state["guesses"].mean(axis=0)
        p_model = p_model / p_model.sum()
        entry = probs.mean(axis=0)
        probs = probs * (1e-6 + target) / (1e-6 + p_model)
        probs = probs / probs.sum(axis=1, keepdims=True)
        state = state | {"guesses": np.concatenate([state["guesses"][1:], [entry]])}
    mask = probs.max(axis=1) >= threshold
    xe = golden.cross_entropy(x, one_hot(given.batch.labels)).mean()
    xeu = (golden.cross_entropy(strong, one_hot(probs.argmax(axis=1))) * mask).mean()
    logs = {"loss/xe": xe, "loss/xeu": xeu}
    return golden.Expected(xe + 2 * xeu, logs, stats, probs, state), mask


@functools.cache
def steps(threshold, **arguments):
    return golden_steps.Steps(crest(threshold=threshold, unlabeled_weight=2.0, **arguments))


def check(threshold, target, **arguments):
    masks = []

    def calculated(params, given):
        expected, mask = calculate(params, given, threshold=threshold, target=target)
        masks.append(mask)
        return expected

    steps(threshold, **arguments).check(calculated)
    return masks[0].sum()


def power(frequencies, t):
    raised = (np.array(frequencies) / np.sum(frequencies)) ** t
    return raised / raised.sum()


def test_golden_steps_of_the_third_of_five_generations():
    target = power([90, 9, 1], 0.75)
    assert 0 < check(0.8, target, generations=5, generation=2, class_prior=(90.0, 9.0, 1.0)) < M


@pytest.mark.slow
def test_golden_steps_of_the_first_generation_and_without_alignment():
    assert check(0.0, power(SIZES.class_counts, 1.0)) == M
    assert check(1.0, None, dist_align=False) == 0


def test_rare_classes_are_picked_more_often():
    """`get_split` of `data/cifar.py`, whose classes are sorted by frequency."""
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(4), 1000)
    counts = np.array([100, 30, 10, 1])
    labels = _pick_labels(probabilities, counts, 3.0)
    scores, predicted = probabilities.max(axis=1), probabilities.argmax(axis=1)
    gt_p_data = counts / counts.sum()
    sample_rate = gt_p_data[::-1] / gt_p_data[0]
    for c in range(4):
        where = np.flatnonzero(predicted == c)
        idx = where[np.argsort(-scores[where], kind="stable")]
        num_picked = int(len(idx) * np.power(sample_rate[c], 1 / 3))
        assert sorted(np.flatnonzero(labels == c)) == sorted(idx[:num_picked])
    assert (predicted == 3).sum() == (labels == 3).sum()


def test_classes_need_not_be_sorted_by_frequency():
    probabilities = np.random.default_rng(1).dirichlet(np.ones(3), 300)
    order = np.array([2, 0, 1])
    sorted_labels = _pick_labels(probabilities, np.array([50, 20, 5]), 2.0)
    labels = _pick_labels(probabilities[:, order], np.array([50, 20, 5])[order], 2.0)
    where = np.append(np.argsort(order), -1)
    np.testing.assert_array_equal(labels, where[sorted_labels])


def test_state_and_arguments():
    method = crest()
    assert (method.views, method.joint, method.generations.number) == (("weak", "strong"), True, 6)
    np.testing.assert_allclose(method.init(SIZES)["target"], SIZES.class_counts / 6)
    assert crest(dist_align=False).init(SIZES) == ()
    last = crest(generation=5).init(SIZES)["target"]
    np.testing.assert_allclose(last, power(SIZES.class_counts, 0.5), rtol=1e-6)
    for name, value in (
        ("threshold", 1.5),
        ("alpha", 0.0),
        ("generations", 0),
        ("generation", 6),
        ("last_power", -1.0),
    ):
        with pytest.raises(ValueError, match=f"{name} is {value}; allowed"):
            crest(**{name: value})
