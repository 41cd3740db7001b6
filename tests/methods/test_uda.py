"""Tests a golden step of UDA, transcribed from `uda.py` of google-research/fixmatch."""

import functools

import numpy as np
import pytest

from helpers import golden
from ssljax.methods.method import Batch
from ssljax.methods.uda import uda

LABELS = np.array([0, 2, 2])
BATCH = Batch(golden.images(1, 3), LABELS, (golden.images(2, 6), golden.images(3, 6)))


def tsa_threshold(tsa, ratio, scale=5):
    coefficient = {
        "linear": ratio,
        "exp": np.exp((ratio - 1) * scale),
        "log": 1 - np.exp(-ratio * scale),
        "no": 1.0,
    }[tsa]
    return min(coefficient, 1.0) * (1 - 1 / 3) + 1 / 3


def calculate(params, constant, ema, *, confidence, temperature, wu, we, tsa="no", ratio=0.0):
    del ema

    def logits(weights):
        return golden.forward(weights, np.concatenate([BATCH.labeled, *BATCH.views]))

    everything, stats = logits(params)
    logits_x, logits_weak, logits_strong = np.split(everything, [3, 9])
    fixed_x, fixed_weak, _ = np.split(logits(constant)[0], [3, 9])

    pseudo_labels = golden.softmax(fixed_weak)
    mask = pseudo_labels.max(axis=1) >= confidence
    p = golden.softmax(fixed_weak / temperature)
    kld = (p * (np.log(p) - np.log(golden.softmax(logits_strong)))).sum(axis=1)
    xeu = (kld * mask).mean()
    ent = golden.cross_entropy(logits_weak, golden.softmax(logits_weak)).mean()

    p_correct = golden.softmax(fixed_x)[np.arange(3), LABELS]
    loss_mask = p_correct <= tsa_threshold(tsa, ratio)
    xe = golden.cross_entropy(logits_x, np.eye(3)[LABELS])
    xe = (xe * loss_mask).sum() / max(loss_mask.sum(), 1.0)
    logs = {"loss/xe": xe, "loss/xeu": xeu, "loss/entropy": ent, "mask_sup": loss_mask.mean()}
    return golden.Expected(xe + wu * xeu + we * ent, logs, stats, pseudo_labels)


@pytest.mark.parametrize(("confidence", "confident"), [(0.0, 6), (0.7, 4), (1.0, 0)])
def test_a_golden_step(confidence, confident):
    arguments = dict(confidence=confidence, temperature=0.5, wu=2.5, we=0.3)
    params = golden.weights(0)
    guess = calculate(params, params, None, **arguments).guess
    assert (guess.max(axis=1) >= confidence).sum() == confident  # the numbers were chosen for this
    method = uda(threshold=confidence, temperature=0.5, unlabeled_weight=2.5, entropy_weight=0.3)
    golden.check(method, BATCH, (), functools.partial(calculate, **arguments))


# A step has 3 labelled images; the probabilities of the 3 labels are 0.003, 0.61 and 0.986.
@pytest.mark.parametrize(
    ("tsa", "step", "counted"),
    [
        ("no", 0, 3),
        ("linear", 0, 1),
        ("linear", 50, 2),
        ("linear", 99, 3),
        ("exp", 80, 1),
        ("exp", 85, 2),
        ("exp", 99, 2),
        ("exp", 200, 3),
        ("log", 0, 1),
        ("log", 10, 1),
        ("log", 12, 2),
        ("log", 99, 3),
    ],
)
def test_training_signal_annealing(tsa, step, counted):
    arguments = dict(confidence=0.7, temperature=1.0, wu=1.0, we=0.0, tsa=tsa, ratio=step / 100)
    params = golden.weights(0)
    logs = calculate(params, params, None, **arguments).logs
    assert round(3 * logs["mask_sup"]) == counted
    method = uda(threshold=0.7, tsa=tsa, tsa_images=300)
    golden.check(method, BATCH, (), functools.partial(calculate, **arguments), step=step)


def test_all_labelled_images_left_out_are_no_division_by_zero():
    """Every label has a probability above 1/3, where annealing starts."""
    params = golden.weights(0)
    logits, _ = golden.forward(params, np.concatenate([BATCH.labeled, *BATCH.views]))
    batch = BATCH._replace(labels=logits[:3].argmax(axis=1))

    def calculated(*trees):
        expected = calculate(*trees, confidence=0.7, temperature=1.0, wu=1.0, we=0.0)
        logs = expected.logs | {"loss/xe": 0.0, "mask_sup": 0.0}
        return expected._replace(total=expected.logs["loss/xeu"], logs=logs)

    golden.check(uda(threshold=0.7, tsa="linear"), batch, (), calculated)


def test_defaults_are_the_published_ones():
    arguments = dict(confidence=0.95, temperature=1.0, wu=1.0, we=0.0)
    golden.check(uda(), BATCH, (), functools.partial(calculate, **arguments))
    # min(train_kimg, 2^14) << tsa_pos images: 2^21 images are half of the schedule.
    arguments |= dict(tsa="linear", ratio=3 * 699051 / 2**22)
    calculated = functools.partial(calculate, **arguments)
    golden.check(uda(tsa="linear"), BATCH, (), calculated, step=699051)


def test_it_is_joint_only_where_labelled_images_are_left_out():
    method = uda()
    assert (method.views, method.joint, method.init(3)) == (("weak", "strong"), False, ())
    assert method.noise(None, None) == ()
    assert uda(tsa="exp").joint


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("threshold", 1.5),
        ("unlabeled_weight", -1.0),
        ("entropy_weight", -1.0),
        ("temperature", 0.0),
        ("tsa_images", 0),
        ("threshold", float("nan")),
    ],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"{argument} is {value}; allowed"):
        uda(**{argument: value})


def test_an_unknown_schedule_is_an_error_that_lists_them():
    with pytest.raises(ValueError, match="tsa is 'cos'; allowed: no, linear, exp, log"):
        uda(tsa="cos")
