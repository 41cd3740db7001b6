"""Features and labels -> how far a few labels go: a table with error bands, and what it says."""

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ssljax.data import splits
from ssljax.log import LOG
from ssljax.probe import classifiers

PER_CLASS = (1, 2, 5, 10, 20, 50, 100, 200, 500)  # labels that are tried, where there are as many
_BOUND = 10_000  # labels of the reference that has them all, at most
METHODS = ("linear probe", "nearest neighbours", "label propagation")


class Images(NamedTuple):
    """Features of a data set, and what is known of its images."""

    pool: np.ndarray  # [N, D] float32, of all training images
    labels: np.ndarray  # [N], -1: none, or not to be used
    asked: np.ndarray  # [M, D] float32, of the images on which errors are counted
    asked_labels: np.ndarray  # [M]
    part: str  # what these are: test or validation
    classes: int


class Row(NamedTuple):
    """The errors of one classifier with so many labels."""

    method: str
    labels: int
    errors: tuple[float, ...]  # %, one per labelled set

    @property
    def mean(self) -> float:
        return statistics.mean(self.errors)

    @property
    def std(self) -> float | None:
        """The standard deviation with n − 1 in its denominator; None for a single set."""
        return statistics.stdev(self.errors) if len(self.errors) > 1 else None

    def __str__(self) -> str:
        band = "" if self.std is None else f" ± {self.std:.2f}"
        return f"{self.mean:.2f}{band}"


def sizes(images: Images, given: Sequence[int], wanted: int | None) -> list[int]:
    """Numbers of labelled images to try, rising: those that are given, or 1, 2, 5 … per class and
    the number that the data set's name has.

    Raises:
      ValueError: one is more than there are labels, or fewer than classes.
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
    """The errors of each classifier with each number of labels, on the labelled sets of the seeds
    1, 2, … (those of a data set's name, where the labels are all that it has).

    Args:
      tried: numbers of labelled images.
      sets: how many labelled sets are drawn.
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
    """The linear probe with all labels, or 10,000 of them."""
    known = np.flatnonzero(images.labels >= 0)
    if len(known) > _BOUND:
        known = np.sort(np.random.RandomState(0).choice(known, _BOUND, replace=False))
    standard = classifiers.Standard(images.pool)
    predicted = classifiers.linear(
        standard(images.pool[known]), images.labels[known], standard(images.asked)
    )
    return Row("linear probe", len(known), (_error(predicted, images),))


def verdict(rows: Sequence[Row], best: Row, wanted: int | None) -> str:
    """A sentence on whether semi-supervised training is likely to pay.

    Args:
      best: of the linear probe with all labels, see `bound`.
      wanted: the number of labels that the sentence is about; where it was not tried, or is None,
        the middle one of those that were.
    """
    tried = sorted({row.labels for row in rows})
    size = wanted if wanted in tried else tried[len(tried) // 2]
    at = {row.method: row for row in rows if row.labels == size}
    probe, spread = at["linear probe"], at["label propagation"]
    said = f"With {size} labels the linear probe errs by {probe} %"
    noise = max(probe.std or 0.0, 0.5)
    if best.labels > size and probe.mean - best.mean < noise:
        return (
            f"{said}, and with {best.labels} by {best} %: more labels would change little, so that "
            "semi-supervised training is unlikely to pay."
        )
    room = f", with {best.labels} labels by {best} %" if best.labels > size else ""
    gain = _gain(probe, spread)
    if gain.mean > gain.error:
        return (
            f"{said}{room}; spreading the labels over the unlabelled images errs by {spread} %, "
            f"{gain.mean:.2f} points less: semi-supervised training is likely to pay."
        )
    return (
        f"{said}{room}; spreading the labels over the unlabelled images errs by {spread} %, which "
        "is no clear gain: semi-supervised training of the last layer alone is unlikely to pay, "
        "and of more layers it has to beat the probe."
    )


class _Gain(NamedTuple):
    mean: float  # of the differences on the same labelled sets
    error: float  # two standard errors of this mean


def _gain(before: Row, after: Row) -> _Gain:
    differences = [a - b for a, b in zip(before.errors, after.errors, strict=True)]
    if len(differences) == 1:
        return _Gain(differences[0], 1.0)
    error = 2 * statistics.stdev(differences) / len(differences) ** 0.5
    return _Gain(statistics.mean(differences), error)


def table(rows: Sequence[Row], classes: int) -> str:
    """Numbers of labels down, classifiers across."""
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
    """Rows for `probe.json`."""
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
