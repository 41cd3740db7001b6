"""A directory that is either whole or not there, and that shows when it was changed afterwards.

Orbax alone reads most damage to the arrays of a checkpoint as other numbers: of 60 flipped bits it
noticed those in its indices, and none in the file that holds the weights.
"""

import hashlib
import json
import os
from pathlib import Path

from ssljax.storage.files import parse_json

NAME = "manifest.json"


class Damaged(Exception):
    """A directory is not as it was sealed; says which file, and how."""


def commit(partial: Path, final: Path) -> None:
    """Seals `partial` with a manifest, then gives it its name; survives the loss of power."""
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    sums = {path.relative_to(partial).as_posix(): _digest(path) for path in files}
    (partial / NAME).write_text(json.dumps({"sha256": sums}, indent=1) + "\n", encoding="utf-8")
    for path in [*files, partial / NAME, *(p for p in partial.rglob("*") if p.is_dir()), partial]:
        sync(path)
    partial.rename(final)
    sync(final.parent)


def verify(directory: Path) -> None:
    """Compares every file of a sealed directory with the manifest.

    Raises:
      Damaged: one is missing or has changed, or the manifest is.
    """
    try:
        sums = parse_json((directory / NAME).read_bytes())["sha256"]
        for name, expected in sums.items():
            if not (directory / name).is_file():
                raise Damaged(f"{name} is missing")
            if _digest(directory / name) != expected:
                raise Damaged(f"{name} has changed since it was written")
    except OSError as error:
        raise Damaged(f"{error.filename}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{NAME} is damaged") from error


def sync(path: Path) -> None:
    """Waits until a file, or the names in a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
