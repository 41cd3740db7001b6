"""`report.html`: everything on one page that needs nothing but itself."""

import datetime
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jinja2

from ssljax.overrides import flatten
from ssljax.report import groups as grouping
from ssljax.report import pictures
from ssljax.report.groups import Group
from ssljax.report.pictures import Picture
from ssljax.report.runs import Run
from ssljax.report.table import Table


def make(
    title: str,
    runs: Sequence[Run],
    groups: Sequence[Group],
    table: Table,
    *,
    remarks: Sequence[str] = (),
    refresh: int = 0,
) -> tuple[str, list[Picture]]:
    """The page, and its pictures for files of their own.

    Args:
      remarks: lines under the table.
      refresh: seconds after which a browser reads it again; 0: never.
    """
    curves = pictures.curves(groups)
    sections = [_section(group, number) for number, group in enumerate(groups, 1)]
    readable = [run for run in runs if run.config]
    differing = grouping.differing_knobs(readable)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("ssljax.report", "."),
        autoescape=True,
        trim_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    html = environment.get_template("page.html").render(
        title=title,
        when=datetime.datetime.now().strftime("%Y-%m-%d %H:%M:%S"),
        refresh=refresh,
        runs=runs,
        readable=readable,
        counts=", ".join(f"{n} {status}" for status, n in Counter(r.status for r in runs).items()),
        errors=[_error(run) for run in runs],
        calibrated=any(run.calibration for run in runs),
        groups=groups,
        table=table,
        note=table.note,
        remarks=remarks,
        curves=curves,
        sections=sections,
        differing=differing,
        common=_common(readable, differing),
        machines=_machines(runs),
    )
    drawn = [picture for of_data in curves.values() for picture in of_data]
    return html, drawn + [p for section in sections for p in section["pictures"]]


def _section(group: Group, number: int) -> dict[str, Any]:
    labels = "" if group.labels is None else f", {group.labels:,} labels"
    run = group.representative()
    return {
        "heading": f"{group.label}: {group.data_set}{labels}",
        "pictures": pictures.of_group(group, number),
        "mistakes": pictures.mistakes(run),
        "run": run.name,
        "labeled": pictures.labeled(group),
        "runs": len(group.runs),
    }


def _error(run: Run) -> str:
    error = grouping.median_error(run)
    return "" if error is None else f"{error:.2f}"


def _common(runs: Sequence[Run], differing: dict[str, Any]) -> str:
    """The knobs that all runs share, as JSON."""
    if not runs:
        return ""
    knobs = {k: v for k, v in sorted(flatten(runs[0].config).items()) if k not in differing}
    return "\n".join(f"{name} = {json.dumps(value)}" for name, value in knobs.items())


def _machines(runs: Sequence[Run]) -> list[tuple[str, dict[str, Any]]]:
    """The newest starts: which runs, and where."""
    found: dict[str, list[str]] = {}
    for run in runs:
        if run.starts:
            start = {k: v for k, v in run.starts[-1].items() if k != "step"}
            found.setdefault(json.dumps(start), []).append(run.name)
    return [
        ("all" if len(names) == len(runs) else ", ".join(names), json.loads(start))
        for start, names in found.items()
    ]
