"""Errors of classifiers on features with a few labels: a table with error bands, and a verdict."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ssljax.data import splits
from ssljax.log import LOG
from ssljax.probe import classifiers

PER_CLASS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # labels to try, if there are as many
_BOUND = 10_000  # largest number of labels of the reference with all labels
METHODS = ("linear probe", "nearest neighbours", "label propagation")


class Images(NamedTuple):
    """Features and labels of a data set."""

    pool: np.ndarray  # [N, D] float32, features of all training images
    labels: np.ndarray  # [N], -1: unknown, or not to be used
    asked: np.ndarray  # [M, D] float32, features of the images on which errors are measured
    asked_labels: np.ndarray  # [M], their labels
    part: str  # the part of the data set that they are: test or validation
    classes: int


class Row(NamedTuple):
    """The errors of one classifier with one number of labels."""

    method: str
    labels: int
    errors: tuple[float, ...]  # %, one per labelled set

    @property
    def mean(self) -> float:
        return statistics.mean(self.errors)

    @property
    def std(self) -> float | None:
        """The sample standard deviation (n − 1 in the denominator); None for a single set."""
        return statistics.stdev(self.errors) if len(self.errors) > 1 else None

    def __str__(self) -> str:
        band = "" if self.std is None else f" ± {self.std:.2f}"
        return f"{self.mean:.2f}{band}"


def sizes(images: Images, given: Sequence[int], wanted: int | None) -> list[int]:
    """The numbers of labelled images to try, in ascending order.

    They are the given ones, or else 1, 2, 5 … per class and the number in the data set's name.

    Raises:
      ValueError: a number exceeds the number of labels, or is below the number of classes.
    """
    known = np.bincount(images.labels[images.labels >= 0], minlength=images.classes)
    total = int(known.sum())
    for size in given:
        if not images.classes <= size <= total:
            raise ValueError(f"labels is {size}; allowed: from {images.classes} to {total}")
    chosen = {*given} or {n * images.classes for n in PER_CLASS if n <= known.min()}
    if wanted is not None and not given:
        chosen.add(wanted)
    fitting = sorted(size for size in chosen if images.classes <= size <= total)
    if not fitting:
        raise ValueError(
            f"{total} training images have a label, of {images.classes} classes; allowed: at least "
            "one per class"
        )
    return fitting


def measure(
    images: Images, tried: Sequence[int], sets: int, *, balanced: bool = False
) -> list[Row]:
    """The errors of each classifier with each number of labels, on labelled sets 1, 2, …

    They are the sets of names such as `digits.1@40`, if no labels are set aside for validation.

    Args:
      tried: numbers of labelled images.
      sets: number of labelled sets per number of images.
      balanced: see `splits.make_split`.
    """
    standard = classifiers.Standard(images.pool)
    pool, asked = standard(images.pool), standard(images.asked)
    propagation = classifiers.Propagation(images.pool, images.asked)
    rows = []
    for size in tried:
        errors: dict[str, list[float]] = {method: [] for method in METHODS}
        for seed in range(1, sets + 1):
            drawn = splits.make_split(
                images.labels, seed=seed, size=size, valid=0, include_labeled=True,
                balanced=balanced,
            ).labeled  # fmt: skip
            labels = images.labels[drawn]
            found = (
                classifiers.linear(pool[drawn], labels, asked),
                classifiers.neighbours(images.pool[drawn], labels, images.asked),
                propagation(drawn, labels, images.classes),
            )
            for method, predicted in zip(METHODS, found, strict=True):
                errors[method].append(_error(predicted, images))
        made = [Row(method, size, tuple(errors[method])) for method in METHODS]
        LOG.info("%d labels: %s", size, ", ".join(f"{r.method} {r}" for r in made))
        rows += made
    return rows


def _error(predicted: np.ndarray, images: Images) -> float:
    """The error in % of predicted classes `[M]`."""
    return 100 * float(np.mean(predicted != images.asked_labels))


def bound(images: Images) -> Row:
    """The linear probe with all labels, at most 10,000."""
    known = np.flatnonzero(images.labels >= 0)
    if len(known) > _BOUND:
        known = np.sort(np.random.RandomState(0).choice(known, _BOUND, replace=False))
    standard = classifiers.Standard(images.pool)
    predicted = classifiers.linear(
        standard(images.pool[known]), images.labels[known], standard(images.asked)
    )
    return Row("linear probe", len(known), (_error(predicted, images),))


def verdict(rows: Sequence[Row], best: Row, wanted: int | None) -> str:
    """One or two sentences on whether semi-supervised training is likely to pay.

    Args:
      best: errors of the linear probe with all labels, see `bound`.
      wanted: the number of labels of the sentence; if it was not tried, or is None, the sentence is
        about the median of the numbers that were.
    """
    tried = sorted({row.labels for row in rows})
    size = wanted if wanted in tried else tried[len(tried) // 2]
    at = {row.method: row for row in rows if row.labels == size}
    probe, spread = at["linear probe"], at["label propagation"]
    said = f"With {size} labels the linear probe has an error of {probe} %"
    room, noise = probe.mean - best.mean, max(probe.std or 0.0, 0.5)
    if best.labels > size and room < noise:
        return (
            f"{said}, and with {best.labels} of {best} %: more labels would change little, so that "
            "semi-supervised training is unlikely to pay."
        )
    more = f", with {best.labels} labels of {best} %" if best.labels > size else ""
    said = f"{said}{more}; label propagation, which uses the unlabelled images, has {spread} %"
    gain = _gain(probe, spread)
    if gain.mean > gain.error:
        return f"{said}, {gain.mean:.2f} points less: semi-supervised training is likely to pay."
    if not more:
        return f"{said}, which is no clear gain: semi-supervised training is unlikely to pay."
    # On CIFAR-10 propagation is worse than the probe, and AdaMatch much better (docs/results.md).
    return (
        f"{said}, which is no clear gain. As more labels would gain {room:.1f} points, "
        "semi-supervised training may pay nevertheless: AdaMatch on features, the recipe "
        "photos_cpu, takes minutes."
    )


class _Gain(NamedTuple):
    mean: float  # mean of the differences on the same labelled sets
    error: float  # two standard errors of this mean


def _gain(before: Row, after: Row) -> _Gain:
    differences = [a - b for a, b in zip(before.errors, after.errors, strict=True)]
    if len(differences) == 1:
        return _Gain(differences[0], 1.0)
    error = 2 * statistics.stdev(differences) / len(differences) ** 0.5
    return _Gain(statistics.mean(differences), error)


def table(rows: Sequence[Row], classes: int) -> str:
    """A table with one row per number of labels and one column per classifier."""
    heading = ["labels", "per class", *METHODS]
    cells = []
    for size in sorted({row.labels for row in rows}):
        of_size = {row.method: str(row) for row in rows if row.labels == size}
        cells.append([str(size), f"{size / classes:.3g}", *(of_size[m] for m in METHODS)])
    widths = [max(map(len, column)) for column in zip(heading, *cells, strict=True)]
    lines = [
        "  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True))
        for row in (heading, *cells)
    ]
    return "\n".join(lines)


def as_records(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as records for `probe.json`."""
    return [
        {
            "method": r.method,
            "labels": r.labels,
            "errors": [*r.errors],
            "mean": r.mean,
            "std": r.std,
        }
        for r in rows
    ]
