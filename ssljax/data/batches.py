"""The input of a training step: the full data set, or one step's batch, as uint8 pixels."""

from typing import NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray


class TrainingData(NamedTuple):
    """The full training data, replicated on every device."""

    # [N, H·W·C] uint8, one image per row, which a TPU need not pad; or [N, H, W, C]: uint8 images,
    # or float32 features with H = W = 1, see `on_features.py`
    images: Array
    labeled: Array  # [L] int32, indices into images
    labels: Array  # [L] int32, labels of `labeled`
    unlabeled: Array  # [U] int32, indices into images
    unlabeled_labels: Array  # [U] int32, labels of `unlabeled`, -1: none; used by monitors only


class RawBatch(NamedTuple):
    """One device's input in one step, looked up in `TrainingData` or streamed to the device.

    The fields about unlabelled images are None if the method has no unlabelled views.
    """

    labeled: Array  # [B, H, W, C] uint8
    labels: Array  # [B] int32
    labeled_index: Array  # [B] int32, positions in the split's list of labelled images
    unlabeled: Array | None = None  # [M, H, W, C] uint8
    unlabeled_labels: Array | None = None  # [M] int32, -1: none; used by monitors only
    unlabeled_index: Array | None = None  # [M] int32, positions in the list of unlabelled images
