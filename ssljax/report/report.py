"""`--mode=report`: reads runs, and writes their tables and page."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ssljax.errors import UsageError
from ssljax.log import printable
from ssljax.report import groups as grouping
from ssljax.report import page, probes, reference, table
from ssljax.report.runs import Run, find, read_all
from ssljax.storage.files import telling_of_storage, write_bytes

_EVERY = 5  # seconds between two checks of runs with --follow
_FILES = ("report.md", "report.csv", "report.tex", "report.html")
_REFRESH = 15  # seconds after which a browser reloads their page


def write(
    paths: Sequence[Path],
    output: Path,
    *,
    published: bool = False,
    oracle: bool = False,
    refresh: int = 0,
) -> str:
    """Writes `report.{html,md,csv,tex}` and the figures in `report_figures/` to `output`.

    Args:
      paths: run directories, or directories above them.
      published: whether to add rows of papers on the same data.
      oracle: whether to show the best error on the test set, marked as such.
      refresh: seconds after which a browser reloads the page; 0: never.

    Returns:
      The text for the terminal: the table, and notes on single runs.

    Raises:
      UsageError: a path has no run, or `output` has files of these names that are not a report.
    """
    _require_ours(output)
    runs = read_all(paths)
    groups = grouping.group(runs)
    about = {(g.data_set, g.labels) for g in groups}
    rows = reference.beside(about) if published else []
    remarks = [] if rows or not published else ["There are no published rows for these data."]
    remarks += _duplicates(groups)
    results = table.make(groups, rows, oracle=oracle, probes=probes.beside(paths, about))
    title = ", ".join(dict.fromkeys(printable(path) for path in paths))
    html, pictures = page.make(
        title, runs, groups, results, output=output, remarks=remarks, refresh=refresh
    )
    texts = {
        "report.md": table.markdown(results),
        "report.csv": table.comma_separated(results),
        "report.tex": table.latex(results),
        "report.html": html,
    }
    files = {picture.file: picture.alone or picture.data for picture in pictures}
    # A path may have bytes that are not text. The page, which shows the pictures, is written last.
    files |= {name: text.encode(errors="backslashreplace") for name, text in texts.items()}
    with telling_of_storage(output, "its disk is full"):
        (output / "report_figures").mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_bytes(output / name, data)
    return "\n".join([*_lines(results), *remarks, *_notes(runs)])


def _require_ours(output: Path) -> None:
    """Refuses to overwrite files that are not from a report."""
    others = [name for name in _FILES if (output / name).exists()]
    if others and not (output / "report_figures").is_dir():
        raise UsageError(
            f"{output / others[0]} exists already and is not from a report; choose another "
            "directory with --output"
        )


def _lines(results: table.Table) -> list[str]:
    return [table.text(results)] if results.cells else ["no run has a readable configuration"]


def _notes(runs: Sequence[Run]) -> list[str]:
    return [f"note: {run.name}: {note}" for run in runs for note in run.notes]


def _duplicates(groups: Sequence[grouping.Group]) -> list[str]:
    """Remarks on runs with the same seeds, which are counted as different ones."""
    lines = []
    for group in groups:
        seen: dict[str, str] = {}
        for run in group.runs:
            seeds = str([run.config.get(k) for k in ("seed", "dataset", "split_file")])
            if seeds in seen:
                lines.append(f"{run.name} has the same seeds as {seen[seeds]}: both are counted.")
            seen.setdefault(seeds, run.name)
    return lines


def follow(
    paths: Sequence[Path], output: Path, *, say: Callable[[str], None], **options: bool
) -> bool:
    """Updates the report whenever a run changes, until Ctrl-C; waits for the first run.

    Returns:
      Whether there was a run to report.
    """
    before = None
    try:
        while True:
            if (now := _stamps(paths)) != before:
                say(write(paths, output, refresh=_REFRESH, **options) if now else "no run yet")
                before = now
            time.sleep(_EVERY)
    except KeyboardInterrupt:
        if before:
            write(paths, output, **options)  # a page that does not reload
        return bool(before)


def _stamps(paths: Sequence[Path]) -> dict[Path, int]:
    """The modification times of the files that a report reads; {}: there is no run yet."""
    stamps: dict[Path, int] = {}
    with suppress(UsageError):
        for run in find(paths):
            with suppress(OSError), os.scandir(run) as entries:  # files can vanish
                for entry in entries:
                    if not entry.name.startswith((".", "events.out", "report.")):
                        stamps |= _stamp(entry)
    return stamps


def _stamp(entry: os.DirEntry[str]) -> dict[Path, int]:
    try:
        return {Path(entry.path): entry.stat().st_mtime_ns} if entry.is_file() else {}
    except FileNotFoundError:
        return {}
