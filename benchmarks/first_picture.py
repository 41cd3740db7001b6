"""The picture at the head of the README: test error of runs over the steps, on a logarithmic axis.

    python -m benchmarks.first_picture --workdir=runs/digits --output=docs/digits_test_error.svg

`docs/results.md` has the commands that train the runs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ssljax.drawing import Figure, mpl
from ssljax.report import groups, plots, runs

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#7A6A00", "#56B4E9")
_LEAST = 100 / 360  # %, one mistake in 360 test images: a logarithm has no 0
_TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100)


def errors(run: runs.Run) -> dict[int, float]:
    """Step -> test error in %, with EMA weights."""
    key = "test/accuracy_ema"
    return {int(row["step"]): 100 * (1 - row[key]) for row in run.rows if key in row}


def draw(grouped: Sequence[groups.Group]) -> Figure:
    """A line per method: the mean over its runs, and a band of one standard deviation."""
    figure = Figure(figsize=(6.4, 3.6))
    axes = figure.subplots()
    for color, group in zip(_COLORS, grouped, strict=False):
        of_runs = [errors(run) for run in group.runs]
        steps = sorted(set.intersection(*map(set, of_runs)))
        values = np.array([[found[step] for step in steps] for found in of_runs])
        mean, std = values.mean(0), values.std(0, ddof=1) if len(values) > 1 else 0 * values[0]
        batch = group.runs[0].config["batch_size"]
        label = f"{group.method}, {batch} labelled images per step ({len(values)} runs)"
        axes.plot(steps, np.maximum(mean, _LEAST), color=color, label=label)
        low = np.maximum(mean - std, _LEAST)
        axes.fill_between(steps, low, np.minimum(mean + std, 100), color=color, alpha=0.15)
    axes.set_yscale("log")
    axes.set_yticks(_TICKS, [f"{tick:g}" for tick in _TICKS])
    axes.minorticks_off()
    axes.set_ylim(0.5, 100)
    axes.set_xlim(left=0)
    axes.set_xlabel("step")
    axes.set_ylabel("test error (%), logarithmic")
    figure.legend(loc="outside lower center", ncols=1, fontsize=8)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the runs and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--workdir", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    found = groups.group(runs.read_all([options.workdir]))
    with mpl.rc_context(plots.STYLE):
        draw(found).savefig(options.output, metadata={"Date": None})


if __name__ == "__main__":
    main()
