"""Tests MixMatch against an independent float64 calculation on hand-set numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers import golden
from ssljax import losses
from ssljax.methods.method import Batch, Progress
from ssljax.methods.mixmatch import mixmatch

# Images of 1×2 pixels, 3 classes, 4 labelled and 4 unlabelled images with two views each.
WEIGHTS = np.array([[2.0, -1.0, 0.5], [-0.5, 1.5, 3.0]])
LABELED = np.array([[0.5, -0.25], [-1.0, 0.75], [0.4, 0.4], [0.1, -0.9]]).reshape(-1, 1, 2, 1)
LABELS = np.array([0, 2, 1, 1])
FIRST = np.array([[0.9, -0.8], [-0.2, 0.1], [-0.9, 1.0], [0.2, 0.3]]).reshape(-1, 1, 2, 1)
SECOND = np.array([[0.7, -0.1], [0.3, -0.6], [-0.4, 0.2], [0.8, -0.7]]).reshape(-1, 1, 2, 1)
BATCH = Batch(jnp.float32(LABELED), jnp.int32(LABELS), (jnp.float32(FIRST), jnp.float32(SECOND)))
LAM = np.array([1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.95, 0.85, 0.75, 0.65, 0.55, 1.0])
PARTNER = np.array([5, 11, 3, 0, 8, 1, 10, 2, 4, 7, 9, 6])
NOISE = {"lam": jnp.float32(LAM), "permutation": jnp.int32(PARTNER)}


def network():
    """A linear model that centres the images of a call, as BatchNorm does, and counts its calls."""
    calls = []

    def apply(params, images):
        images = images.value() if isinstance(images, losses.Mixed) else images
        calls.append(images)
        rows = images.reshape(-1, 2)
        rows = rows - jnp.mean(rows, axis=0, keepdims=True)
        return rows @ params, {"call": len(calls), "mean": jnp.mean(images)}

    return apply, calls


def run(params=WEIGHTS, images=0.0, apply=None, **arguments):
    apply = apply or network()[0]
    progress = Progress(jnp.float32(images), jnp.float32(0))
    loss = mixmatch(**arguments).loss
    # No EMA weights: guesses come from the raw model.
    return loss(jnp.asarray(params, jnp.float32), None, apply, BATCH, NOISE, "state", progress)


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def calculated_guess(temperature=0.5):
    views = [view.reshape(-1, 2) for view in (FIRST, SECOND)]
    mean = sum(softmax((view - view.mean(axis=0)) @ WEIGHTS) for view in views) / 2
    powers = mean ** (1 / temperature)
    return powers / powers.sum(axis=1, keepdims=True)


def calculated_mix(guess):
    """Returns mixed images and label distributions of [labelled, first, second], `[12, …]`."""
    images = np.concatenate([LABELED, FIRST, SECOND]).reshape(-1, 2)
    targets = np.concatenate([np.eye(3)[LABELS], guess, guess])
    lam = LAM[:, None]
    return tuple(lam * x + (1 - lam) * x[PARTNER] for x in (images, targets))


# Thirds of 4 rows have 1, 1 and 2 rows. Third 1 of the labelled rows is swapped with that of
# the first view, third 2 with that of the second view.
SUB_BATCHES = [[0, 5, 10, 11], [4, 1, 6, 7], [8, 9, 2, 3]]


def calculated(temperature=0.5):
    """Computes guess, cross-entropy and squared error in float64."""
    guess = calculated_guess(temperature)
    images, targets = calculated_mix(guess)
    probabilities = np.empty((12, 3))
    for rows in SUB_BATCHES:  # each sub-batch is normalised separately
        centred = images[rows] - images[rows].mean(axis=0)
        probabilities[rows] = softmax(centred @ WEIGHTS)
    xe = -np.sum(targets[:4] * np.log(probabilities[:4])) / 4
    l2u = np.sum((probabilities[4:] - targets[4:]) ** 2) / (8 * 3)
    return guess, xe, l2u


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_loss_and_logs_are_the_calculated_ones(temperature):
    guess, xe, l2u = calculated(temperature)
    total, aux = run(images=512, w_match=60.0, ramp_images=2048, temperature=temperature)
    np.testing.assert_allclose(aux.guess, guess, rtol=3e-6)
    assert aux.mask is None
    assert aux.logs.keys() == {"loss/xe", "loss/l2u", "w_match"}
    np.testing.assert_allclose(aux.logs["loss/xe"], xe, rtol=3e-6)
    np.testing.assert_allclose(aux.logs["loss/l2u"], l2u, rtol=3e-6)
    np.testing.assert_allclose(aux.logs["w_match"], 15.0)
    np.testing.assert_allclose(total, xe + 15.0 * l2u, rtol=3e-6)
    assert aux.state == "state"


@pytest.mark.parametrize(
    ("images", "weight"), [(0, 0.0), (64, 6.0), (320, 30.0), (640, 60.0), (641, 60.0), (1e7, 60.0)]
)
def test_the_weight_rises_linearly_and_then_stays(images, weight):
    total, aux = run(images=images, w_match=60.0, ramp_images=640)
    np.testing.assert_allclose(aux.logs["w_match"], weight, rtol=1e-6)
    sum_of_losses = aux.logs["loss/xe"] + weight * aux.logs["loss/l2u"]
    np.testing.assert_allclose(total, sum_of_losses, rtol=1e-6)


def test_defaults_are_those_of_the_papers_cifar_10_recipe():
    total, aux = run(images=1 << 18)
    _, xe, l2u = calculated(temperature=0.5)
    np.testing.assert_allclose(aux.logs["w_match"], 75 / 4)
    np.testing.assert_allclose(total, xe + 75 / 4 * l2u, rtol=3e-6)
    default, paper = (draw(method)["lam"] for method in (mixmatch(), mixmatch(beta=0.75)))
    np.testing.assert_array_equal(default, paper)


def test_views_are_guessed_one_by_one_and_mixed_images_pass_in_three_interleaved_sub_batches():
    apply, calls = network()
    _, aux = run(apply=apply)
    first, second, *sub_batches = calls
    np.testing.assert_array_equal(first, np.float32(FIRST))
    np.testing.assert_array_equal(second, np.float32(SECOND))
    images, _ = calculated_mix(calculated_guess())
    assert len(sub_batches) == 3
    for sub_batch, rows in zip(sub_batches, SUB_BATCHES, strict=True):
        np.testing.assert_allclose(sub_batch.reshape(-1, 2), images[rows], rtol=1e-5, atol=1e-6)
    # Only the first sub-batch updates the running statistics; those of the guesses are dropped.
    assert aux.batch_stats["call"] == 3
    np.testing.assert_allclose(aux.batch_stats["mean"], images[SUB_BATCHES[0]].mean(), rtol=1e-5)


def gradient_with(guess_of):
    """Returns the gradient of a second implementation of the loss, with `guess_of(params)`."""
    lam = jnp.float32(LAM)[:, None]
    everything = np.float32(np.concatenate([LABELED, FIRST, SECOND]).reshape(-1, 2))
    images = lam * everything + (1 - lam) * everything[PARTNER]

    def loss(params):
        guess = guess_of(params)
        targets = jnp.concatenate([jnp.eye(3)[LABELS], guess, guess])
        targets = lam * targets + (1 - lam) * targets[PARTNER]
        logits = jnp.zeros((12, 3))
        for rows in map(np.array, SUB_BATCHES):
            centred = images[rows] - jnp.mean(images[rows], axis=0, keepdims=True)
            logits = logits.at[rows].set(centred @ params)
        xe = -jnp.sum(targets[:4] * jax.nn.log_softmax(logits[:4])) / 4
        return xe + 15.0 * jnp.sum((jax.nn.softmax(logits[4:]) - targets[4:]) ** 2) / 24

    return jax.jit(jax.grad(loss))(jnp.float32(WEIGHTS))


def test_no_gradient_flows_through_the_guesses():
    def loss(params):
        return run(params, images=512, w_match=60.0, ramp_images=2048)[0]

    def guess_of(params):
        views = [jnp.float32(view.reshape(-1, 2)) for view in (FIRST, SECOND)]
        mean = sum(jax.nn.softmax((v - v.mean(0, keepdims=True)) @ params) for v in views) / 2
        return mean**2 / jnp.sum(mean**2, axis=1, keepdims=True)

    constant = np.float32(calculated_guess())
    frozen, flowing = gradient_with(lambda params: constant), gradient_with(guess_of)
    gradient = jax.jit(jax.grad(loss))(jnp.float32(WEIGHTS))
    np.testing.assert_allclose(gradient, frozen, rtol=1e-4, atol=1e-5)
    # The two differ enough for this test to distinguish them.
    assert np.abs(flowing - frozen).max() > 0.1


# One size for all draws, because the Beta distribution takes a second to compile per size.
MANY = Batch(jnp.zeros((4000, 1, 2, 1)), jnp.zeros(4000), (jnp.zeros((4000, 1, 2, 1)),) * 2)


def draw(method, seed=0):
    return method.noise(jax.random.PRNGKey(seed), MANY)


def test_noise_keeps_at_least_half_of_each_image_and_permutes_all_of_them():
    noise = draw(mixmatch())
    assert noise.keys() == {"lam", "permutation"}
    lam, partner = noise["lam"], noise["permutation"]
    assert lam.shape == (12000,)
    assert jnp.min(lam) >= 0.5
    assert jnp.max(lam) <= 1.0
    assert len(set(lam.tolist())) > 10_000  # one weight per image, not one per batch
    np.testing.assert_array_equal(np.sort(partner), np.arange(12000))
    assert np.sum(np.asarray(partner) == np.arange(12000)) < 10
    # Partners come from all three sources.
    sources = np.bincount(np.asarray(partner[:4000]) // 4000, minlength=3)
    np.testing.assert_allclose(sources, 4000 / 3, rtol=0.1)


def test_noise_differs_from_key_to_key():
    one, other = draw(mixmatch(), seed=0), draw(mixmatch(), seed=1)
    assert np.mean(one["lam"] == other["lam"]) < 0.01
    assert np.mean(one["permutation"] == other["permutation"]) < 0.01


@pytest.mark.parametrize(("beta", "mean"), [(1.0, 0.75), (0.75, 0.7782), (1000.0, 0.5089)])
def test_lam_is_the_larger_part_of_a_beta_distribution(beta, mean):
    # Beta(1, 1) is uniform, and the mean of its larger part is 3/4. The other values are SciPy's
    # integrals of 2 x pdf(x) over 1/2..1.
    lam = draw(mixmatch(beta=beta))["lam"]
    np.testing.assert_allclose(jnp.mean(lam), mean, atol=0.004)


def test_method_combines_images_of_two_weak_views_and_has_no_state():
    method = mixmatch()
    assert method.views == ("weak", "weak")
    assert method.init(10) == ()
    assert method.joint


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("beta", 0.0),
        ("beta", -1.0),
        ("temperature", 0.0),
        ("temperature", -0.5),
        ("ramp_images", 0),
        ("w_match", -1.0),
    ],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"{argument} is {value}; allowed"):
        mixmatch(**{argument: value})


def test_an_unknown_keyword_is_a_type_error():
    with pytest.raises(TypeError, match="threshold"):
        mixmatch(threshold=0.95)


def test_more_unlabelled_than_labelled_images_are_an_error_that_names_uratio():
    batch = BATCH._replace(labeled=BATCH.labeled[:2], labels=BATCH.labels[:2])
    progress = Progress(jnp.float32(0), jnp.float32(0))
    with pytest.raises(ValueError, match=r"got 2 and 4 .*uratio=1"):
        mixmatch().loss(jnp.float32(WEIGHTS), None, network()[0], batch, NOISE, (), progress)


def ablation(params, constant, ema, *, batch, noise, guesser, temperature, weight):
    """`ablation/ab_mixmatch.py`, with the draws of its MixMode."""
    weights = {"params": constant, "ema": ema}[guesser]
    predicted = sum(golden.softmax(golden.forward(weights, y)[0]) for y in batch.views)
    powers = (predicted / len(batch.views)) ** (1 / temperature)
    guess = powers / powers.sum(axis=1, keepdims=True)
    images = golden.mixup([batch.labeled, *batch.views], noise)
    targets = golden.mixup([np.eye(3)[batch.labels], *[guess] * len(batch.views)], noise)
    (logits_x, *logits_y), stats = golden.interleaved_forward(params, images)
    xe = golden.cross_entropy(logits_x, targets[0]).mean()
    l2u = ((np.concatenate(targets[1:]) - golden.softmax(np.concatenate(logits_y))) ** 2).mean()
    logs = {"loss/xe": xe, "loss/l2u": l2u, "w_match": weight}
    return golden.Expected(xe + weight * l2u, logs, stats[0], guess)


@pytest.mark.parametrize("nu", [1, 2, 3])
@pytest.mark.parametrize("guesser", ["params", "ema"])
def test_a_golden_step(nu, guesser):
    views = tuple(golden.images(2 + i, 5) for i in range(nu))
    batch = Batch(golden.images(1, 5), np.array([0, 2, 1, 1, 0]), views)
    noise = golden.mixup_noise(7, 5 * (1 + nu))
    method = mixmatch(
        w_match=6.0, temperature=0.7, ramp_images=100, nu=nu, use_ema_guess=guesser == "ema"
    )
    assert method.views == ("weak",) * nu

    def calculated(*trees):
        arguments = dict(batch=batch, noise=noise, guesser=guesser, temperature=0.7, weight=3.0)
        return ablation(*trees, **arguments)

    golden.check(method, batch, noise, calculated, step=10)


X, Y = np.arange(400), np.arange(400, 1200)  # rows of labelled images, and of two views


@pytest.mark.parametrize(
    "mixmode", ["xxy.yxy", "xx.yy", "xx.yxy", "xx.yx", "xx.", ".yy", "xxy.", ".yxy", "."]
)
def test_a_mixmode_is_who_is_mixed_with_whom(mixmode):
    batch = Batch(MANY.labeled[:400], MANY.labels[:400], tuple(v[:400] for v in MANY.views))
    drawn = mixmatch(mixmode=mixmode).noise(jax.random.PRNGKey(3), batch)
    lam, partner = np.asarray(drawn["lam"]), np.asarray(drawn["permutation"])
    assert lam.shape == partner.shape == (1200,)
    x, y = mixmode.split(".")
    for kind, rows in ((x, X), (y, Y)):
        partners = partner[rows]
        if kind:
            assert 0.5 <= lam[rows].min() < 0.55
            assert np.mean(lam[rows] == 1) < 0.1
            assert np.mean(partners == rows) < 0.05
        else:
            np.testing.assert_array_equal(lam[rows], 1)
            np.testing.assert_array_equal(partners, rows)
        if kind in ("xx", "yy"):
            np.testing.assert_array_equal(np.sort(partners), rows)
        elif kind in ("xxy", "yxy"):
            assert len(set(partners)) == len(rows)
            np.testing.assert_allclose(np.mean(partners < 400), 1 / 3, atol=0.1)
        elif kind == "yx":  # each view with all labelled images, in its own order
            for view in np.split(partners, 2):
                np.testing.assert_array_equal(np.sort(view), X)
            assert np.mean(partners[:400] == partners[400:]) < 0.05
    if mixmode == "xxy.yxy":
        np.testing.assert_array_equal(np.sort(partner), np.arange(1200))


def test_unknown_mixmodes_and_no_views_are_errors_that_say_what_is_allowed():
    with pytest.raises(ValueError, match=r"mixmode is 'yy.xx'; allowed: xxy.yxy, xx.yy, .*, \.$"):
        mixmatch(mixmode="yy.xx")
    with pytest.raises(ValueError, match="nu is 0; allowed: from 1 to 100"):
        mixmatch(nu=0)
