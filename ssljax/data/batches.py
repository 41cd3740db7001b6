"""What a training step reads: the whole data set, or the batch of one step, as uint8 pixels."""

from typing import NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray


class TrainingData(NamedTuple):
    """The training data, whole, on every device."""

    images: Array  # [N, H, W, C] uint8
    labeled: Array  # [L] int32, indices into images
    labels: Array  # [L] int32, labels of `labeled`
    unlabeled: Array  # [U] int32, indices into images
    unlabeled_labels: Array  # [U] int32, labels of `unlabeled`, -1: none; only monitors read them


class RawBatch(NamedTuple):
    """What one device reads in one step: looked up in `TrainingData`, or streamed to it."""

    labeled: Array  # [B, H, W, C] uint8
    labels: Array  # [B] int32
    unlabeled: Array | None  # [M, H, W, C] uint8; None: the method has no unlabelled views
    unlabeled_labels: (
        Array | None
    )  # [M] int32, labels of `unlabeled`, -1: none; only monitors read them
