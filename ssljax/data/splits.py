"""Which training images are labelled, unlabelled and held out: the published rule, NumPy only.

Source: `scripts/create_split.py`, `scripts/create_unlabeled.py` and `libml/data.py` of
google-research/mixmatch and google-research/fixmatch.
"""

import hashlib
import re
from collections import deque
from typing import NamedTuple

import numpy as np

_NAME = re.compile(r"(?P<dataset>.+)\.(?P<seed>\d+)@(?P<size>\d+|all)-(?P<valid>\d+)")


class SplitName(NamedTuple):
    """The parts of a published data-set name, for example `cifar10.3@250-5000`."""

    dataset: str
    seed: int  # 0: records are taken in their original order
    size: int | None  # number of labelled images; None ("all"): every one that has a label
    valid: int  # number of validation images


class Split(NamedTuple):
    """Indices into the training records, int64, each in the order of the published files."""

    labeled: np.ndarray  # [L], ascending
    unlabeled: np.ndarray  # [U], class-balanced order; may contain `labeled` (see `make_split`)
    valid: np.ndarray  # [V], the head of that same class-balanced order


def parse(name: str) -> SplitName:
    """Takes `<data set>.<seed>@<labels>-<validation images>` apart.

    Raises:
      ValueError: the name has another form; the message shows an example.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise ValueError(
            f"dataset {name!r} is not <data set>.<seed>@<labels>-<validation images>, "
            "for example digits.1@40-100"
        )
    size = None if match["size"] == "all" else int(match["size"])
    return SplitName(match["dataset"], int(match["seed"]), size, int(match["valid"]))


def make_split(
    labels: np.ndarray,
    *,
    seed: int,
    size: int | None,
    valid: int,
    include_labeled: bool,
    share: np.ndarray | None = None,
) -> Split:
    """Chooses labelled, unlabelled and validation records as the published scripts do.

    Args:
      labels: `[N]` class of every training record in original order, 0..C-1, each class present.
      seed: 0 takes records in order; another seeds NumPy's legacy MT19937 generator.
      size: number of labelled records; None labels all of them.
      valid: number of validation records, taken from the head of the unlabelled order.
      include_labeled: whether the unlabelled order holds the labelled records too. False is
        MixMatch's convention. True is FixMatch's, where a validation image can be a labelled one.
      share: `[C]` size of each class relative to the largest; None counts `labels`.

    Raises:
      ValueError: `size` or `valid` do not fit the records.
    """
    labels = np.asarray(labels)
    counts = np.bincount(labels)
    share = counts / counts.max() if share is None else np.asarray(share, np.float64)
    size = len(labels) if size is None else size
    if not 1 <= size <= len(labels):
        raise ValueError(f"{size} labels were asked for; allowed: 1 to {len(labels)}")
    labeled = _choose_labeled(labels, counts, share, seed, size)
    rest = (
        np.arange(len(labels)) if include_labeled else np.setdiff1d(np.arange(len(labels)), labeled)
    )
    if not 0 <= valid <= len(rest):
        raise ValueError(f"{valid} validation images were asked for; allowed: 0 to {len(rest)}")
    order = rest[_balanced_order(labels[rest], share)]
    return Split(labeled, order[valid:], order[:valid])


def _choose_labeled(
    labels: np.ndarray, counts: np.ndarray, share: np.ndarray, seed: int, size: int
) -> np.ndarray:
    queues = [np.flatnonzero(labels == c) for c in range(len(counts))]
    if seed:
        generator = np.random.RandomState(seed)  # what numpy.random.seed(seed) seeds
        for queue in queues:
            generator.shuffle(queue)
    taken = np.zeros(len(counts), np.int64)
    chosen = []
    for _ in range(size):
        c = _neediest(share, taken)
        if taken[c] == counts[c]:
            raise ValueError(
                f"{size} labels were asked for, but class {c} has only {counts[c]} images"
            )
        chosen.append(queues[c][taken[c]])
        taken[c] += 1
    return np.sort(np.array(chosen, np.int64))


def _balanced_order(labels: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Positions of `labels` in the order in which a class-balancing writer emits them."""
    queues: list[deque[int]] = [deque() for _ in share]
    taken = np.zeros(len(share), np.int64)
    order: list[int] = []
    for position, label in enumerate(labels):
        queues[label].append(position)
        while queues[c := _neediest(share, taken)]:
            order.append(queues[c].popleft())
            taken[c] += 1
    for queue in queues:
        order.extend(queue)
    return np.array(order, np.int64)


def _neediest(share: np.ndarray, taken: np.ndarray) -> int:
    """The class furthest below its share of what was taken so far; the lowest one on a tie."""
    return int(np.argmax(share - taken / max(taken.max(), 1)))


def fingerprint(split: Split) -> str:
    """A short hash of the three index lists and their order, hexadecimal."""
    digest = hashlib.sha256()
    for indices in split:
        digest.update(len(indices).to_bytes(8, "little"))
        digest.update(np.ascontiguousarray(indices, "<i8").tobytes())
    return digest.hexdigest()[:16]
