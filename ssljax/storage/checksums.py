"""Directories that appear atomically, and in which later changes are detected.

Orbax itself reads most damaged arrays of a checkpoint without an error: of 60 flipped bits, it
noticed those in its indices, but none in the file that holds the weights.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from ssljax.errors import UsageError
from ssljax.storage import files

NAME = "manifest.json"


class Damaged(Exception):
    """A directory differs from its checksums; the message names the file and the difference."""


class Prefix(NamedTuple):
    """The beginning of a growing file."""

    size: int  # bytes
    sha256: str

    def begins(self, content: bytes) -> bool:
        """Whether a file with this content still begins with it."""
        return files.digest(content[: self.size]) == self.sha256


def commit(partial: Path, final: Path, rows: Prefix | None = None) -> None:
    """Seals `partial` with a manifest, then renames it; this survives a loss of power.

    Args:
      rows: the current `metrics.jsonl` of the run, which the manifest records, too.
    """
    found = _files(partial)
    manifest: dict[str, Any] = {"sha256": _sums(partial, found)}
    if rows is not None:
        manifest["metrics.jsonl"] = rows._asdict()
    (partial / NAME).write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    _sync_all(partial, [*found, partial / NAME])
    partial.rename(final)
    sync(final.parent)


def seal(directory: Path) -> None:
    """Writes `SHA256SUMS` of all files in a directory, and syncs them to the disk."""
    (directory / files.SUMS).unlink(missing_ok=True)
    found = _files(directory)
    sums = _sums(directory, found)
    files.write_sums(directory, {name: [value] for name, value in sums.items()})
    _sync_all(directory, found)


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file())


def _sums(directory: Path, found: list[Path]) -> dict[str, str]:
    return {path.relative_to(directory).as_posix(): _digest(path) for path in found}


def _sync_all(directory: Path, found: list[Path]) -> None:
    for path in [*found, *(p for p in directory.rglob("*") if p.is_dir()), directory]:
        sync(path)


def recorded_rows(workdir: Path) -> Prefix | None:
    """Returns the part of `metrics.jsonl` recorded by a run's newest checkpoint; None: none."""
    try:
        steps = [path for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()]
        newest = max(steps, key=lambda path: int(path.name))
        return Prefix(**files.parse_json((newest / NAME).read_bytes())["metrics.jsonl"])
    except (OSError, ValueError, KeyError, TypeError):  # `verify` reports damage
        return None


def verify(directory: Path, name: str = NAME) -> None:
    """Compares every file of a sealed directory with the manifest `name`.

    Raises:
      Damaged: a file or the manifest is missing or has changed.
    """
    try:
        sums = files.parse_json((directory / name).read_bytes())["sha256"]
        for file, expected in sums.items():
            if not (directory / file).is_file():
                raise Damaged(f"{file} is missing")
            if _digest(directory / file) != expected:
                raise Damaged(f"{file} has changed since it was written")
    except OSError as error:
        raise Damaged(f"{error.filename}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{name} is damaged") from error


def require_unchanged(directory: Path) -> None:
    """Compares the files of a directory with its `SHA256SUMS`, if it has one.

    Raises:
      UsageError: a file is missing or has changed.
    """
    for name, sums in files.recorded_sums(directory).items():
        path = directory / name
        if not path.is_file():
            raise UsageError(f"{path} is missing, which {files.SUMS} names")
        if _digest(path) not in sums:
            raise UsageError(
                f"{path} has changed since it was written; restore it, or remove its line from "
                f"{files.SUMS} there if the change is intended"
            )


def sync(path: Path) -> None:
    """Waits until a file, or the entries of a directory, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
