"""Tests FixMatch against an independent float64 calculation on hand-set numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.methods.fixmatch import fixmatch
from ssljax.methods.method import Batch, Progress

# Images of 1×2 pixels, 3 classes, 2 labelled and 4 unlabelled images.
WEIGHTS = np.array([[2.0, -1.0, 0.5], [-0.5, 1.5, 3.0]])
LABELED = np.array([[0.5, -0.25], [-1.0, 0.75]]).reshape(-1, 1, 2, 1)
LABELS = np.array([0, 2])
WEAK = np.array([[0.9, -0.8], [-0.2, 0.1], [-0.9, 1.0], [0.2, 0.3]]).reshape(-1, 1, 2, 1)
STRONG = np.array([[0.7, -0.1], [0.3, -0.6], [-0.4, 0.2], [0.8, -0.7]]).reshape(-1, 1, 2, 1)
BATCH = Batch(jnp.float32(LABELED), jnp.int32(LABELS), (jnp.float32(WEAK), jnp.float32(STRONG)))
PROGRESS = Progress(jnp.float32(0), jnp.float32(0))


def network():
    """A linear model that centres the images of a call, as BatchNorm does, and counts its calls."""
    calls = []

    def apply(params, images):
        calls.append(images)
        rows = images.reshape(-1, 2)
        rows = rows - jnp.mean(rows, axis=0, keepdims=True)
        return rows @ params, {"call": len(calls), "mean": jnp.mean(images)}

    return apply, calls


def run(params=WEIGHTS, batch=BATCH, apply=None, **arguments):
    apply = apply or network()[0]
    loss = fixmatch(**arguments).loss
    # No EMA weights: pseudo-labels come from the raw model.
    return loss(jnp.asarray(params, jnp.float32), None, apply, batch, (), "state", PROGRESS)


def softmax(logits):
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def calculated(weights, threshold):
    """Computes guess, mask, xe and xeu in float64, by the paper's equations 3 and 4."""
    images = np.concatenate([LABELED, WEAK, STRONG]).reshape(-1, 2)
    probabilities = softmax((images - images.mean(axis=0)) @ weights)
    labeled, guess, strong = probabilities[:2], probabilities[2:6], probabilities[6:]
    xe = -sum(np.log(labeled[i, label]) for i, label in enumerate(LABELS)) / 2
    xeu = 0.0
    for i in range(4):
        if guess[i].max() >= threshold:
            xeu -= np.log(strong[i, guess[i].argmax()]) / 4  # over all images, not confident ones
    return guess, guess.max(axis=1) >= threshold, xe, xeu


@pytest.mark.parametrize(
    ("threshold", "confident"), [(0.0, 4), (0.5, 3), (0.51, 2), (0.95, 1), (1.0, 0)]
)
def test_loss_and_logs_are_the_calculated_ones(threshold, confident):
    guess, mask, xe, xeu = calculated(WEIGHTS, threshold)
    assert mask.sum() == confident  # the numbers above were chosen for this
    total, aux = run(threshold=threshold, unlabeled_weight=2.5)
    np.testing.assert_allclose(aux.guess, guess, rtol=2e-6)
    np.testing.assert_array_equal(aux.mask, mask)
    assert aux.mask.dtype == jnp.float32
    assert aux.logs.keys() == {"loss/xe", "loss/xeu"}
    np.testing.assert_allclose(aux.logs["loss/xe"], xe, rtol=2e-6)
    np.testing.assert_allclose(aux.logs["loss/xeu"], xeu, rtol=2e-6)
    np.testing.assert_allclose(total, xe + 2.5 * xeu, rtol=2e-6)
    assert aux.state == "state"


def test_defaults_are_the_published_ones():
    total, aux = run()
    published, published_aux = run(threshold=0.95, unlabeled_weight=1.0)
    assert float(total) == float(published)
    np.testing.assert_array_equal(aux.mask, published_aux.mask)


def test_a_probability_at_the_threshold_counts():
    # Two classes and zero weights: every probability is exactly one half.
    zeros = np.zeros((2, 2))
    batch = BATCH._replace(labels=jnp.array([0, 1]))
    _, at = run(zeros, batch, threshold=0.5)
    _, above = run(zeros, batch, threshold=float(np.nextafter(np.float32(0.5), np.float32(1))))
    np.testing.assert_array_equal(at.guess, np.full((4, 2), 0.5))
    np.testing.assert_array_equal(at.mask, np.ones(4))
    np.testing.assert_array_equal(above.mask, np.zeros(4))
    assert float(above.logs["loss/xeu"]) == 0
    np.testing.assert_allclose(at.logs["loss/xeu"], np.log(2), rtol=1e-6)


def test_one_call_sees_labelled_weak_and_strong_images_and_its_statistics_survive():
    apply, calls = network()
    _, aux = run(apply=apply)
    (images,) = calls
    np.testing.assert_array_equal(images, np.float32(np.concatenate([LABELED, WEAK, STRONG])))
    assert aux.batch_stats["call"] == 1
    np.testing.assert_allclose(aux.batch_stats["mean"], np.mean(images), rtol=1e-6)


def test_no_gradient_flows_through_the_pseudo_labels():
    guess, mask, _, _ = calculated(WEIGHTS, 0.5)
    pseudo_labels = np.float32(np.eye(3)[guess.argmax(axis=1)])

    def frozen(params):
        """The same loss with pseudo-labels and mask as constants."""
        images = jnp.concatenate([BATCH.labeled, *BATCH.views])
        log_p = jax.nn.log_softmax(network()[0](params, images)[0])
        xe = -(log_p[0, 0] + log_p[1, 2]) / 2
        return xe - 2.5 * jnp.sum(np.float32(mask) * jnp.sum(pseudo_labels * log_p[6:], axis=1)) / 4

    def loss(params):
        return run(params, threshold=0.5, unlabeled_weight=2.5)[0]

    params = jnp.float32(WEIGHTS)
    gradient, expected = (jax.jit(jax.grad(f))(params) for f in (loss, frozen))
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-6)


def test_a_weak_pass_without_gradient_guesses_the_same_from_a_pass_of_its_own():
    apply, calls = network()
    _, aux = run(apply=apply, threshold=0.5, weak_pass="no_grad")
    np.testing.assert_array_equal(calls[0], np.float32(WEAK))
    np.testing.assert_array_equal(calls[1], np.float32(np.concatenate([LABELED, STRONG])))
    weak = WEAK.reshape(-1, 2)
    expected = softmax((weak - weak.mean(axis=0)) @ WEIGHTS)
    np.testing.assert_allclose(aux.guess, expected, rtol=2e-6)
    assert aux.batch_stats["call"] == 2

    def weak_alone(params):
        """The terms that depend on the weak views, if they had a gradient."""
        method = fixmatch(threshold=0.0, weak_pass="no_grad")
        apply, _ = network()
        return method.loss(params, None, apply, BATCH, (), "state", PROGRESS)[1].guess[0, 0]

    assert not np.any(jax.grad(weak_alone)(jnp.float32(WEIGHTS)))
    with pytest.raises(ValueError, match="weak_pass is 'fast'; allowed: joint, no_grad"):
        fixmatch(weak_pass="fast")


def test_method_asks_for_a_weak_and_a_strong_view_and_draws_nothing():
    method = fixmatch()
    assert method.views == ("weak", "strong")
    assert method.init(10) == ()
    assert method.noise(jax.random.PRNGKey(0), BATCH) == ()
    assert not method.joint


@pytest.mark.parametrize(
    ("argument", "value"),
    [("threshold", 1.5), ("threshold", -0.1), ("unlabeled_weight", -1.0)],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"{argument} is {value}; allowed"):
        fixmatch(**{argument: value})


def test_an_unknown_keyword_is_a_type_error():
    with pytest.raises(TypeError, match="treshold"):
        fixmatch(treshold=0.95)
