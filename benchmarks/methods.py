"""All methods on the digits beside each other: the tables of docs/results.md.

    python -m benchmarks.methods [--table digits|uneven] [--sets 5] [--workdir runs/methods]

Trains each recipe `<method>_digits` on so many labelled sets and prints a Markdown table, sorted by
error: mean ± standard deviation over the sets, with EMA weights. `uneven` is of classes that have
20 times as many images as others, with the methods that are made for them. What is finished is not
trained again. Further arguments, such as `--config.num_steps=300`, go to every run.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from ssljax import recipe_files


class Row(NamedTuple):
    """What is trained, but for the labelled set."""

    title: str
    method: str
    overrides: tuple[str, ...] = ()


UNEVEN = (
    Row("supervised", "supervised"),
    Row("fixmatch", "fixmatch"),
    Row("fixmatch, logit adjustment", "fixmatch", ("--config.logit_adjustment=1",)),
    Row("abc", "abc"),
    Row("crest", "crest", ("--config.method_args.dist_align=false",)),
    Row("crest+", "crest"),
)
DATA = {"digits": "digits.{}@40-100", "uneven": "digits_lt20.{}@40+90-0"}


def rows(table: str) -> tuple[Row, ...]:
    """The rows of a table."""
    if table == "uneven":
        return UNEVEN
    recipes = [name for name in recipe_files.shipped() if name.endswith("_digits")]
    return tuple(Row(name[:-7], name[:-7]) for name in sorted(recipes))


def train(table: str, row: Row, labeled_set: int, workdir: Path, given: list[str]) -> Any:
    """What `results.json` holds of a run that is trained now, or has been."""
    run = workdir / table / row.title.replace(", ", "_").replace(" ", "_") / str(labeled_set)
    uneven = ["--config.unlabeled=exclude_labeled"] if table == "uneven" else []
    command = [
        sys.executable, "launch.py", f"--config={row.method}_digits", f"--workdir={run}",
        f"--config.dataset={DATA[table].format(labeled_set)}", *uneven, *row.overrides, *given,
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    generations = sorted(run.glob("generation=*/results.json"), key=lambda p: p.stat().st_mtime)
    return json.loads((generations[-1] if generations else run / "results.json").read_text())


def summary(found: list[dict[str, Any]], name: str) -> tuple[float, float]:
    """Mean and standard deviation of the headlines' errors, in %."""
    errors = [100 * (1 - x["headline"][name]) for x in found]
    return statistics.mean(errors), statistics.stdev(errors) if len(errors) > 1 else 0.0


def main() -> None:
    """Trains and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--table", choices=["digits", "uneven"], default="digits")
    parser.add_argument("--sets", type=int, default=5)
    parser.add_argument("--methods", nargs="*", help="titles of rows; all, by default")
    parser.add_argument("--workdir", type=Path, default=Path("runs/methods"))
    args, given = parser.parse_known_args()
    scores = ["accuracy", "balanced_accuracy"] if args.table == "uneven" else ["accuracy"]
    lines = []
    for row in rows(args.table):
        if args.methods and row.title not in args.methods:
            continue
        start = time.perf_counter()
        found = [
            train(args.table, row, number, args.workdir, given)
            for number in range(1, args.sets + 1)
        ]
        figures = [summary(found, f"test_{score}") for score in scores]
        cells = [f"{mean:.2f} ± {deviation:.2f}" for mean, deviation in figures]
        lines.append((figures[-1][0], f"| {' | '.join([row.title, *cells])} |"))
        seconds = time.perf_counter() - start
        print(f"{row.title}: {cells[-1]} ({seconds:.0f} s)", file=sys.stderr, flush=True)
    titles = ["error %", "balanced error %"][: len(scores)]
    print(f"| {' | '.join(['method', *titles])} |\n|{' --- |' * (1 + len(titles))}")
    print("\n".join(line for _, line in sorted(lines)))


if __name__ == "__main__":
    main()
