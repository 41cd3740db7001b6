"""Long-tailed splits, whose class sizes decay exponentially, as drawn by USB.

Source: `semilearn/datasets/utils.py` of microsoft/Semi-supervised-learning.
"""

import bisect

import numpy as np

from ssljax.data.splits import LongTail, Split


def class_counts(most: int, num_classes: int, ratio: int) -> np.ndarray:
    """Returns images per class, `[C]` int64: int(n · γ^(-c / (C - 1))), for the last int(n / γ).

    Powers use floating-point numbers as in USB, so that they are rounded the same way.

    Args:
      most: n, images of the most frequent class.
      ratio: γ, ratio of the most frequent class to the rarest. If negative, the last class is the
        most frequent one, with the ratio -γ.
    """
    factor = np.power(1 / abs(ratio), 1 / max(num_classes - 1, 1))
    counts = [int(most * np.power(factor, c)) for c in range(num_classes)]
    counts[-1] = int(most / abs(ratio))
    return np.array(counts if ratio > 0 else counts[::-1], np.int64)


def make_split(
    labels: np.ndarray,
    tail: LongTail,
    *,
    num_classes: int,
    seed: int,
    size: int | None,
    valid: int,
    include_labeled: bool,
) -> Split:
    """Chooses disjoint labelled, unlabelled and validation records.

    Each class is shuffled; labelled records come first, then unlabelled ones. Validation records,
    which USB does not have, come last: the same number per class, with one more in the first
    classes if the number does not divide evenly.

    Args:
      labels: `[N]` class of every training record, 0..num_classes-1.
      seed: seed of NumPy's legacy generator, as in USB; 0 shuffles, too.
      size: labelled records of the most frequent class; None: as many as possible.
      valid: number of validation records.
      include_labeled: whether the unlabelled records include the labelled ones, as with USB's
        `include_lb_to_ulb`.

    Raises:
      ValueError: a record has no label, or a class has too few records.
    """
    if unknown := int(np.sum(labels < 0)):
        raise ValueError(
            f"{unknown} of {len(labels)} training images have no label; allowed for a long-tailed "
            "split: a data set with a label for each"
        )
    sizes = np.bincount(labels, minlength=num_classes)
    held = np.full(num_classes, valid // num_classes)
    held[: valid % num_classes] += 1
    room = np.maximum(sizes - held, 0)

    def counts(most: int | None, ratio: int, room: np.ndarray) -> np.ndarray:
        most = _largest(room, ratio) if most is None else most
        return class_counts(most, num_classes, ratio)

    if size is None:
        taken = 0 if tail.unlabeled is None else counts(tail.unlabeled, tail.unlabeled_ratio, room)
        labeled = counts(None, tail.labeled_ratio, np.maximum(room - taken, 0))
    else:
        labeled = counts(size, tail.labeled_ratio, room)
    left = np.maximum(room - labeled, 0)
    unlabeled = counts(tail.unlabeled, tail.unlabeled_ratio, left)
    _require_enough(sizes, labeled, unlabeled, held)

    generator = np.random.RandomState(seed)
    parts: list[list[np.ndarray]] = [[], [], []]
    for c in range(num_classes):
        queue = np.flatnonzero(labels == c)
        generator.shuffle(queue)
        ends = labeled[c], labeled[c] + unlabeled[c], sizes[c] - held[c]
        parts[0].append(queue[: ends[0]])
        parts[1].append(queue[ends[0] : ends[1]])
        parts[2].append(queue[ends[2] :])
    first, rest, last = (np.concatenate(part) for part in parts)
    return Split(np.sort(first), np.concatenate([first, rest]) if include_labeled else rest, last)


def _largest(room: np.ndarray, ratio: int) -> int:
    """Returns the largest possible size of the most frequent class, given each class's records."""
    most = range(1, int(room.max()) + 1)
    return bisect.bisect_left(
        most, True, key=lambda n: bool(np.any(class_counts(n, len(room), ratio) > room))
    )


def _require_enough(
    sizes: np.ndarray, labeled: np.ndarray, unlabeled: np.ndarray, held: np.ndarray
) -> None:
    short = np.flatnonzero(labeled + unlabeled + held > sizes)
    if len(short):
        c = short[0]
        raise ValueError(
            f"class {c} has only {sizes[c]} images, but {labeled[c]} labelled, {unlabeled[c]} "
            f"unlabelled and {held[c]} validation ones were asked for"
        )
    if not labeled.any():
        raise ValueError("no labelled images were asked for; allowed: at least 1 of a class")
