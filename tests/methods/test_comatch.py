"""Tests golden steps of CoMatch, transcribed from `Train_CoMatch.py` of salesforce/CoMatch."""

import functools

import numpy as np
import pytest

from helpers import golden, golden_steps
from helpers.golden_steps import SIZES, B, M, one_hot
from ssljax.methods.comatch import comatch

DIM, QUEUE, MEANS = 4, 2, 3


def project(weights, features, slope):
    head = weights["heads"]["projection"]
    hidden = golden.dense(head["Dense_0"], features)
    hidden = np.where(hidden.real > 0, hidden, slope * hidden)
    embedding = golden.dense(head["Dense_1"], hidden)
    return embedding / np.sqrt((embedding**2).sum(axis=1, keepdims=True))


def calculate(
    params,
    given,
    *,
    thr,
    contrast_th=0.5,
    t=0.5,
    alpha=0.7,
    start=2,
    slope=0.1,
    lam_u=2.0,
    lam_c=0.7,
):
    images = given.batch.labeled, *given.batch.views
    logits, features, stats = given.forward(params, *images)
    embedded = project(params, features, slope)
    fixed, fixed_features, _ = given.forward(given.constant, *images)
    feats = project(given.constant, fixed_features, slope)
    parts = [B, B + M, B + 2 * M]
    logits_x, _, logits_s0, _ = np.split(logits, parts)
    _, _, feats_s0, feats_s1 = np.split(embedded, parts)
    feats_x, feats_w, _, _ = np.split(feats, parts)

    probs = golden.softmax(fixed[B : B + M])
    prob_list = np.concatenate([given.state["guesses"][1:], probs.mean(axis=0)[None]])
    known = prob_list[prob_list.sum(axis=1) > 0]
    probs = probs / known.mean(axis=0)
    probs = probs / probs.sum(axis=1, keepdims=True)
    probs_orig = probs.copy()
    if given.step >= start:
        affinity = np.exp(feats_w @ given.state["embeddings"].T / t)
        affinity = affinity / affinity.sum(axis=1, keepdims=True)
        probs = alpha * probs + (1 - alpha) * affinity @ given.state["probabilities"]
    mask = probs.max(axis=1) >= thr
    labels = one_hot(given.batch.labels)
    after = {
        "embeddings": np.concatenate([given.state["embeddings"], feats_w, feats_x])[M + B :],
        "probabilities": np.concatenate([given.state["probabilities"], probs_orig, labels])[
            M + B :
        ],
        "guesses": prob_list,
    }

    sim = np.exp(feats_s0 @ feats_s1.T / t)
    sim_probs = sim / sim.sum(axis=1, keepdims=True)
    graph = probs @ probs.T
    np.fill_diagonal(graph, 1)
    graph = graph * (graph >= contrast_th)
    graph = graph / graph.sum(axis=1, keepdims=True)
    loss_contrast = -(np.log(sim_probs + 1e-7) * graph).sum(axis=1).mean()
    loss_u = (golden.cross_entropy(logits_s0, probs) * mask).mean()
    loss_x = golden.cross_entropy(logits_x, labels).mean()
    logs = {"loss/xe": loss_x, "loss/xeu": loss_u, "loss/contrast": loss_contrast}
    total = loss_x + lam_u * loss_u + lam_c * loss_contrast
    return golden.Expected(total, logs, stats, probs, after), mask, graph


@functools.cache
def steps(thr, **arguments):
    method = comatch(
        threshold=thr, unlabeled_weight=2.0, contrast_weight=0.7, contrast_threshold=0.5,
        temperature=0.5, smoothing=0.7, queue_steps=QUEUE, smoothing_from=2,
        alignment_steps=MEANS, embedding=DIM, **arguments,
    )  # fmt: skip
    return golden_steps.Steps(method)


def test_golden_steps():
    """Two steps before guesses are smoothed, and three after that: the queues wrap around."""
    masks, edges = [], []

    def calculated(params, given):
        expected, mask, graph = calculate(params, given, thr=0.7)
        masks.append(mask.sum())
        edges.append((graph > 0).sum())
        return expected

    steps(0.7).check(calculated, steps=5)
    assert 0 < masks[0] < M
    assert M < edges[0] < M * M


@pytest.mark.slow
@pytest.mark.parametrize(("thr", "counted"), [(0.0, M), (1.0, 0)])
def test_no_image_and_all_images(thr, counted):
    def calculated(params, given):
        expected, mask, _ = calculate(params, given, thr=thr)
        assert mask.sum() == counted
        return expected

    steps(thr).check(calculated, steps=1)


@pytest.mark.slow
def test_the_head_of_usb_has_a_relu():
    def calculated(params, given):
        return calculate(params, given, thr=0.7, slope=0.0)[0]

    steps(0.7, variant="usb", second_view="strong").check(calculated)


def test_state_and_arguments():
    method = comatch()
    assert (method.views, method.joint) == (("weak", "strong", "simclr"), True)
    assert comatch(second_view="strong").views == ("weak", "strong", "strong")
    state = method.init(SIZES)
    shapes = {name: value.shape for name, value in state.items()}
    rows = 5 * (B + M)
    assert shapes == {
        "embeddings": (rows, 64),
        "probabilities": (rows, 3),
        "guesses": (32, 3),
    }
    for name, value in (
        ("threshold", 1.5),
        ("contrast_threshold", -0.1),
        ("temperature", 0.0),
        ("queue_steps", 0),
        ("second_view", "weak"),
        ("variant", "torchssl"),
    ):
        with pytest.raises(ValueError, match=f"{name} is {value!r}; allowed"):
            comatch(**{name: value})
