"""Paths that a user gives: the home directory in them, and whether something can be made there."""

import os
import tempfile
from pathlib import Path

from ssljax.errors import UsageError


def expand(path: str, field: str) -> str:
    """A path or URL, with the home directory for `~` and `~user`.

    Raises:
      UsageError: there is no such directory, as in containers; the message names `field`.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise UsageError(
            f"{field} is {path}, but no such home directory is known ($HOME may be unset); "
            "allowed: a path without ~"
        )
    return expanded


def require_writable(directory: str | Path, field: str) -> None:
    """Looks whether a directory is there or can be made, and takes files; leaves nothing behind.

    Raises:
      UsageError: it cannot; the message names `field`.
    """
    path = Path(os.path.abspath(directory))
    try:
        there = next(p for p in (path, *path.parents) if p.exists())
        if not there.is_dir():
            raise UsageError(f"{field} {directory} cannot be made: {there} is a file")
        # Without a name, where the file system has such files: two commands may look at once.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{field} {directory} cannot be made or written: {reason}") from error
