"""Published error rates, to stand beside ours. `docs/recipes.md` has the command for each."""

import statistics
from typing import NamedTuple

from ssljax.report.groups import Spread


class Published(NamedTuple):
    """A row of a paper's table; errors in %."""

    method: str
    data_set: str
    labels: int
    error: Spread
    source: str


_MIXMATCH = "MixMatch paper, Table 5"
_FIXMATCH = "FixMatch paper, Table 2"
_COLUMNS = (
    ("cifar10", 40), ("cifar10", 250), ("cifar10", 4000),
    ("cifar100", 400), ("cifar100", 2500), ("cifar100", 10000),
    ("svhn_noextra", 40), ("svhn_noextra", 250), ("svhn_noextra", 1000),  # as its scripts have it
    ("stl10", 1000),
)  # fmt: skip
# (mean, standard deviation or None) for each of the columns; None: not known.
_TABLE_2 = {
    "FixMatch (RA)": (
        (13.81, 3.37), (5.07, 0.65), (4.26, 0.05), (48.85, 1.75), (28.29, 0.11), (22.60, 0.12),
        (3.96, 2.17), (2.48, 0.38), (2.28, 0.11), (7.98, 1.50),
    ),
    "FixMatch (CTA)": (
        (11.39, 3.35), (5.07, 0.33), (4.31, 0.15), (49.95, 3.01), (28.64, 0.24), (23.18, 0.11),
        (7.65, 7.65), (2.64, 0.64), (2.36, 0.19), (5.17, 0.63),
    ),
    "ReMixMatch": (
        (19.10, 9.64), (5.44, 0.05), (4.72, 0.13), (44.28, 2.06), (27.43, 0.31), (23.03, 0.56),
        (3.34, 0.20), (2.92, 0.48), (2.65, 0.08), (5.23, 0.45),
    ),
    "UDA": (
        (29.05, 5.93), (8.82, 1.08), (4.88, 0.18), (59.28, 0.88), (33.13, 0.22), None,
        None, None, None, (7.66, None),
    ),
    "MixMatch": (
        (47.54, 11.50), (11.05, 0.86), (6.42, 0.10), None, None, None,
        None, None, None, (10.41, None),
    ),
    "Mean Teacher": (*[None] * 9, (21.43, None)),
    "Π-model": (*[None] * 9, (26.23, None)),
    "Pseudo-Label": (*[None] * 9, (27.99, None)),
}  # fmt: skip
_TABLE_5 = {250: (11.08, 0.87), 500: (9.65, 0.94), 1000: (7.75, 0.32), 2000: (7.03, 0.15),
            4000: (6.24, 0.06)}  # fmt: skip
# Accuracies of cifar10.{1,2,3}@250-5000.
_ASCEND = {"NPU": (86.87, 87.01, 87.35), "GPU": (87.90, 87.39, 86.52)}


def _errors(accuracies: tuple[float, ...]) -> Spread:
    errors = [100 - accuracy for accuracy in accuracies]
    return Spread(statistics.mean(errors), statistics.stdev(errors))


PAPER = (
    *(
        Published("MixMatch", "cifar10", labels, Spread(*error), _MIXMATCH)
        for labels, error in _TABLE_5.items()
    ),
    *(
        Published(method, *column, Spread(*error), _FIXMATCH)
        for method, errors in _TABLE_2.items()
        for column, error in zip(_COLUMNS, errors, strict=True)
        if error is not None
    ),
    *(
        Published("MixMatch", "cifar10", 250, _errors(accuracies), f"MixMatch on Ascend, {device}")
        for device, accuracies in _ASCEND.items()
    ),
    Published("FixMatch (RA)", "imagenet128116", 128116, Spread(28.54, 0.52), "FixMatch paper"),
)


def beside(data_sets: set[tuple[str, int | None]]) -> list[Published]:
    """The published rows for some (data set, number of labels)."""
    return [row for row in PAPER if (row.data_set, row.labels) in data_sets]
