"""Finds run directories, and protects them from being overwritten."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssljax.errors import UsageError
from ssljax.log import printable
from ssljax.storage.files import PARTIAL, read_json

_SHOWN = 5  # maximum number of run directories in a message


def is_run(directory: Path) -> bool:
    """Whether a directory holds a run, or the remains of one."""
    names = ("checkpoints", "metrics.jsonl", "split.json")
    there = [name for name in names if (directory / name).exists()]
    return bool(there) and (there != ["split.json"] or (directory / "config.json").exists())


def below(directory: Path) -> Iterator[Path]:
    """Yields the run directories at and below a directory, sorted, but none inside another."""
    for here, directories, _ in os.walk(directory):
        if is_run(Path(here)):
            directories.clear()
            yield Path(here)
        directories[:] = sorted(x for x in directories if not x.endswith(PARTIAL))


def require_one(workdir: Path, field: str = "--workdir") -> None:
    """Checks that a directory given to a command or knob holds a run.

    Raises:
      UsageError: it holds none, but there are runs below it, which the message names.
    """
    if (workdir / "config.json").exists() or is_run(workdir):
        return
    if found := list(below(workdir)):
        names = ", ".join(str(path) for path in found[:_SHOWN])
        more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise UsageError(f"{field}={workdir} holds no run itself; below it are {names}{more}")


def require_none(output: Path, field: str) -> None:
    """Checks that a path that a command may replace neither holds a run nor is part of one.

    Raises:
      UsageError: it does; the message names the run.
    """
    place = output.resolve()
    if (run := next(itertools.chain(below(place), _owners(place)), None)) is not None:
        raise UsageError(
            f"{field} {output} holds the run {run}, or a part of it; allowed: another place"
        )


def require_no_part(workdir: Path) -> None:
    """Checks that a run directory is not among the checkpoints of another run.

    Raises:
      UsageError: it is; the message names that run.
    """
    if (run := next(_owners(workdir.resolve()), None)) is not None:
        raise UsageError(f"workdir {workdir} is a part of the run {run}; allowed: another place")


def _owners(place: Path) -> Iterator[Path]:
    """Yields the runs that a path is part of: it is one of their files, or among their checkpoints.
    Other directories may lie beside these."""
    for run in place.parents:
        part = place.relative_to(run).parts
        if (part[0] == "checkpoints" or (len(part) == 1 and place.is_file())) and is_run(run):
            yield run


def data_record(workdir: Path) -> dict[str, Any]:
    """Reads `data.json` of a run, see `data/fingerprint.py`; makes its names printable.

    Raises:
      UsageError: the file is missing or damaged.
    """
    path = workdir / "data.json"
    found = read_json(path)
    shape, names = found.get("image_shape"), found.get("class_names")
    prints = found.get("fingerprint", {})
    sizes = isinstance(shape, list) and [x for x in shape if isinstance(x, int) and x > 0]
    if not sizes or sizes != shape or len(shape) != 3:
        raise UsageError(f"{path}: image_shape is {shape}; allowed: [height, width, channels]")
    if not isinstance(names, list) or not names or not isinstance(prints, dict):
        raise UsageError(f"{path} has no class_names, or a fingerprint of another form")
    return {"image_shape": shape, "class_names": [*map(printable, names)], "fingerprint": prints}
