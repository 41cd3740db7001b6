"""Tests a golden step of ReMixMatch, from `remixmatch_no_cta.py` of google-research/remixmatch."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import golden
from ssljax.methods.method import Batch, Progress
from ssljax.methods.remixmatch import remixmatch

B, K = 8, 2
LABELS = np.array([0, 2, 1, 1, 0, 0, 2, 0])
BATCH = Batch(golden.images(1, B), LABELS, tuple(golden.images(2 + i, B) for i in range(1 + K)))
NOISE = golden.mixup_noise(5, B * (2 + K))
STATE = {
    "labels": np.array([0.375, 0.125, 0.5]),
    "guesses": np.float64(np.float32(golden.softmax(golden.numbers(6, 128, 3)))),
}


def random_rotate(x):
    b4 = len(x) // 4
    x, xt = x[: 2 * b4], x[2 * b4 :].transpose(0, 2, 1, 3)
    turned = [x[:b4], x[b4:, ::-1, ::-1], xt[:b4, ::-1], xt[b4:, :, ::-1]]
    return np.concatenate(turned), np.repeat(np.arange(4), b4)


def guess_label(probabilities, temperature, redux, use_dm):
    if redux == "swap":
        p_model_y = [*probabilities[1:], probabilities[0]]
    elif redux == "mean":
        p_model_y = [sum(probabilities) / (K + 1)] * (K + 1)
    else:
        p_model_y = [probabilities[0]] * (K + 1)
    p_target = p_model_y
    if use_dm:
        p_data = STATE["labels"] / STATE["labels"].sum()
        p_model = STATE["guesses"].mean(axis=0)
        p_model = p_model / p_model.sum()
        weighted = [p * (1e-6 + p_data) / (1e-6 + p_model) for p in p_model_y]
        p_target = [p / p.sum(axis=1, keepdims=True) for p in weighted]
    powers = [p ** (1 / temperature) for p in p_target]
    return [p / p.sum(axis=1, keepdims=True) for p in powers], np.concatenate(p_model_y)


def calculate(
    params, constant, ema, *, w_match, w_kl, w_rot, ramp, redux="1st", use_dm=True, use_xe=True
):
    del ema
    probabilities = [golden.softmax(golden.forward(constant, y)[0]) for y in BATCH.views]
    ly, p_model_y = guess_label(probabilities, 0.6, redux, use_dm)
    logits_1, _ = golden.forward(params, BATCH.views[1])
    loss_kl = golden.cross_entropy(logits_1, ly[0]).mean()

    x = golden.mixup([BATCH.labeled, *BATCH.views], NOISE)
    labels_x, *labels_y = golden.mixup([np.eye(3)[LABELS], *ly], NOISE)
    (logits_x, *logits_y), stats = golden.interleaved_forward(params, x)
    labels_y, logits_y = np.concatenate(labels_y), np.concatenate(logits_y)
    loss_xe = golden.cross_entropy(logits_x, labels_x).mean()
    if use_xe:
        loss_xeu = golden.cross_entropy(logits_y, labels_y).mean()
    else:
        loss_xeu = ((labels_y - golden.softmax(logits_y)) ** 2).mean()

    logs = {"loss/xe": loss_xe, "loss/kl": loss_kl, "loss/match": loss_xeu, "ramp": ramp}
    total = loss_xe + w_kl * ramp * loss_kl + w_match * ramp * loss_xeu
    if w_rot:
        turned, rot_l = random_rotate(BATCH.views[1])
        rot_logits, _ = golden.forward(params, turned, "rotation")
        logs["loss/rot"] = golden.cross_entropy(rot_logits, np.eye(4)[rot_l]).mean()
        total = total + w_rot * logs["loss/rot"]
    state = {
        "labels": 0.999 * STATE["labels"] + 0.001 * np.eye(3)[LABELS].mean(axis=0),
        "guesses": np.concatenate([STATE["guesses"][1:], p_model_y.mean(axis=0)[None]]),
    }
    return golden.Expected(total, logs, stats[-1], ly[0], state)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"redux": "mean"},
        {"redux": "swap"},
        {"use_dm": False},
        {"use_xe": False},
        {"w_rot": 0.0},
        {"w_kl": 0.0},
    ],
    ids=str,
)
def test_a_golden_step(options):
    arguments = dict(w_match=1.3, w_kl=0.7, w_rot=0.4) | options
    method = remixmatch(strong_views=K, temperature=0.6, ramp_images=160, **arguments)

    def calculated(*trees):
        return calculate(*trees, ramp=0.5, **arguments)

    golden.check(method, BATCH, NOISE, calculated, state=STATE, step=10)


@pytest.mark.parametrize(("step", "ramp"), [(0, 0.0), (5, 0.25), (20, 1.0), (99, 1.0)])
def test_two_of_the_weights_rise_linearly_and_then_stay(step, ramp):
    method = remixmatch(strong_views=K, temperature=0.6, ramp_images=160)

    def calculated(*trees):
        return calculate(*trees, w_match=1.5, w_kl=0.5, w_rot=0.5, ramp=ramp)

    golden.check(method, BATCH, NOISE, calculated, state=STATE, step=step)


def test_defaults_are_the_published_ones():
    parameters = inspect.signature(remixmatch).parameters
    assert {name: parameter.default for name, parameter in parameters.items()} == dict(
        strong_views=8, beta=0.75, w_match=1.5, w_kl=0.5, w_rot=0.5, temperature=0.5,
        ramp_images=1 << 20, redux="1st", use_dm=True, use_xe=True, anchor="weak",
    )  # fmt: skip


def test_state_starts_uniform():
    state = remixmatch().init(golden.sizes(4))
    np.testing.assert_array_equal(state["labels"], [0.25] * 4)
    np.testing.assert_array_equal(state["guesses"], np.full((128, 4), 0.25))


def test_everything_is_mixed_with_everything():
    noise = remixmatch(strong_views=K).noise(jax.random.PRNGKey(0), BATCH)
    np.testing.assert_array_equal(np.sort(noise["permutation"]), np.arange(32))
    assert noise["lam"].shape == (32,)
    assert noise["lam"].min() >= 0.5
    assert noise["lam"].max() <= 1


def test_it_is_joint_and_has_strong_labelled_images_and_a_head():
    method = remixmatch()
    assert (method.joint, method.labeled_view) == (True, "strong")
    assert [head.name for head in method.heads] == ["rotation"]
    assert remixmatch(w_rot=0.0).heads == ()
    assert remixmatch(strong_views=2, anchor="none").views == ("none", "strong", "strong")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("strong_views", 0),
        ("beta", 0.0),
        ("w_match", -1.0),
        ("w_kl", -1.0),
        ("w_rot", float("nan")),
        ("temperature", 0.0),
        ("ramp_images", 0),
        ("redux", "2nd"),
        ("anchor", "heavy"),
    ],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"{argument} is {value!r}; allowed"):
        remixmatch(**{argument: value})


@pytest.mark.parametrize(("labeled", "unlabeled"), [(4, 8), (6, 6)])
def test_batches_that_cannot_be_mixed_or_turned_are_errors(labeled, unlabeled):
    views = tuple(view[:unlabeled] for view in BATCH.views)
    batch = Batch(BATCH.labeled[:labeled], LABELS[:labeled], views)
    progress = Progress(jnp.float32(0), jnp.float32(0))
    with pytest.raises(ValueError, match=rf"got {labeled} and {unlabeled} .*multiple of 4"):
        remixmatch().loss({}, None, None, batch, NOISE, STATE, progress)
