"""Curves and diagrams, as matplotlib figures. Narrow ones: a telephone shows them at full size."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ssljax.drawing import Figure, MaxNLocator, mpl
from ssljax.reliability import BINS, Diagram
from ssljax.report.groups import Group
from ssljax.report.records import Predictions
from ssljax.report.runs import Run

_WIDTH = 4.4  # inches
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7A6A00", "#56B4E9", "#E69F00", "#333333")
_STYLES = ("-", "--", ":", "-.")  # beyond the colours
_POINTS = 500  # of a curve over images
_NAMED = 20  # classes that have room for their names
STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 10,
    "figure.constrained_layout.use": True,
    "font.size": 9,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "svg.fonttype": "path",
    "svg.hashsalt": "ssljax",  # the same figure is the same file
    "text.parse_math": False,  # names may have dollars
}


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Draws in this file's style."""

    def with_style(*args: Any, **options: Any) -> Any:
        with mpl.rc_context(STYLE):
            return draw(*args, **options)

    return with_style


@styled
def curve(
    groups: Sequence[Group], value: Callable[[dict[str, Any]], float | None], *, ylabel: str
) -> Figure | None:
    """A line a group: the mean over its runs, and a band of a standard deviation around it.

    Args:
      value: of a row of `metrics.jsonl`.

    Returns:
      None where no run has a value.
    """
    figure = Figure(figsize=(_WIDTH, 3.0 + 0.18 * len(groups)))
    axes = figure.subplots()
    lines = 0
    for i, group in enumerate(groups):
        steps, means, stds = _over_runs(group.runs, value)
        if not steps:
            continue
        color = _COLORS[i % len(_COLORS)]
        style = _STYLES[i // len(_COLORS) % len(_STYLES)]
        marker = "o" if len(steps) == 1 else None
        count = f" ({len(group.runs)} runs)" if len(group.runs) > 1 else ""
        axes.plot(steps, means, style, color=color, marker=marker, label=group.label + count)
        axes.fill_between(steps, means - stds, means + stds, color=color, alpha=0.15, linewidth=0)
        lines += 1
    if not lines:
        return None
    axes.set_xlabel("step")
    axes.set_ylabel(ylabel)
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=1, fontsize=8)
    return figure


def _over_runs(
    runs: Sequence[Run], value: Callable[[dict[str, Any]], float | None]
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Steps that every run with values has one for, and their means and standard deviations."""
    of_runs = [
        {row["step"]: v for row in run.rows if (v := value(row)) is not None} for run in runs
    ]
    of_runs = [values for values in of_runs if values]
    if not of_runs:
        return [], np.zeros(0), np.zeros(0)
    steps = sorted(set.intersection(*(set(values) for values in of_runs)))
    at = [[values[step] for values in of_runs] for step in steps]
    stds = [statistics.stdev(x) if len(x) > 1 else 0.0 for x in at]
    return steps, np.array([statistics.mean(x) for x in at]), np.array(stds)


@styled
def reliability(found: Diagram) -> Figure:
    """Accuracy over confidence, and how many images have which."""
    figure, top, bottom = _over_confidence()
    width = {"align": "edge", "width": 1 / BINS, "ec": "white"}
    top.bar(found.left, found.accuracy, color=_COLORS[0], **width)
    bottom.bar(found.left, found.images / found.images.sum(), color="#999999", **width)
    return figure


@styled
def calibration(before: Diagram, after: Diagram) -> Figure:
    """Accuracy over confidence before and after the temperature, and how many images have which."""
    figure, top, bottom = _over_confidence()
    for found, name, color, marker in (
        (before, "before", _COLORS[1], "s"),
        (after, "after", _COLORS[0], "o"),
    ):
        top.plot(found.confidence, found.accuracy, marker=marker, ms=4, color=color, label=name)
        shares = np.zeros(BINS)
        shares[np.round(found.left * BINS).astype(int)] = found.images / found.images.sum()
        bottom.stairs(shares, np.arange(BINS + 1) / BINS, color=color)
    top.legend(loc="upper left")
    return figure


def _over_confidence() -> tuple[Figure, Any, Any]:
    """Axes of accuracy, with a dashed line for the right confidence, and below it of images."""
    figure = Figure(figsize=(_WIDTH, 3.6))
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    top.plot([0, 1], [0, 1], "--", color="#333333", linewidth=1)
    top.set_ylabel("accuracy")
    top.set_ylim(0, 1)
    bottom.set_ylabel("images")
    bottom.set_xlabel("confidence")
    bottom.set_xlim(0, 1)
    return figure, top, bottom


@styled
def risk(coverage: np.ndarray, risk: np.ndarray) -> Figure:
    """The error among the surest images over their share, both 0..1 and of `risk_coverage`."""
    figure = Figure(figsize=(_WIDTH, 3.0))
    axes = figure.subplots()
    shown = np.unique(np.linspace(0, len(risk) - 1, _POINTS).astype(int))
    axes.plot(100 * coverage[shown], 100 * risk[shown], color=_COLORS[0])
    axes.axhline(100 * risk[-1], linestyle="--", color="#333333", linewidth=1)
    axes.set_xlabel("coverage: surest images that are kept, %")
    axes.set_ylabel("risk: error among them, %")
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    return figure


def confusion_counts(predictions: Predictions, num_classes: int) -> np.ndarray:
    """Images `[true class, predicted class]`."""
    pairs = predictions.labels.astype(np.int64) * num_classes + predictions.predicted
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


@styled
def confusion(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """The share of a true class's images that are given each class, in %."""
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(_WIDTH, _WIDTH))
    axes = figure.subplots()
    axes.grid(False)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=100)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(names) <= _NAMED:
        axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
        axes.set_yticks(range(len(names)), names)
        size = 7 if len(names) <= 12 else 5
        for (i, j), share in np.ndenumerate(shares):
            if share >= 0.5:
                color = "white" if share > 50 else "black"
                axes.text(j, i, f"{share:.0f}", ha="center", va="center", size=size, color=color)
    return figure


@styled
def class_accuracy(of_runs: np.ma.MaskedArray, names: Sequence[str]) -> Figure:
    """Mean accuracy of each class, with a standard deviation over the runs; the worst 20 classes.

    Args:
      of_runs: `[runs, classes]`, 0..1; masked: a run has no image of the class.
    """
    means = np.ma.mean(of_runs, axis=0)
    stds = np.ma.std(of_runs, axis=0, ddof=1) if len(of_runs) > 1 else np.zeros(len(means))
    order = np.arange(len(means))
    if len(means) > _NAMED:
        order = np.argsort(means, kind="stable")[:_NAMED]
    figure = Figure(figsize=(_WIDTH, 0.8 + 0.22 * len(order)))
    axes = figure.subplots()
    places = np.arange(len(order))
    axes.barh(places, 100 * means[order], color=_COLORS[0])
    if len(of_runs) > 1:
        error = 100 * stds[order]
        axes.errorbar(100 * means[order], places, xerr=error, fmt="none", ecolor="#333", capsize=2)
    axes.set_yticks(places, [names[int(i)] for i in order])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("accuracy %")
    return figure
