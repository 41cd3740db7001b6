"""JSON files of run directories and exports, full disks, and names that libraries refuse."""

import errno
import json
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ssljax.errors import RunError, UsageError


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON file.

    Raises:
      UsageError: it is missing or damaged.
    """
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file all at once: a reader sees the old one or the new one."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """As `write_json`, any text; it is on the disk when this returns."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


FULL = "its disk is full. The checkpoint before is intact: make room and run the same command again"


@contextmanager
def telling_of_full_disk(directory: Path) -> Iterator[None]:
    """Turns what is raised for want of room in a run directory into one line.

    Raises:
      RunError: its disk is full.
    """
    try:
        yield
    except RunError:
        raise
    except Exception as error:
        if is_full(error):
            raise RunError(f"{directory} cannot be written: {FULL}") from error
        raise


def is_full(error: BaseException | None) -> bool:
    """Whether an error means that there is no room left, or it was caused by one that does."""
    while error is not None:
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        # TensorStore and TensorFlow have their own errors, with the system's words.
        if full or "No space left on device" in str(error) or "ENOSPC" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


# Characters of patterns, and bytes that are no UTF-8.
_PLAIN = re.compile(r"[^][*?\\\udc80-\udcff]*")


@contextmanager
def plain_path(directory: Path) -> Iterator[Path]:
    """The directory under a name that Orbax and TensorFlow take: itself, or a link to it.

    Both take parts of a path for a pattern, and find nothing, or what belongs to its neighbour.
    """
    if _PLAIN.fullmatch(str(directory)):
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="ssljax-") as folder:
        link = Path(folder, "directory")
        link.symlink_to(directory.absolute(), target_is_directory=True)
        yield link
