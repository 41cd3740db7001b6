"""Output directories: written beside their place under a hidden name, and renamed when complete."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssljax import paths
from ssljax.errors import UsageError
from ssljax.storage import runs
from ssljax.storage.files import is_at, partial_path, telling_of_storage
from ssljax.storage.lock import held_directory

_FULL = "its disk is full. Nothing has changed: make room and run the same command again"


def require_free(output: Path, *, overwrite: bool) -> None:
    """Refuses a directory that is not to be replaced, and a place where none can be made.

    Raises:
      UsageError: it is one; or a file; or the folder that the command runs in, or one above it.
    """
    here = Path.cwd()
    if output.resolve() in (here, *here.parents):
        raise UsageError(f"--output {output} holds the current folder; allowed: another directory")
    paths.require_writable(output.resolve().parent, "--output")
    if output.exists() and not (output.is_dir() and (overwrite or not any(output.iterdir()))):
        raise UsageError(f"--output {output} is not empty; --overwrite replaces it")
    runs.require_none(output, "--output")


@contextmanager
def replaced(output: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """A new directory that takes the place of `output`; if anything fails, nothing has changed.

    What a kill leaves beside it, under a hidden name, the next call removes.

    Args:
      overwrite: whether `output` may have files, which are removed.

    Raises:
      UsageError: it has files, or another process writes it.
      RunError: it cannot be written.
    """
    output = output.resolve()
    partial = partial_path(output)
    old = partial.with_name(f"{partial.name}.old")
    refusal = f"{output} is in use: another process writes it; wait for its end"
    with (
        telling_of_storage(output, _FULL),
        held_directory(partial, refusal) as descriptor,
    ):
        _empty(partial)
        if old.exists() and not output.exists():
            old.rename(output)  # killed between the two renames below
        shutil.rmtree(old, ignore_errors=True)
        require_free(output, overwrite=overwrite)
        try:
            yield partial
            _take_place(partial, output, old, overwrite=overwrite)
        except BaseException:
            if is_at(descriptor, partial):  # else it was put aside
                shutil.rmtree(partial, ignore_errors=True)
            raise


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _take_place(partial: Path, output: Path, old: Path, *, overwrite: bool) -> None:
    try:
        partial.rename(output)  # of nothing, or of an empty directory
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise UsageError(f"{output} cannot be replaced: {error.strerror}") from error
        require_free(output, overwrite=overwrite)  # files may have come meanwhile
        output.rename(old)
        partial.rename(output)
        shutil.rmtree(old)


def put_aside(partial: Path, output: Path) -> Path:
    """Keeps a directory that will not take the place of `output`, as `<output>.failed`, or where
    there is one as `<output>.failed-2` and so on."""
    output, number = output.resolve(), 1
    while True:
        failed = output.with_name(f"{output.name}.failed{f'-{number}' if number > 1 else ''}")
        number += 1
        if not os.path.lexists(failed):
            return partial.rename(failed)
