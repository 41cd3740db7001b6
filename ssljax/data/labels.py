"""Labels as numbers of classes."""

from collections.abc import Mapping, Sequence

import numpy as np

_UNEVEN = 1.2  # a smaller ratio is of one test set's remainders, not of its classes


def count_classes(labels: np.ndarray) -> int:
    """How many classes labels name: each number from 0 up to the largest one occurs; -1: no label.

    Takes the memory of the labels, whatever numbers they are.

    Raises:
      ValueError: there is none, or a number is left out.
    """
    present = np.unique(labels[labels >= 0])
    missing = np.flatnonzero(present != np.arange(len(present)))
    if not len(present):
        raise ValueError("there is no label")
    if len(missing):
        raise ValueError(
            f"there is no image of class {missing[0]} of {int(present[-1]) + 1:,}; allowed: each "
            "number from 0 up has an image"
        )
    return len(present)


def are_uneven(counts: np.ndarray) -> bool:
    """Whether the most frequent class has 1.2 times the images of the rarest one or more.

    Args:
      counts: `[C]` images of each class. Classes without any are left out.
    """
    counts = counts[counts > 0]
    return len(counts) > 0 and bool(counts.max() >= _UNEVEN * counts.min())


def with_added(
    labels: np.ndarray, added: Mapping[int, str], class_names: Sequence[str]
) -> np.ndarray:
    """`[N]` labels of training images, with those that were added, by their numbers."""
    classes = {name: number for number, name in enumerate(class_names)}
    labels = labels.copy()
    for number, name in added.items():
        labels[number] = classes[name]
    return labels
