"""Published error rates for comparison. `docs/recipes.md` has the command for each."""

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
    ("svhn_noextra", 40), ("svhn_noextra", 250), ("svhn_noextra", 1000),  # as in the scripts
    ("stl10", 1000),
)  # fmt: skip
# (mean, standard deviation or None) per column; None: unknown.
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
_USB = "USB, results/classic_cv.csv, best on test"
_USB_COLUMNS = (*_COLUMNS[:3], ("svhn", 40), ("svhn", 250), ("svhn", 1000), *_COLUMNS[3:6])
_CLASSIC_CV = {
    "Supervised": (
        (77.58, 1.82), (55.96, 1.95), (15.51, 0.18), (82.21, 1.72), (25.70, 2.42), (12.46, 0.45),
        (89.87, 0.47), (61.25, 0.54), (38.99, 0.14),
    ),
    "FixMatch": (
        (8.33, 1.41), (4.97, 0.05), (4.29, 0.10), (2.08, 0.08), (1.99, 0.05), (2.00, 0.04),
        (53.37, 2.15), (34.29, 0.43), (28.28, 0.18),
    ),
    "FlexMatch": (
        (5.21, 0.36), (5.00, 0.05), (4.28, 0.05), (3.36, 0.37), (5.02, 1.20), (5.43, 0.46),
        (50.15, 1.51), (33.35, 0.33), (27.12, 0.04),
    ),
    "FreeMatch": (
        (4.97, 0.09), (4.85, 0.10), (4.14, 0.19), (3.79, 0.03), (4.09, 0.66), (4.31, 0.00),
        (49.24, 2.16), (32.79, 0.21), (27.17, 0.11),
    ),
    "SoftMatch": (
        (5.06, 0.02), (4.84, 0.10), (4.27, 0.12), (2.31, 0.00), (2.15, 0.05), (2.08, 0.04),
        (49.64, 1.46), (33.05, 0.05), (27.26, 0.03),
    ),
    "AdaMatch": (
        (5.05, 0.04), (5.01, 0.11), (4.29, 0.06), (2.32, 0.17), (2.14, 0.10), (2.04, 0.02),
        (47.82, 1.48), (33.26, 0.55), (27.53, 0.12),
    ),
    "Dash": (
        (15.01, 3.70), (5.13, 0.26), (4.35, 0.09), (2.08, 0.09), (1.97, 0.01), (2.03, 0.03),
        (53.98, 2.31), (34.47, 0.12), (27.72, 0.13),
    ),
    "CoMatch + EPASS": (
        (5.44, 0.05), (5.33, 0.12), (4.29, 0.04), (9.51, 5.59), (2.21, 0.20), (1.96, 0.07),
        (60.98, 0.77), (37.24, 0.24), (28.15, 0.16),
    ),
    "SimMatch + EPASS": (
        (5.18, 0.15), (4.99, 0.12), (4.51, 0.08), (3.19, 0.74), (2.26, 0.11), (2.08, 0.06),
        (48.82, 1.07), (32.54, 0.27), (26.42, 0.18),
    ),
}  # fmt: skip
_TORCHSSL = "TorchSSL's README, best on test"
# FlexMatch by its authors, on CIFAR-10, CIFAR-100, STL-10 and SVHN with its extra images.
_FLEXMATCH = {
    ("cifar10", 40): (4.97, 0.06), ("cifar10", 250): (4.98, 0.09), ("cifar10", 4000): (4.19, 0.01),
    ("cifar100", 400): (39.94, 1.62), ("cifar100", 2500): (26.49, 0.20),
    ("cifar100", 10000): (21.90, 0.15), ("stl10", 40): (29.15, 4.16), ("stl10", 250): (8.23, 0.39),
    ("stl10", 1000): (5.77, 0.18), ("svhn", 40): (8.19, 3.20), ("svhn", 250): (6.59, 2.29),
    ("svhn", 1000): (6.72, 0.30),
}  # fmt: skip
_USB_LONG_TAILED = "USB, results/classic_cv_imb.csv, best on test"
# Accuracies with 1500 labelled images of the first class and γ = 100 or 150, and with 500 and
# γ = 100; the numbers are totals of labelled images.
_LONG_TAILED = (("cifar10_lt100", 3720), ("cifar10_lt150", 3496), ("cifar10_lt100", 1236))
_CLASSIC_CV_IMB = {
    "FixMatch": ((76.69, 0.78), (73.01, 0.57), (72.41, 1.71)),
    "CReST": ((77.19, 0.34), (73.47, 0.39), (74.21, 0.76)),
    "CReST+": ((78.25, 0.36), (74.59, 0.66), (76.38, 1.37)),
    "ABC": ((83.88, 0.27), (81.73, 0.25), (82.02, 0.58)),
}
_CREST = "CReST's README, five folds"
# Accuracies with a tenth of the labels: 500 labelled and 4500 unlabelled images of the first class,
# and γ = 50, 100 or 200; the numbers are totals of labelled images.
_CREST_COLUMNS = (("cifar10_lt50", 1394), ("cifar10_lt100", 1236), ("cifar10_lt200", 1117))
_CREST_README = {
    "FixMatch": ((79.4, 0.98), (66.2, 0.83), (59.9, 0.44)),
    "CReST": ((83.7, 0.40), (75.4, 1.62), (63.9, 0.67)),
    "CReST+": ((84.5, 0.41), (77.7, 1.22), (67.5, 1.36)),
}
_IOMATCH = "IOMatch's README"
# Accuracies on the known classes.
_IOMATCH_COLUMNS = (
    ("cifar10_open", 24), ("cifar10_open", 150), ("cifar100_open20", 80), ("cifar100_open20", 500),
    ("cifar100_open50", 200), ("cifar100_open50", 1250), ("cifar100_open80", 320),
    ("cifar100_open80", 2000),
)  # fmt: skip
_IOMATCH_README = {
    "FixMatch": (
        (81.58, 6.63), (92.94, 0.80), (46.27, 0.64), (66.45, 0.74), (48.93, 5.05), (68.77, 0.89),
        (43.06, 1.21), (64.44, 0.51),
    ),
    "IOMatch": (
        (89.68, 2.04), (93.87, 0.16), (53.73, 2.12), (67.28, 1.10), (56.31, 2.29), (69.77, 0.58),
        (50.83, 0.99), (64.75, 0.52),
    ),
}  # fmt: skip
# Accuracies on cifar10.{1,2,3}@250-5000.
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
    *(
        Published(method, *column, Spread(*error), _USB)
        for method, errors in _CLASSIC_CV.items()
        for column, error in zip(_USB_COLUMNS, errors, strict=True)
    ),
    *(
        Published("FlexMatch", *column, Spread(*error), _TORCHSSL)
        for column, error in _FLEXMATCH.items()
    ),
    *(
        Published(method, *column, Spread(round(100 - mean, 2), deviation), source)
        for source, columns, rows in (
            (_USB_LONG_TAILED, _LONG_TAILED, _CLASSIC_CV_IMB),
            (_CREST, _CREST_COLUMNS, _CREST_README),
            (_IOMATCH, _IOMATCH_COLUMNS, _IOMATCH_README),
        )
        for method, accuracies in rows.items()
        for column, (mean, deviation) in zip(columns, accuracies, strict=True)
    ),
    Published("CoMatch", "cifar10", 40, Spread(6.91, None), "CoMatch's README"),
    Published("FixMatch (RA)", "imagenet128116", 128116, Spread(28.54, 0.52), "FixMatch paper"),
)


def beside(data_sets: set[tuple[str, int | None]]) -> list[Published]:
    """The published rows for some (data set, number of labels)."""
    return [row for row in PAPER if (row.data_set, row.labels) in data_sets]
