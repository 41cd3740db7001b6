"""Calibration of predictions: the temperature, and the confidence for a maximum error.

Logits are `[N, C]`, probabilities `[N, C]` with rows that sum to 1, labels `[N]` in 0..C-1.
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from scipy.special import softmax as _softmax
from scipy.stats import beta, chi2

from ssljax.errors import UsageError

_LOG_RANGE = (np.log(0.02), np.log(50.0))  # temperatures that are looked at
_SPREAD = 0.25  # of log temperatures before any image is seen, around 0
_GAIN = chi2.ppf(0.95, df=1) / 2  # of log-likelihood; less can be chance


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Returns probabilities `[N, C]` float32 of logits divided by the temperature."""
    return _softmax(np.asarray(logits, np.float64) / temperature, axis=-1).astype(np.float32)


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature at which probabilities have the least cross-entropy (Guo et al., 2017).

    Few images say little, so that this is the most likely temperature under a log-normal prior
    around 1, and 1 itself where the gain over it can be chance (a likelihood-ratio test at 5 %).
    Else fifty images that are all predicted rightly would give a temperature near 0.

    Args:
      logits: logits of images that the model was not trained on.

    Returns:
      A number from 0.02 to 50. Above 1, the model is overconfident.

    Raises:
      UsageError: there are no images.
    """
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if not len(labels):
        raise UsageError("calibration needs labelled images; there are none")

    def loss(log_temperature: float) -> float:
        log_probabilities = log_softmax(logits / np.exp(log_temperature), axis=-1)
        likelihood = np.sum(log_probabilities[np.arange(len(labels)), labels])
        return -float(likelihood) + (log_temperature / _SPREAD) ** 2 / 2

    found = minimize_scalar(loss, bounds=_LOG_RANGE, method="bounded")
    return float(np.exp(found.x)) if loss(0.0) - found.fun > _GAIN else 1.0


def error_bound(wrong: int, count: int, *, delta: float) -> float:
    """Returns the largest error rate compatible with `wrong` errors in `count` at level `delta`.

    This is the one-sided bound of Clopper and Pearson (1934): the true rate exceeds it in at most a
    fraction `delta` of all samples.
    """
    return 1.0 if wrong >= count else float(beta.ppf(1 - delta, wrong + 1, count - wrong))


class Trusted(NamedTuple):
    """The confidence above which predictions can be trusted."""

    confidence: float  # the lowest trusted confidence
    error_bound: float  # upper bound of the error above it
    images: int  # number of labelled images used to determine it
    coverage: float  # fraction of these images that is trusted


def trusted(
    confidence: np.ndarray, right: np.ndarray, *, max_error: float, delta: float = 0.05
) -> Trusted | None:
    """Returns the lowest confidence above which the error is at most `max_error`, with a guarantee.

    Geifman and El-Yaniv (2017), algorithm 1: a binary search over the observed confidences, which
    divides the failure probability evenly among its tests. Images from the same distribution have a
    larger error in at most a fraction `delta` of all samples.

    Args:
      confidence: `[N]` confidences of labelled images that the model was not trained on.
      right: bool `[N]`, whether their predictions are correct.

    Returns:
      The result; None if no confidence suffices, for lack of labelled images or accuracy.

    Raises:
      UsageError: `max_error` or `delta` is not between 0 and 1.
    """
    for name, value in (("max_error", max_error), ("delta", delta)):
        if not 0 < value < 1:
            raise UsageError(f"{name} is {value}; allowed: above 0 and below 1")
    confidence, right = np.asarray(confidence, np.float64), np.asarray(right, bool)
    if not len(confidence):
        return None
    candidates = np.unique(confidence)  # ascending
    looks = int(np.ceil(np.log2(len(candidates) + 1)))
    low, high, found = 0, len(candidates) - 1, None
    while low <= high:
        middle = (low + high) // 2
        kept = confidence >= candidates[middle]
        bound = error_bound(int(np.sum(~right[kept])), int(kept.sum()), delta=delta / looks)
        if bound <= max_error:
            found = Trusted(float(candidates[middle]), bound, len(right), float(kept.mean()))
            high = middle - 1
        else:
            low = middle + 1
    return found
