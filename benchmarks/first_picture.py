"""The picture at the head of the README: test error over the steps, on a logarithmic axis.

    python -m benchmarks.first_picture --workdir=runs/digits

reads runs into `docs/results/digits_test_error.csv` and draws `docs/digits_test_error.svg` from it;
without `--workdir` it draws the file as it is. `docs/results.md` has the commands that train.
"""

import argparse
import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.pictures import COLORS, DOCS, error_axis, line_and_band, save
from ssljax.drawing import Figure
from ssljax.report import groups, runs

_FIELDS = ("method", "step", "test_error_percent", "standard_deviation")
_BATCHES = {"fixmatch": 8, "mixmatch": 32, "supervised": 8}  # labelled images, of configs/
_TICKS = (0.5, 1, 2, 5, 10, 20, 50, 100)  # %, of the axis


def rows_of(workdir: Path) -> list[tuple[str, int, float, float]]:
    """Method, step, mean test error in % over the runs (EMA weights), standard deviation."""
    rows = []
    for group in groups.group(runs.read_all([workdir])):
        of_runs = [groups.evaluations(run, "test") for run in group.runs]
        for at_step in zip(*of_runs, strict=True):
            errors = [100 * (1 - row["test/accuracy_ema"]) for row in at_step]
            found = groups.spread(errors)
            assert found is not None
            rows.append((group.method, int(at_step[0]["step"]), found.mean, found.std or 0.0))
    return rows


def draw(rows: Sequence[Sequence[str]]) -> Figure:
    """A line per method, and a band of one standard deviation around it."""
    figure = Figure(figsize=(5.4, 3.5))
    axes = figure.subplots()
    error_axis(axes, _TICKS)
    for color, method in zip(COLORS, dict.fromkeys(row[0] for row in rows), strict=False):
        numbers = np.array([row[1:] for row in rows if row[0] == method], float)
        steps, mean, std = numbers.T
        label = f"{method}, {_BATCHES[method]} labelled images per step"
        line_and_band(axes, steps, mean, std, color, label)
    axes.set_xlim(left=0)
    axes.set_xlabel("step")
    figure.legend(loc="outside lower center", ncols=1, fontsize=8)
    return figure


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the runs, if there are some, and writes the picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "--workdir", type=Path, help="directory of the runs; none: the CSV as it is"
    )
    parser.add_argument("--output", type=Path, default=DOCS / "digits_test_error.svg")
    parser.add_argument("--data", type=Path, default=DOCS / "results" / "digits_test_error.csv")
    options = parser.parse_args(arguments)
    if options.workdir:
        with options.data.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(_FIELDS)
            for method, step, mean, std in rows_of(options.workdir):
                writer.writerow([method, step, f"{mean:.2f}", f"{std:.2f}"])
    with options.data.open(newline="", encoding="utf-8") as file:
        _, *rows = csv.reader(file)
    save(partial(draw, rows), options.output)


if __name__ == "__main__":
    main()
