"""The table of results for the terminal, and as Markdown, CSV and LaTeX."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ssljax.report import groups
from ssljax.report.groups import Group, Spread
from ssljax.report.reference import Published
from ssljax.report.runs import Run
from ssljax.spreadsheet import inert

# The heading, the name in the CSV, and the function of a run.
Column = tuple[str, str, Callable[[Run], float | None]]
_MEDIAN: Column = ("error %", "error", groups.median_error)
_BEST: Column = ("at best validation %", "best_on_validation", groups.best_on_validation)
_RAW: Column = ("raw weights %", "raw", groups.raw_error)
_LAST: Column = ("last %", "last", groups.last_error)
_BALANCED: list[Column] = [
    ("balanced accuracy %", "balanced_accuracy", groups.balanced_accuracy),
    ("macro F1 %", "macro_f1", groups.macro_f1),
]
_ORACLE: Column = ("oracle % (chosen on the test set)", "oracle", groups.oracle_error)
_NOTE = (
    "Errors are those of the averaged (EMA) weights, as mean ± standard deviation (n − 1) over the "
    "runs of a row, which differ in their seeds; a single run has no ±. error: median of the last "
    "20 evaluations; at best validation: the test error where the validation accuracy is best, if "
    "there is one image per class for validation; raw weights: as error, without averaging; last: "
    "the last evaluation."
)
_OF_BALANCED = (
    " balanced accuracy and macro F1: medians of the last 20 evaluations too; each class with an "
    "image contributes equally to them, whatever its number of images."
)


class Table(NamedTuple):
    """A table: text for people in `cells`, numbers for programs in `values`, one list per row."""

    heading: list[str]
    cells: list[list[str]]
    value_heading: list[str]
    values: list[list[str | int | float | None]]
    before: int = 0  # number of rows before those of runs
    # For each of `cells`, the number of runs that its ± summarises; 0: no ±, or unknown.
    counts: Sequence[Sequence[int]] = ()

    @property
    def note(self) -> str:
        """The description of the columns."""
        is_balanced = any(title in self.heading for title, _, _ in _BALANCED)
        is_of_two = any(2 in row for row in self.counts)
        note = _NOTE + (_OF_BALANCED if is_balanced else "")
        return note + (f" {groups.OF_TWO}" if is_of_two else "")


def make(
    found: Sequence[Group],
    published: Sequence[Published] = (),
    *,
    oracle: bool,
    probes: Sequence[Published] = (),
) -> Table:
    """Makes the table: the probes, one row per group, then the published rows.

    `cells` has no empty columns, and no balanced accuracy and macro F1 if all classes are equally
    frequent.

    Args:
      published, probes: rows that are not from runs.
      oracle: whether to show the best error on the test set, marked as such.
    """
    columns = [_MEDIAN, _BEST, _RAW, _LAST, *_BALANCED, *([_ORACLE] if oracle else [])]
    cells: list[list[str]] = []
    counts: list[list[int]] = []
    values: list[list[str | int | float | None]] = []

    def add_others(rows: Sequence[Published], status: str) -> None:
        for row in rows:
            shown, numbers = _of_others(row, len(columns), status)
            cells.append(shown)
            counts.append([0] * len(shown))
            values.append(numbers)

    add_others(probes, "probe")
    for group in found:
        parts = {groups.headline_part(run) for run in group.runs if groups.evaluations(run)}
        data_set = group.data_set + (" (validation)" if parts == {"validation"} else "")
        spreads = [group.spread(figure) for _, _, figure in columns]
        start = [group.method, data_set, _text(group.labels), group.settings]
        seeds, status = len(group.runs), group.status
        cells.append([*start, str(seeds), *map(describe, spreads), status, ""])
        over = [spread.runs if spread and spread.std is not None else 0 for spread in spreads]
        counts.append([0] * 5 + over + [0] * 2)
        numbers = [x for spread in spreads for x in (spread[:2] if spread else (None, None))]
        known = [group.method, data_set, group.labels, group.settings]
        values.append([*known, seeds, *numbers, status, ""])
    add_others(published, "published")
    about, end = ["method", "data set", "labels", "settings", "seeds"], ["status", "source"]
    heading = [*about, *(title for title, _, _ in columns), *end]
    means = [f"{name}_{what}" for _, name, _ in columns for what in ("mean", "std")]
    hidden = ["status"] if all(group.status == "finished" for group in found) else []
    if not any(groups.is_uneven(run) for group in found for run in group.runs):
        hidden += [title for title, _, _ in _BALANCED]
    shown = [
        i for i, title in enumerate(heading) if any(row[i] for row in cells) and title not in hidden
    ]
    return Table(
        [heading[i] for i in shown],
        [[row[i] for i in shown] for row in cells],
        [*about[:1], "data_set", *about[2:], *means, *end],
        values,
        before=len(probes),
        counts=[[row[i] for i in shown] for row in counts],
    )


def _of_others(
    row: Published, columns: int, status: str
) -> tuple[list[str], list[str | int | float | None]]:
    """The cells and the values of a row that is not from runs."""
    blank, missing = [""] * (columns - 1), [None] * 2 * (columns - 1)
    name = [row.method, row.data_set]
    cells = [*name, str(row.labels), "", "", describe(row.error), *blank, "", row.source]
    return cells, [*name, row.labels, "", None, *row.error[:2], *missing, status, row.source]


def describe(spread: Spread | None) -> str:
    """The text `4.26 ± 0.05`, or `4.26` for a single run, or ""."""
    if spread is None:
        return ""
    return f"{spread.mean:.2f}" + ("" if spread.std is None else f" ± {spread.std:.2f}")


def _text(value: int | None) -> str:
    return "" if value is None else str(value)


def text(table: Table) -> str:
    """The table as text with aligned columns."""
    rows = [table.heading, *table.cells]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


# Characters that are markup in Markdown, or in HTML within it; a _ within a word is not.
_MARKUP = re.compile(r"[\\|`*\[\]<>&$~]|\b_|_\b")


def markdown(table: Table) -> str:
    """The table in GitHub's Markdown."""
    rule = ["---"] * len(table.heading)
    rows = [
        [_MARKUP.sub(r"\\\g<0>", cell) for cell in row] for row in (table.heading, *table.cells)
    ]
    rows.insert(1, rule)
    return "".join(f"| {' | '.join(row)} |\n" for row in rows) + f"\n{table.note}\n"


def comma_separated(table: Table) -> str:
    """All columns as CSV, with unrounded numbers, and no text that a spreadsheet would evaluate."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table.value_heading)
    for row in table.values:
        writer.writerow([inert(value) if isinstance(value, str) else value for value in row])
    return file.getvalue()


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "[": "{[}", "*": "{*}",  # after \\ they would be an argument of it
    "<": r"\textless{}", ">": r"\textgreater{}",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "−": "$-$", "Π": r"$\Pi$", "→": r"$\to$",
}  # fmt: skip


def latex(table: Table) -> str:
    """The table as a LaTeX `tabular` with the package booktabs."""

    def line(row: Sequence[str]) -> str:
        return " & ".join("".join(_LATEX.get(c, c) for c in cell) for cell in row) + r" \\"

    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            rf"\begin{{tabular}}{{{'l' * len(table.heading)}}}",
            r"\toprule",
            line(table.heading),
            r"\midrule",
            *map(line, table.cells),
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )
