"""Labels as class numbers."""

from collections.abc import Mapping, Sequence

import numpy as np

_UNEVEN = 1.2  # smaller ratios come from rounding in test sets, not from the classes


def count_classes(labels: np.ndarray) -> int:
    """Returns the number of classes: each number from 0 to the largest must occur; -1: no label.

    Memory use is proportional to the number of labels, whatever their values.

    Raises:
      ValueError: there is no label, or a number is missing.
    """
    present = np.unique(labels[labels >= 0])
    missing = np.flatnonzero(present != np.arange(len(present)))
    if not len(present):
        raise ValueError("there is no label")
    if len(missing):
        raise ValueError(
            f"there is no image of class {missing[0]} of {int(present[-1]) + 1:,}; allowed: every "
            "class from 0 up has an image"
        )
    return len(present)


def are_uneven(counts: np.ndarray) -> bool:
    """Whether the most frequent class has at least 1.2 times as many images as the rarest one.

    Args:
      counts: `[C]` images per class. Classes without images are ignored.
    """
    counts = counts[counts > 0]
    return len(counts) > 0 and bool(counts.max() >= _UNEVEN * counts.min())


def with_added(
    labels: np.ndarray, added: Mapping[int, str], class_names: Sequence[str]
) -> np.ndarray:
    """Returns labels `[N]` of training images, including labels added by image number."""
    classes = {name: number for number, name in enumerate(class_names)}
    labels = labels.copy()
    for number, name in added.items():
        labels[number] = classes[name]
    return labels
