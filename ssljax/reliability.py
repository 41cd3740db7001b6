"""Calibration of confidences: reliability diagrams, calibration error, and risk and coverage.

Confidences `[N]` are the probabilities of the predicted classes, 0..1. `right`, bool `[N]`, says
which predictions are correct.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BINS = 15  # confidence bins, as in Guo et al. (2017)


class Diagram(NamedTuple):
    """A reliability diagram with confidence bins of equal width, without the empty ones."""

    left: np.ndarray  # [K] left edge of the bin, 0..1
    confidence: np.ndarray  # [K] mean confidence
    accuracy: np.ndarray  # [K] fraction of correct predictions
    images: np.ndarray  # [K] number of images


def diagram(confidence: np.ndarray, right: np.ndarray, *, bins: int = BINS) -> Diagram:
    """Bins accuracy by confidence; each bin includes its right edge but not its left one."""
    confidence = np.asarray(confidence)
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(bin_of, minlength=bins)
    filled = count > 0
    mean_confidence, accuracy = (
        np.bincount(bin_of, weights=x, minlength=bins)[filled] / count[filled]
        for x in (confidence, right)
    )
    return Diagram(np.flatnonzero(filled) / bins, mean_confidence, accuracy, count[filled])


def together(diagrams: Sequence[Diagram]) -> Diagram:
    """Combines several diagrams with the same bins into one over all of their images."""
    left, confidence, accuracy, images = map(np.concatenate, zip(*diagrams, strict=True))
    lefts, place = np.unique(np.round(left, 6), return_inverse=True)
    count = np.bincount(place, weights=images)
    mean_confidence, mean_accuracy = (
        np.bincount(place, weights=x * images) / count for x in (confidence, accuracy)
    )
    return Diagram(lefts, mean_confidence, mean_accuracy, count)


def expected_calibration_error(found: Diagram) -> float:
    """Mean absolute difference of accuracy and confidence, 0..1 (Guo et al., 2017)."""
    return float(np.average(np.abs(found.accuracy - found.confidence), weights=found.images))


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the error among the most confident images, for each number of images kept.

    Returns:
      Coverage `[N]`, the fraction of images that are kept, ascending to 1; and risk `[N]`, the
      fraction of wrong predictions among these.
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    kept = np.arange(1, len(order) + 1)
    return kept / max(len(order), 1), np.cumsum(~np.asarray(right, bool)[order]) / kept
