"""Pictures of docs/: lines with bands in the reports' style, which has light and dark colours."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssljax.drawing import Figure, mpl
from ssljax.report import svg

DOCS = Path(__file__).parents[1] / "docs"
COLORS = ("#0072B2", "#D55E00", "#009E73")


def error_axis(axes: Any, ticks: Sequence[float]) -> None:
    """Makes the vertical axis one of the test error in %, logarithmic, from the first tick to the
    last."""
    axes.set_yscale("log")
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(ticks[0], ticks[-1])
    axes.set_ylabel("test error (%)")


def line_and_band(
    axes: Any, x: np.ndarray, mean: np.ndarray, std: np.ndarray, color: str, label: str
) -> None:
    """Draws a line through `mean [N]` over `x [N]`, and around it, within the limits of the
    vertical axis, a band of one standard deviation, `std [N]`."""
    axes.plot(x, mean, color=color, label=label)
    low, high = np.clip([mean - std, mean + std], *axes.get_ylim())
    axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def save(draw: Callable[[], Figure], path: Path) -> None:
    """Writes the figure that `draw` draws in the reports' style; the same one is the same file."""
    with mpl.rc_context(svg.STYLE):
        path.write_bytes(svg.render(draw()))
