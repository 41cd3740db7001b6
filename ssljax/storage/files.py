"""JSON files of run directories and exports, and disks that are full."""

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ssljax.errors import RunError, UsageError

_DEEPEST = 30  # objects and lists inside each other


def read_json(path: Path, **kinds: type) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Args:
      kinds: what must be in it: names and the types of their values.

    Raises:
      UsageError: it is missing, damaged, or holds something else.
    """
    try:
        found = parse_json(path.read_bytes())
        for name, kind in kinds.items():
            if not isinstance(found.get(name), kind):
                raise ValueError(f"{name} is {str(found.get(name))[:60]!r}, no {kind.__name__}")
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error
    return found


def parse_json(content: str | bytes) -> dict[str, Any]:
    """The object that some JSON holds.

    Raises:
      ValueError: it is no JSON, no object, or deeper than anything that is written here.
    """
    try:
        found = json.loads(content)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError(f"it holds a {type(found).__name__}, no object")
    level: list[Any] = [found]
    for _ in range(_DEEPEST):
        inner = (part.values() if isinstance(part, dict) else part for part in level)
        level = [x for parts in inner for x in parts if isinstance(x, dict | list)]
    if level:
        raise ValueError("it is nested too deeply")
    return found


def as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """The value as it is read again: tuples are lists, NumPy's numbers Python's.

    Raises:
      UsageError: something in it cannot be written.
    """
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise UsageError(f"{value!r} cannot be recorded; allowed: numbers, text, lists of these")


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a JSON file all at once: a reader sees the old one or the new one."""
    write_text(path, json.dumps(value, indent=2, default=_plain) + "\n")


def write_text(path: Path, text: str) -> None:
    """As `write_json`, any text; it is on the disk when this returns.

    File names that are no UTF-8 have their bytes.
    """
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8", errors="surrogateescape") as file:
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
