"""Tests golden steps of FlexMatch, transcribed from `flexmatch.py` of TorchSSL and USB."""

import functools
from collections import Counter

import numpy as np
import pytest

from helpers import golden, golden_steps
from helpers.golden_steps import UNLABELED, B, M, one_hot
from ssljax.methods.flexmatch import flexmatch


def calculate(params, given, *, threshold, warmup=True, wu=1.0):
    x, pseudo_label, strong, stats = golden_steps.weak_and_strong(params, given)
    class_acc = given.state["share"]
    max_probs, max_idx = pseudo_label.max(axis=1), pseudo_label.argmax(axis=1)
    mask = max_probs >= threshold * (class_acc[max_idx] / (2.0 - class_acc[max_idx]))
    select = max_probs >= threshold
    selected_label = given.state["chosen"].copy()
    for index, chosen, label in zip(given.batch.unlabeled_index, select, max_idx, strict=True):
        if chosen:
            selected_label[index] = label

    counter = Counter({-1: 0, 0: 0, 1: 0, 2: 0}) + Counter(selected_label.tolist())
    class_acc = class_acc.copy()
    if max(counter.values()) < len(selected_label):
        largest = max(n for label, n in counter.items() if warmup or label != -1)
        class_acc = np.array([counter[c] / largest for c in range(3)])

    sup = golden.cross_entropy(x, one_hot(given.batch.labels)).mean()
    unsup = (golden.cross_entropy(strong, one_hot(max_idx)) * mask).mean()
    share = given.state["share"]
    logs = {
        "loss/xe": sup,
        "loss/xeu": unsup,
        "threshold": (threshold * share / (2 - share)).mean(),
    }
    state = {"chosen": selected_label, "share": class_acc}
    return golden.Expected(sup + wu * unsup, logs, stats, pseudo_label, state)


@functools.cache
def steps(**arguments):
    return golden_steps.Steps(flexmatch(**arguments))


@pytest.mark.parametrize("twice", [False, True])
def test_golden_steps(twice):
    found = steps(threshold=0.75, unlabeled_weight=2.0).check(
        functools.partial(calculate, threshold=0.75, wu=2.0), steps=3, twice=twice
    )
    assert (found[0].state["chosen"] >= 0).sum() in range(2, M)
    assert found[1].state["share"].min() > 0 or found[1].state["share"].max() > 0


def test_shares_of_the_images_with_a_guess_alone():
    check = functools.partial(calculate, threshold=0.75, warmup=False)
    (found,) = steps(threshold=0.75, thresh_warmup=False).check(check, steps=1)
    assert found.state["share"].max() == 1


def test_without_a_confident_guess_nothing_is_remembered_and_every_image_counts():
    never = functools.partial(calculate, threshold=1.0)
    found = steps(threshold=1.0).check(never)
    for expected in found:
        np.testing.assert_array_equal(expected.state["chosen"], -1)
        np.testing.assert_array_equal(expected.state["share"], 0)
    always = functools.partial(calculate, threshold=0.0)
    (expected,) = steps(threshold=0.0).check(always, steps=1)
    assert (expected.state["chosen"] >= 0).sum() == M


def test_images_that_are_all_of_one_class_leave_the_shares_as_they_were():
    state = {"chosen": np.full(UNLABELED, 1), "share": np.array([0.5, 1.0, 0.25])}
    never = functools.partial(calculate, threshold=1.0)
    (found,) = steps(threshold=1.0).check(never, steps=1, state=state)
    np.testing.assert_array_equal(found.state["share"], state["share"])


def test_state_and_arguments():
    method = flexmatch()
    assert (method.views, method.joint, B) == (("weak", "strong"), True, 4)
    state = method.init(golden_steps.SIZES)
    np.testing.assert_array_equal(state["chosen"], np.full(UNLABELED, -1))
    np.testing.assert_array_equal(state["share"], np.zeros(3))
    with pytest.raises(ValueError, match="threshold is 1.5; allowed"):
        flexmatch(threshold=1.5)
    with pytest.raises(ValueError, match="unlabeled_weight is -1; allowed"):
        flexmatch(unlabeled_weight=-1)
