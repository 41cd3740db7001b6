"""Data sets in memory, one function each: uint8 images and their labels in original order."""

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Training and test images with their labels."""

    images: np.ndarray  # [N, H, W, C] uint8, the training records in original order
    labels: np.ndarray  # [N] int64, 0..num_classes-1
    test_images: np.ndarray  # [T, H, W, C] uint8
    test_labels: np.ndarray  # [T] int64
    num_classes: int


def digits() -> Dataset:
    """The 1,797 handwritten 8×8 digits that ship inside scikit-learn (UCI optdigits).

    Their 17 grey levels are spread over 0..255. 360 images are the test set: of each class its
    share, evenly spaced in original order, so that no seed changes them.
    """
    from sklearn.datasets import load_digits  # costs a second: only when it is used

    images, labels = load_digits(return_X_y=True)
    images = np.round(images * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    test = _stratified(labels, 360)
    train = np.setdiff1d(np.arange(len(labels)), test)
    return Dataset(images[train], labels[train], images[test], labels[test], num_classes=10)


def _stratified(labels: np.ndarray, size: int) -> np.ndarray:
    """`size` indices, each class by its share (largest remainders), evenly spaced in order."""
    quota = np.bincount(labels) * size / len(labels)
    take = np.floor(quota).astype(int)
    take[np.argsort(take - quota, kind="stable")[: size - take.sum()]] += 1
    chosen = []
    for c, n in enumerate(take):
        records = np.flatnonzero(labels == c)
        chosen.append(records[(np.arange(n) * len(records)) // n])
    return np.sort(np.concatenate(chosen))
