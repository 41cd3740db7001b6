"""Paths given by the user: expansion of `~`, and checks that they are writable."""

import os
import tempfile
from pathlib import Path

from ssljax.errors import UsageError


def expand(path: str, field: str) -> str:
    """Returns a path or URL with `~` and `~user` replaced by the home directory.

    Raises:
      UsageError: the home directory is unknown, as in containers; the message names `field`.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise UsageError(
            f"{field} is {path}, but no such home directory is known ($HOME may be unset); "
            "allowed: a path without ~"
        )
    return expanded


def require_writable(directory: str | Path, field: str) -> None:
    """Checks that a directory exists or can be created, and is writable; leaves nothing behind.

    Raises:
      UsageError: the check fails; the message names `field`.
    """
    path = Path(os.path.abspath(directory))
    try:
        there = next(p for p in (path, *path.parents) if p.exists())
        if not there.is_dir():
            raise UsageError(f"{field} {directory} cannot be made: {there} is a file")
        # Unnamed where the file system supports it: two commands may check at the same time.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(f"{field} {directory} cannot be made or written: {reason}") from error
