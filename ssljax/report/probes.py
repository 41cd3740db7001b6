"""Results of `--mode=probe` as the first rows of a report: the baseline for its runs."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ssljax.errors import UsageError
from ssljax.log import printable
from ssljax.report.groups import Spread
from ssljax.report.reference import Published
from ssljax.storage.files import PARTIAL, read_json

_FILE = "probe.json"


def beside(paths: Sequence[Path], groups: Collection[tuple[str, int | None]]) -> list[Published]:
    """The linear probes at and below `paths` whose number of labels is that of the runs.

    If a probe has no such row, the row with the number of labels in its data set's name is taken.

    Args:
      groups: (data set, labels) of the runs.
    """
    found: list[Published] = []
    for file in _files(paths):
        try:
            record = read_json(file, rows=list, dataset=str, model=str)
            rows = [_row(record, row) for row in record["rows"] if row["method"] == "linear probe"]
        except (UsageError, KeyError, TypeError, ValueError, AttributeError):
            continue  # damaged, or from another program
        own = [row for row in rows if (row.data_set, row.labels) in groups]
        found += own or [row for row in rows if row.labels == record.get("labels")]
    return list(dict.fromkeys(found))


def _files(paths: Sequence[Path]) -> list[Path]:
    found = []
    for path in paths:
        for here, directories, files in os.walk(path):
            directories[:] = sorted(x for x in directories if not x.endswith(PARTIAL))
            if _FILE in files:
                found.append(Path(here, _FILE))
    return found


def _row(record: dict[str, Any], row: dict[str, Any]) -> Published:
    std = row["std"]
    return Published(
        "linear probe",
        printable(record["dataset"]),
        int(row["labels"]),
        Spread(float(row["mean"]), None if std is None else float(std)),
        printable(f"probe of {record['model']}"),
    )
