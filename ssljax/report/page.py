"""`report.html`: a self-contained page with the complete report."""

import datetime
import json
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from ssljax.overrides import flatten
from ssljax.report import curves as drawing
from ssljax.report import groups as grouping
from ssljax.report import page_tables, pictures, sheets
from ssljax.report.command import command
from ssljax.report.findings import findings
from ssljax.report.groups import Group
from ssljax.report.picture import Picture
from ssljax.report.runs import Run
from ssljax.report.table import Table


def make(
    title: str,
    runs: Sequence[Run],
    groups: Sequence[Group],
    table: Table,
    *,
    output: Path,
    remarks: Sequence[str] = (),
    refresh: int = 0,
) -> tuple[str, list[Picture]]:
    """The page, and its pictures for separate files.

    Args:
      output: directory of the page, to which its links are relative.
      remarks: lines under the table.
      refresh: seconds after which a browser reloads the page; 0: never.
    """
    curves = drawing.curves(groups)
    sections = [_section(group, number) for number, group in enumerate(groups, 1)]
    readable = [run for run in runs if run.config]
    differing = grouping.differing_knobs(readable)
    tables = {
        "results": page_tables.results(table, groups) if table.cells else None,
        "runs": page_tables.runs(runs, output),
        "differing": page_tables.differing(readable, differing),
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ssljax.report", "."),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["quoted"] = urllib.parse.quote
    html = environment.get_template("page.html").render(
        title=title,
        when=datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        refresh=refresh,
        runs=runs,
        counts=", ".join(f"{n} {status}" for status, n in Counter(r.status for r in runs).items()),
        findings=findings(groups),
        tables=tables,
        most_columns=max(len(shown.columns) for shown in tables.values() if shown),
        note=table.note,
        remarks=remarks,
        lines=_lines(groups, curves),
        sections=sections,
        is_calibrated=any(run.calibration for run in runs),
        commands=[(run.name, line) for run in readable if (line := command(run))],
        common=_common(readable, differing),
        machines=_machines(runs),
    )
    drawn = [picture for of_data in curves.values() for picture in of_data]
    return html, drawn + [p for section in sections for p in section["pictures"]]


def _lines(
    groups: Sequence[Group], curves: dict[str, list[Picture]]
) -> list[tuple[str, dict[str, Any]]]:
    """The curves of each data set, with the legend that they share.

    Curves in percent are in a separate row.
    """
    found = []
    for data, members in drawing.together(groups).items():
        drawn = curves.get(data, [])
        rows = [[p for p in drawn if p.is_percent], [p for p in drawn if not p.is_percent]]
        if drawn:
            legend, text = drawing.legend(members), drawing.band_text(members)
            found.append((data, {"rows": rows, "legend": legend, "text": text}))
    return found


def _section(group: Group, number: int) -> dict[str, Any]:
    run = group.representative()
    return {
        "heading": f"{group.label}: {drawing.of_data(group)}",
        "pictures": pictures.of_group(group, number),
        "mistakes": pictures.mistakes(run),
        "run": run.name,
        "sheets": sheets.sheets(group),
        "runs": len(group.runs),
    }


def _common(runs: Sequence[Run], differing: dict[str, Any]) -> str:
    """The config fields that all runs share, as JSON."""
    if not runs:
        return ""
    knobs = {k: v for k, v in sorted(flatten(runs[0].config).items()) if k not in differing}
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in knobs.items())


def _machines(runs: Sequence[Run]) -> list[tuple[str, dict[str, Any]]]:
    """The machines of the runs' last starts: names of runs, and the record of the start."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if run.starts:
            start = {k: run.starts[-1][k] for k in ("devices", "machine", "versions")}
            found.setdefault(json.dumps(start), []).append(run.name)
    return [
        ("all" if len(names) == len(runs) else ", ".join(names), json.loads(start))
        for start, names in found.items()
    ]
