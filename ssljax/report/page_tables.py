"""The content of the page's tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ssljax.report import facts, html_table
from ssljax.report import groups as grouping
from ssljax.report.groups import Group
from ssljax.report.html_table import Cell, Column, HtmlTable
from ssljax.report.runs import Run
from ssljax.report.table import Table

_FIRST, _LAST = ("method",), ("source", "settings")
_ABOUT = ("data set", "labels", "seeds", "status")
_TITLES = {"seeds": "runs"}
_BAD = ("failed", "unreadable")


def results(table: Table, groups: Sequence[Group]) -> HtmlTable:
    """The table of results, with errors next to the method, and settings last."""
    errors = [title for title in table.heading if title not in {*_FIRST, *_ABOUT, *_LAST}]
    order = [
        table.heading.index(title)
        for title in (*_FIRST, *errors, *_ABOUT, *_LAST)
        if title in table.heading
    ]
    columns = [
        Column(
            _TITLES.get(title, title),
            wraps=title in ("data set", *_LAST),
            is_rest=title == "settings",
        )
        for title in (table.heading[i] for i in order)
    ]
    rows, styles = [], []
    for number, (cells, counts) in enumerate(zip(table.cells, table.counts, strict=True)):
        rows.append([Cell(cells[i], f"of {counts[i]} runs" if counts[i] else "") for i in order])
        is_ours = table.before <= number < table.before + len(groups)
        styles.append("" if is_ours else "published")
    return html_table.make(columns, rows, styles)


def runs(found: Sequence[Run], output: Path) -> HtmlTable:
    """The table of runs, with one row per run; columns that are empty for all runs are left out."""
    is_calibrated = any(run.calibration for run in found)
    has_notes = any(run.notes for run in found)
    columns = [
        Column("run", wraps=True),
        Column("error %"),
        Column("raw weights: error %"),
        Column("last error %"),
        Column("status"),
        *([Column("notes", wraps=True, is_rest=True)] * has_notes),
        Column("step"),
        Column("learning rate"),
        Column("training time"),
        Column("images per second"),
        *([Column("temperature"), Column("ECE before"), Column("ECE after")] * is_calibrated),
    ]
    rows = [_run(run, output, is_calibrated, has_notes) for run in found]
    return html_table.make(columns, rows)


def _run(run: Run, output: Path, is_calibrated: bool, has_notes: bool) -> list[Cell]:
    seconds, speed = facts.training_seconds(run), facts.images_per_second(run)
    rate = facts.learning_rate(run)
    calibration = run.calibration
    calibrated = [""] * 3
    if calibration:
        before, after = calibration.ece_before, calibration.ece_after
        calibrated = [f"{calibration.temperature:.2f}", f"{before:.3f}", f"{after:.3f}"]
    return [
        Cell(run.name, href=facts.link(run, output)),
        Cell(_two(grouping.median_error(run))),
        Cell(_two(grouping.raw_error(run))),
        Cell(_two(grouping.last_error(run))),
        Cell(run.status, style="bad" if run.status in _BAD else ""),
        *([Cell("; ".join(run.notes))] * has_notes),
        Cell(f"{run.step:,}"),
        Cell("" if rate is None else f"{rate:g}"),
        Cell("" if seconds is None else facts.clock(seconds), key=seconds),
        Cell("" if speed is None else f"{speed:,.0f}"),
        *map(Cell, calibrated if is_calibrated else ()),
    ]


def _two(figure: float | None) -> str:
    return "" if figure is None else f"{figure:.2f}"


def differing(found: Sequence[Run], knobs: Mapping[str, Sequence[str]]) -> HtmlTable | None:
    """The table of `groups.differing_knobs`; None: no fields differ."""
    if not knobs:
        return None
    columns = [Column("run", wraps=True), *(Column(knob, wraps=True) for knob in knobs)]
    rows = [
        [Cell(run.name), *(Cell(values[i]) for values in knobs.values())]
        for i, run in enumerate(found)
    ]
    return html_table.make(columns, rows)
