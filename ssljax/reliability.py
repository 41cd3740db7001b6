"""How well confidences say how often predictions are right: diagrams, errors and abstention.

Confidences `[N]` are the probabilities of the predicted classes, 0..1; `right` is bool `[N]`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

BINS = 15  # of confidence, as Guo et al. (2017) have it


class Diagram(NamedTuple):
    """A reliability diagram: bins of confidence, of equal width, without the empty ones."""

    left: np.ndarray  # [K] where the bin begins, 0..1
    confidence: np.ndarray  # [K] mean confidence
    accuracy: np.ndarray  # [K] share of right predictions
    images: np.ndarray  # [K] how many


def diagram(confidence: np.ndarray, right: np.ndarray, *, bins: int = BINS) -> Diagram:
    """Accuracy against confidence; a bin's right end belongs to it, its left end does not."""
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
    """The diagram of the images of several, which have the same bins."""
    left, confidence, accuracy, images = map(np.concatenate, zip(*diagrams, strict=True))
    lefts, place = np.unique(np.round(left, 6), return_inverse=True)
    count = np.bincount(place, weights=images)
    mean_confidence, mean_accuracy = (
        np.bincount(place, weights=x * images) / count for x in (confidence, accuracy)
    )
    return Diagram(lefts, mean_confidence, mean_accuracy, count)


def expected_calibration_error(found: Diagram) -> float:
    """Mean distance of accuracy and confidence over the images, 0..1 (Guo et al., 2017)."""
    return float(np.average(np.abs(found.accuracy - found.confidence), weights=found.images))


def risk_coverage(confidence: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The error among the surest images, for each number of them.

    Returns:
      Coverage `[N]`, the share of images that are kept, ascending to 1; and risk `[N]`, the share
      of wrong predictions among these.
    """
    order = np.argsort(-np.asarray(confidence), kind="stable")
    kept = np.arange(1, len(order) + 1)
    return kept / max(len(order), 1), np.cumsum(~np.asarray(right, bool)[order]) / kept
