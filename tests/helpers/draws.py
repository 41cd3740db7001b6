"""Random draws, and tests of their distributions."""

import jax
import numpy as np
from scipy import stats


def keys(n, seed=0):
    return jax.random.split(jax.random.PRNGKey(seed), n)


def pictures(n, size=32):
    """Returns uint8 [n, size, size, 3]: distinct gradients with noise and a dark disc."""
    rng = np.random.default_rng(1)
    y, x = np.indices((size, size))[..., None] / size
    slopes = rng.normal(0, 120, (2, n, 1, 1, 3))
    images = 128 + slopes[0] * (x - 0.5) + slopes[1] * (y - 0.5)
    images = images + rng.normal(0, 8, images.shape)
    centre = rng.random((2, n, 1, 1, 1))
    disc = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 < 0.05
    return np.clip(images - 70 * disc, 0, 255).astype(np.uint8)


def is_uniform(values, count):
    observed = np.bincount(np.ravel(values), minlength=count)
    return len(observed) == count and stats.chisquare(observed).pvalue > 0.001
