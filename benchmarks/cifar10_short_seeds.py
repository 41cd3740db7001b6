"""Several seeds of the short CIFAR-10 runs, which `benchmarks/gpu_lease.sh short` makes on a GPU.

    python -m benchmarks.cifar10_short_seeds [--runs=runs/gpu/runs/short]

`--runs` names a folder of run directories `<method>.<labelled set>.<seed>`, whose evaluations are
put into `docs/results/cifar10_short_seeds.jsonl`. Without it, that file is read. Both print the
table of docs/results.md.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cifar10_short_results import (
    METHODS,
    PEER,
    SEEDS,
    TITLES,
    Rows,
    by_step,
    evaluations,
    mean_and_std,
    read_seeds,
)
from benchmarks.pictures import DOCS
from ssljax.run import metrics
from ssljax.storage.files import write_text

_KEYS = ("test/accuracy_ema", "test/accuracy_raw", "valid/accuracy_ema")


def collected(folder: Path) -> list[dict[str, Any]]:
    """A row per evaluation of each run: `method`, `set`, `seed`, `step` and accuracies, 0..1."""
    rows = []
    for method in (*METHODS, PEER):
        for run in sorted(folder.glob(f"{method}.*.*")):
            if not (run / "metrics.jsonl").exists():
                continue  # the log beside a run
            _, number, seed = run.name.split(".")
            for row in evaluations(metrics.read_rows(run / "metrics.jsonl")):
                which = {"method": method, "set": int(number), "seed": int(seed)}
                accuracies = {key: round(row[key], 4) for key in _KEYS if key in row}
                rows.append({**which, "step": row["step"], **accuracies})
    return rows


def table(rows: Rows, steps: Sequence[int]) -> str:
    """A row per method and labelled set: for each of the steps, the test accuracy of the EMA
    weights, over the seeds that have come so far, and their number.

    Args:
      rows: those of `collected`.
    """
    head = [column for step in steps for column in (f"step {step:,}, accuracy %", "seeds")]
    lines = [f"| method | labelled set | {' | '.join(head)} |", f"|{' --- |' * (2 + len(head))}"]
    for method, number in dict.fromkeys((row["method"], row["set"]) for row in rows):
        of_runs = [row for row in rows if (row["method"], row["set"]) == (method, number)]
        cells = [TITLES[method], str(number)]
        for step in steps:
            found = by_step(of_runs).get(step, [])
            cells += [mean_and_std(found) if found else "", str(len(found))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Collects and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--runs", type=Path, help="the folder of the runs")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where the file of rows is")
    parser.add_argument("--steps", default="7500,8000", help="whose accuracy is printed")
    options = parser.parse_args(arguments)
    if options.runs:
        path = options.docs / SEEDS
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = collected(options.runs)
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
    print(table(read_seeds(options.docs), [int(step) for step in options.steps.split(",")]), end="")


if __name__ == "__main__":
    main()
