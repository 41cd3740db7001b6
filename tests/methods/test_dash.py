"""Tests golden steps of Dash, transcribed from `dash.py` and `libml/train.py` of idstcv/Dash."""

import functools

import numpy as np
import pytest

from helpers import golden, golden_steps
from helpers.golden_steps import SIZES, UNLABELED, B, M, one_hot
from ssljax.methods.dash import _epoch, dash

# An epoch of 10 images is two and a half steps; the threshold falls from epoch 3 on, that is,
# every second step from step 8 on.
EPOCH, START, DROP, GAMMA, WU = 10, 3, 2, 1.5, 0.7
LEFT = UNLABELED - SIZES.labeled


class Losses:
    """The losses that the published loop remembers: those of the epoch before the start."""

    def __init__(self):
        self.known = []

    def calculate(self, params, given, *, minimum, temperature=0.5):
        images = given.batch.labeled, *given.batch.views
        logits, _, stats = given.forward(params, *images)
        x, _, strong = np.split(logits, [B, B + M])
        weak = given.forward(given.constant, *images)[0][B : B + M]
        t = int(given.step * B / EPOCH)
        if t < START:
            threshold = 500.0
        else:
            losses = np.concatenate(self.known)[::-1][:LEFT]
            threshold = losses.mean() * GAMMA ** (-1.0 * int((t - 1) / DROP))
        pseudo_labels = golden.softmax(weak / temperature)
        one_hot_labels = one_hot(pseudo_labels.argmax(axis=1))
        mask = golden.cross_entropy(weak, one_hot_labels) < max(threshold, minimum)
        soft = golden.cross_entropy(strong, pseudo_labels)
        vector = soft if threshold > minimum else golden.cross_entropy(strong, one_hot_labels)
        xeu = (vector * mask).sum() / max(mask.sum(), 1) * 0.9
        xe = golden.cross_entropy(x, one_hot(given.batch.labels)).mean()

        state = dict(given.state)
        if not np.iscomplexobj(logits) and t < START:
            if int((given.step - 1) * B / EPOCH) < t:
                self.known = []  # they are discarded at the end of each epoch but the last
            self.known.append(soft)
            if t == START - 1:
                later = M * (-(-START * EPOCH // B) - 1 - given.step)
                counted = soft[::-1][: max(0, LEFT - later)]
                state["sum"] = state["sum"] + counted.sum()
                state["count"] = state["count"] + len(counted)
        logs = {"loss/xe": xe, "loss/xeu": xeu, "threshold": threshold}
        expected = golden.Expected(xe + WU * xeu, logs, stats, pseudo_labels, state)
        return expected, mask


@functools.cache
def steps(minimum):
    method = dash(
        gamma=GAMMA, temperature=0.5, start_epoch=START, drop_epochs=DROP, min_threshold=minimum,
        unlabeled_weight=WU, epoch_images=EPOCH,
    )  # fmt: skip
    return golden_steps.Steps(method)


def test_golden_steps_before_and_after_the_threshold_is_known():
    losses = Losses()
    found = steps(0.05).check(lambda *x: losses.calculate(*x, minimum=0.05)[0], steps=14)
    thresholds = [expected.logs["threshold"] for expected in found]
    assert thresholds[:8] == [500.0] * 8
    assert found[7].state["count"] == LEFT  # of three steps with 24 losses, the last 14
    mean = found[7].state["sum"] / LEFT
    np.testing.assert_allclose(thresholds[8:], mean / np.repeat([GAMMA, GAMMA**2], [5, 1]))


@pytest.mark.parametrize(("mean", "counted"), [(1e-9, 0), (1e9, M)])
def test_no_image_and_all_images(mean, counted):
    """Below the minimum threshold, labels are hard; without an image, the loss is 0."""
    minimum = 1e-7

    def calculated(params, given):
        losses = Losses()
        losses.known = [np.full(LEFT, mean)]
        expected, mask = losses.calculate(params, given, minimum=minimum)
        assert mask.sum() == counted
        return expected._replace(state=given.state)

    state = {"sum": np.float64(mean), "count": np.float64(1), "last": np.int32(LEFT)}
    (found,) = steps(minimum).check(calculated, steps=1, start=10, state=state)
    assert (found.logs["loss/xeu"] == 0) == (counted == 0)


def test_epochs_of_long_runs_are_exact():
    for step, batch, images in ((10**6, 1000, 65536), (2**30, 64, 65536), (7, 3, 10)):
        assert int(_epoch(np.int32(step), batch, images)) == step * batch // images


def test_state_and_arguments():
    state = dash().init(SIZES)
    assert {name: float(x) for name, x in state.items()} == {"sum": 0, "count": 0, "last": LEFT}
    assert (dash().views, dash().joint) == (("weak", "strong"), True)
    for name, value in (
        ("gamma", 0.0),
        ("temperature", 0.0),
        ("start_epoch", 0),
        ("drop_epochs", 0),
        ("min_threshold", -1.0),
        ("epoch_images", 0),
    ):
        with pytest.raises(ValueError, match=f"{name} is {value}; allowed"):
            dash(**{name: value})
