"""Curves and diagrams as matplotlib figures, narrow enough for the full size on a phone."""

import statistics
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssljax import fonts
from ssljax.drawing import Figure, mpl
from ssljax.reliability import BINS, Diagram
from ssljax.report import svg
from ssljax.report.groups import Group
from ssljax.report.records import Predictions
from ssljax.report.runs import Run
from ssljax.report.svg import INK, PAPER, WHITE

_WIDTH = 4.4  # inches
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7A6A00", "#56B4E9", "#E69F00", INK)
_STYLES = ("-", "--", ":", "-.")  # the next style follows after the last colour
_TICKS = 5  # number of step labels that fit side by side
_POINTS = 500  # number of points of a curve over images
_NAMED = 20  # most classes for which there is room for names
_NUMBERED = 12  # most classes for which there is room for larger digits
_DEEP = 65  # share in % above which a cell of the confusion matrix has white digits


class Look(NamedTuple):
    """The colour and style of a line."""

    color: str
    style: str  # one of `_STYLES`


def look(index: int) -> Look:
    """The look of the line for a row of the table, which is the same in all figures."""
    return Look(_COLORS[index % len(_COLORS)], _STYLES[index // len(_COLORS) % len(_STYLES)])


def styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps a function so that it draws in the style of reports."""

    def with_style(*args: Any, **options: Any) -> Any:
        with mpl.rc_context(svg.STYLE):
            return draw(*args, **options)

    return with_style


@styled
def curve(
    groups: Sequence[Group],
    value: Callable[[dict[str, Any]], float | None],
    *,
    ylabel: str,
    is_percent: bool = False,
    ticks: Sequence[int] = (),
    legend: bool = False,
) -> Figure | None:
    """One line per group: the mean over its runs, with a band of one standard deviation.

    Args:
      value: function of a row of `metrics.jsonl`.
      is_percent: whether values are in 0..100, to which the band is clipped.
      ticks: steps with a label on the axis; (): some steps of the lines.
      legend: whether the figure has a legend, for a separate file.

    Returns:
      The figure; None if no run has a value.
    """
    lines = {i: _over_runs(group.runs, value) for i, group in enumerate(groups)}
    lines = {i: line for i, line in lines.items() if line[0]}
    if not lines:
        return None
    figure = Figure(figsize=(_WIDTH, 3.0 + (0.18 * len(lines) if legend else 0)))
    axes = figure.subplots()
    peak = 0.0
    for i, (steps, means, stds) in lines.items():
        color, style = look(i)
        marker = "o" if len(steps) == 1 else None
        label = fonts.replaced(line_label(groups[i]))
        axes.plot(steps, means, style, color=color, marker=marker, label=label)
        low, high = means - stds, means + stds
        if is_percent:
            low, high = np.clip(low, 0, 100), np.clip(high, 0, 100)
        peak = max(peak, float(high.max()))
        if stds.any():
            axes.fill_between(steps, low, high, color=color, alpha=0.15, linewidth=0)
    axes.set_xlabel("training step")
    axes.set_ylabel(ylabel)
    axes.set_ylim(0, min(1.05 * peak, 100) if is_percent and peak else 1.05 * peak or 1)
    last = max(steps[-1] for steps, _, _ in lines.values())
    axes.set_xlim(0, 1.02 * last or 1)
    known = {step for steps, _, _ in lines.values() for step in steps}
    chosen = [step for step in ticks if step <= last] or some_steps(known)
    axes.set_xticks(chosen, [f"{step:,}" for step in chosen])
    if legend:
        figure.legend(loc="outside lower center", ncols=1, fontsize=9)
    return figure


def line_label(group: Group) -> str:
    """The text of a group's line in a legend."""
    count = f" ({len(group.runs)} runs)" if len(group.runs) > 1 else ""
    return group.label + count


def some_steps(steps: Collection[int], most: int = _TICKS) -> list[int]:
    """The last of the steps, and earlier ones that are far enough apart for their labels."""
    chosen: list[int] = []
    apart = 0.95 * max(steps, default=0) / most  # 0.95: evaluations can be unevenly spaced
    for step in sorted(steps, reverse=True):
        if not chosen or (chosen[-1] - step >= apart and step >= apart / 2):
            chosen.append(step)
    return chosen[::-1]


def _over_runs(
    runs: Sequence[Run], value: Callable[[dict[str, Any]], float | None]
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """The steps at which all runs with values have one; their means and standard deviations."""
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
    """Accuracy over confidence, and the share of images per confidence."""
    figure, top, bottom = _over_confidence()
    width = {"align": "edge", "width": 100 / BINS, "ec": PAPER}
    top.bar(100 * found.left, 100 * found.accuracy, color=_COLORS[0], **width)
    shares = 100 * found.images / found.images.sum()
    bottom.bar(100 * found.left, shares, color="#8b949e", **width)
    return figure


@styled
def calibration(before: Diagram, after: Diagram) -> Figure:
    """Like `reliability`, before and after the division by the temperature."""
    figure, top, bottom = _over_confidence()
    for found, name, color, marker in (
        (before, "before", _COLORS[1], "s"),
        (after, "after", _COLORS[0], "o"),
    ):
        confidence, accuracy = 100 * found.confidence, 100 * found.accuracy
        top.plot(confidence, accuracy, marker=marker, ms=4, color=color, label=name)
        shares = np.zeros(BINS)
        shares[np.round(found.left * BINS).astype(int)] = found.images / found.images.sum()
        bottom.stairs(100 * shares, 100 * np.arange(BINS + 1) / BINS, color=color)
    top.legend(loc="upper left")
    return figure


def _over_confidence() -> tuple[Figure, Any, Any]:
    """The axes of accuracy, with a dashed line of perfect calibration, and of images below."""
    figure = Figure(figsize=(_WIDTH, 3.6))
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    top.plot([0, 100], [0, 100], "--", color=INK, linewidth=1)
    top.set_ylabel("accuracy, %")
    top.set_ylim(0, 100)
    bottom.set_ylabel("images, %")
    bottom.set_xlabel("confidence, %")
    bottom.set_xlim(0, 100)
    return figure, top, bottom


@styled
def risk(coverage: np.ndarray, risk: np.ndarray) -> Figure:
    """The error among the most confident images over their share; 0..1, from `risk_coverage`."""
    figure = Figure(figsize=(_WIDTH, 3.0))
    axes = figure.subplots()
    shown = np.unique(np.linspace(0, len(risk) - 1, _POINTS).astype(int))
    axes.plot(100 * coverage[shown], 100 * risk[shown], color=_COLORS[0])
    axes.axhline(100 * risk[-1], linestyle="--", color=INK, linewidth=1)
    axes.set_xlabel("coverage: surest images that are kept, %")
    axes.set_ylabel("risk: error among them, %")
    axes.set_xlim(0, 100)
    axes.set_ylim(0, min(axes.get_ylim()[1], 100))
    return figure


def confusion_counts(predictions: Predictions, num_classes: int) -> np.ndarray:
    """The number of images, `[true class, predicted class]`."""
    pairs = predictions.labels.astype(np.int64) * num_classes + predictions.predicted
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


@styled
def confusion(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """The share of each true class's images per predicted class, in %.

    With up to 20 classes each cell shows its number; with more classes there is a colour bar.
    """
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = Figure(figsize=(_WIDTH, _WIDTH))
    axes = figure.subplots()
    axes.grid(False)
    image = axes.imshow(shares, cmap=_blues(), vmin=0, vmax=100)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if len(names) > _NAMED:
        figure.colorbar(image, shrink=0.7, label="images of the true class, %")
        return figure
    axes.set_xticks(range(len(names)), names, rotation=90 if max(map(len, names)) > 2 else 0)
    axes.set_yticks(range(len(names)), names)
    size = 7 if len(names) <= _NUMBERED else 5
    for (i, j), share in np.ndenumerate(shares):
        if share >= 0.5:
            color = WHITE if share > _DEEP else INK
            axes.text(j, i, f"{share:.0f}", ha="center", va="center", size=size, color=color)
    return figure


def _blues() -> Any:
    """A colour map from transparent to blue."""
    return mpl.colors.LinearSegmentedColormap.from_list("blues", ["#08519c00", "#08519cff"])


@styled
def class_accuracy(of_runs: np.ma.MaskedArray, names: Sequence[str]) -> Figure:
    """The mean accuracy per class, with standard deviations over the runs; the worst 20 classes.

    Args:
      of_runs: `[runs, classes]`, 0..1; masked: a run has no image of the class.
    """
    means = 100 * np.ma.mean(of_runs, axis=0)
    order = np.arange(len(means))
    if len(means) > _NAMED:
        order = np.argsort(means, kind="stable")[:_NAMED]
    means = means[order]
    figure = Figure(figsize=(_WIDTH, 0.8 + 0.22 * len(order)))
    axes = figure.subplots()
    places = np.arange(len(order))
    axes.barh(places, means, color=_COLORS[0])
    if len(of_runs) > 1:
        std = 100 * np.ma.std(of_runs, axis=0, ddof=1)[order]
        reach = np.ma.stack([np.minimum(std, means), np.minimum(std, 100 - means)])
        axes.errorbar(means, places, xerr=reach, fmt="none", ecolor=INK, capsize=2)
    axes.set_yticks(places, [names[int(i)] for i in order])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("accuracy, %")
    return figure
