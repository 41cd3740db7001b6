"""Tests the supervised baseline against an independent calculation."""

import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.methods.method import Batch, Progress
from ssljax.methods.supervised import supervised

WEIGHTS = np.array([[1.0, -0.5, 0.25], [0.5, 2.0, -1.0]])
IMAGES = np.array([[0.5, -0.25], [-1.0, 0.75], [0.1, 0.9], [-0.3, -0.6]]).reshape(-1, 1, 2, 1)
LABELS = np.array([0, 2, 1, 1])


def apply(params, images):
    return images.reshape(-1, 2) @ params, {"mean": jnp.mean(images)}


def run(views=()):
    batch = Batch(jnp.float32(IMAGES), jnp.int32(LABELS), views)
    progress = Progress(jnp.float32(0), jnp.float32(0))
    params = jnp.float32(WEIGHTS)
    # No EMA weights: the loss must not use them.
    return supervised().loss(params, None, apply, batch, (), "state", progress)


def test_loss_is_the_mean_cross_entropy_of_the_labelled_images():
    logits = IMAGES.reshape(-1, 2) @ WEIGHTS
    normalizers = np.log(np.exp(logits).sum(axis=1))
    expected = np.mean(normalizers - logits[np.arange(4), LABELS])
    total, aux = run()
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert aux.logs.keys() == {"loss/xe"}
    np.testing.assert_allclose(aux.logs["loss/xe"], expected, rtol=1e-6)


def test_statistics_and_state_are_handed_on_and_nothing_is_guessed():
    _, aux = run()
    np.testing.assert_allclose(aux.batch_stats["mean"], IMAGES.mean(), rtol=1e-6)
    assert aux.state == "state"
    assert aux.guess is None
    assert aux.mask is None


def test_method_has_no_views_noise_or_state():
    method = supervised()
    assert method.views == ()
    assert method.init(10) == ()
    assert method.noise(None, None) == ()
    assert not method.joint


def test_an_unknown_keyword_is_a_type_error():
    with pytest.raises(TypeError, match="threshold"):
        supervised(threshold=0.95)
