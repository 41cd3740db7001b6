"""All methods on the digits beside each other: the tables of docs/results.md.

    python -m benchmarks.methods [--methods=fixmatch,abc] [--jobs=2]
    python -m benchmarks.methods --table=uneven
    python -m benchmarks.methods --table=cost --before=<another checkout>

`digits` trains each recipe `<method>_digits` on five labelled sets. `uneven` is of classes of which
the most frequent has 20 times the images of the rarest, with the methods that are made for them. A
row is the mean ± standard deviation over the sets, with EMA weights, and is in
`<workdir>/<table>.md` as soon as it is known. Each run has one thread, so that a machine takes as
many `--jobs` as it has cores. A command that is started again trains what is missing. Several
commands with different methods can share the directory. Further arguments, such as
`--config.num_steps=300`, go to every run.

`cost` is the time of a step of FixMatch and ReMixMatch here and in another checkout, turn by turn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import jobs
from benchmarks.jobs import ROOT
from ssljax import recipe_files
from ssljax.storage.files import write_text


class Row(NamedTuple):
    """A row of the table, which is trained on each labelled set."""

    name: str  # by which it is chosen
    method: str
    title: str
    overrides: tuple[str, ...] = ()


LABELS_ONLY = Row("supervised", "supervised", "`supervised`, on the labelled images alone")
UNEVEN = (
    LABELS_ONLY,
    Row("fixmatch", "fixmatch", "`fixmatch`"),
    Row(
        "fixmatch+adjusted", "fixmatch", "`fixmatch` with logit adjustment",
        ("--config.logit_adjustment=1",),
    ),
    Row("abc", "abc", "`abc`"),
    Row("crest", "crest", "CReST", ("--config.method_args.dist_align=false",)),
    Row("crest+", "crest", "CReST+"),
)  # fmt: skip
DATA = {"digits": "digits.{}@40-100", "uneven": "digits_lt20.{}@40+90-0"}
SCORES = {"digits": ("accuracy",), "uneven": ("accuracy", "balanced_accuracy")}
COST = ("fixmatch", "remixmatch")


class Table(NamedTuple):
    """The runs of a table."""

    name: str
    workdir: Path
    sets: int  # labelled sets, from 1
    given: tuple[str, ...]  # arguments of every run

    def rows(self) -> tuple[Row, ...]:
        """All rows, whatever is trained."""
        if self.name == "uneven":
            return UNEVEN
        recipes = [name for name in recipe_files.shipped() if name.endswith("_digits")]
        methods = sorted({name.removesuffix("_digits") for name in recipes} - {"supervised"})
        return LABELS_ONLY, *(Row(name, name, f"`{name}`") for name in methods)

    def headline(self, row: Row, number: int) -> dict[str, Any] | None:
        """The headline of the run on a labelled set; None: it has not been trained to its end."""
        found = jobs.done(self._directory(row, number), self._command(row, number))
        return found and found["headline"]

    def train(self, row: Row, number: int) -> dict[str, Any]:
        """The same of a run that is trained now, if it has not been.

        Raises:
          RuntimeError: it failed.
        """
        if headline := self.headline(row, number):
            return headline
        run, command = self._directory(row, number), self._command(row, number)
        programs = self.workdir.absolute() / "programs"  # each is compiled once for all sets
        here = f"--workdir={run.absolute()}", f"--config.compilation_cache={programs}"
        jobs.call([sys.executable, "launch.py", *command, *here], run)
        generations = sorted(
            run.glob("generation=*/results.json"), key=lambda x: int(x.parent.name.split("=")[1])
        )
        results = generations[-1] if generations else run / "results.json"
        headline = json.loads(results.read_text())["headline"]
        jobs.note_done(run, command, headline=headline)
        return headline

    def _directory(self, row: Row, number: int) -> Path:
        return self.workdir / self.name / row.name / str(number)

    def _command(self, row: Row, number: int) -> list[str]:
        uneven = ["--config.unlabeled=exclude_labeled"] if self.name == "uneven" else []
        return [
            f"--config={row.method}_digits", f"--config.dataset={DATA[self.name].format(number)}",
            *uneven, *row.overrides, *self.given,
        ]  # fmt: skip

    def markdown(self) -> str:
        """The rows whose runs are all done, the best one first."""
        lines = []
        for row in self.rows():
            found = [self.headline(row, number) for number in range(1, self.sets + 1)]
            if None not in found:
                figures = [spread(found, f"test_{score}") for score in SCORES[self.name]]
                cells = [row.title, *(f"{mean:.2f} ± {std:.2f}" for mean, std in figures)]
                lines.append((figures[-1][0], f"| {' | '.join(cells)} |"))
        heading = ["method", *(score.replace("_", " ") + " %" for score in SCORES[self.name])]
        rules = f"|{' --- |' * len(heading)}"
        best_first = [line for _, line in sorted(lines, reverse=True)]
        return "\n".join([f"| {' | '.join(heading)} |", rules, *best_first, ""])


def spread(headlines: Sequence[Any], name: str) -> tuple[float, float]:
    """Mean and standard deviation of a figure of headlines, in %."""
    figures = [100 * headline[name] for headline in headlines]
    return statistics.mean(figures), statistics.stdev(figures) if len(figures) > 1 else 0.0


def train(table: Table, rows: Sequence[Row], count: int) -> None:
    """Trains rows, `count` runs at a time; writes and prints the table whenever one is done."""
    path = table.workdir / f"{table.name}.md"
    sets = range(1, table.sets + 1)
    tasks = [partial(table.train, row, number) for row in rows for number in sets]
    with closing(jobs.side_by_side(tasks, count)) as headlines:
        for row in rows:
            found = [next(headlines) for _ in sets]
            mean, deviation = spread(found, f"test_{SCORES[table.name][-1]}")
            write_text(path, table.markdown())
            print(f"{row.name}: {mean:.2f} ± {deviation:.2f}", file=sys.stderr, flush=True)
    print(table.markdown(), end="")


def cost(methods: Sequence[str], before: Path, steps: int, turns: int) -> str:
    """A table of the fastest steps of both checkouts; other processes only ever make one slower."""
    lines = ["| method | ms per step before | now | now / before |", "| --- | --- | --- | --- |"]
    for method in methods:
        pairs = [[step_seconds(x, method, steps) for x in (before, ROOT)] for _ in range(turns)]
        old, new = (1000 * min(times) for times in zip(*pairs, strict=True))
        lines.append(f"| `{method}` | {old:.2f} | {new:.2f} | {new / old:.3f} |")
    return "\n".join([*lines, ""])


def step_seconds(checkout: Path, method: str, steps: int) -> float:
    """The fastest step of the digits' recipe in a process of a checkout."""
    command = [
        sys.executable, "-m", "benchmarks.train", f"--config={method}_digits", f"--steps={steps}",
        "--config.cpu_devices=1", "--json",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    output = subprocess.check_output(command, cwd=checkout, env=environment, text=True)
    return json.loads(output.splitlines()[-1])["fastest_step_s"]


def main() -> None:
    """Trains or measures, and prints."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("--table", choices=[*DATA, "cost"], default="digits")
    parser.add_argument("--methods", default="", help="names of rows, with commas; all by default")
    parser.add_argument("--sets", type=int, default=5, help="labelled sets")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--workdir", type=Path, default=Path("runs/methods"))
    parser.add_argument("--before", type=Path, help="a checkout, for cost")
    parser.add_argument("--steps", type=int, default=100, help="timed in a turn, for cost")
    parser.add_argument("--turns", type=int, default=3, help="for cost")
    args, given = parser.parse_known_args()
    chosen = args.methods.split(",") if args.methods else []
    if args.table == "cost":
        if args.before is None:
            parser.error("--table=cost needs --before=<another checkout>")
        print(cost(chosen or COST, args.before.absolute(), args.steps, args.turns), end="")
        return
    table = Table(args.table, args.workdir, args.sets, tuple(given))
    rows = {row.name: row for row in table.rows()}
    if unknown := sorted(set(chosen) - rows.keys()):
        parser.error(f"--methods has {', '.join(unknown)}; allowed: {', '.join(rows)}")
    train(table, [rows[name] for name in chosen or rows], args.jobs)


if __name__ == "__main__":
    main()
