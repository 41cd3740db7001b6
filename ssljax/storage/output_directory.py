"""Output directories: written under a hidden name beside their place, renamed when complete."""

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

_FULL = "its disk is full. Nothing has changed: free some space and run the same command again"


def require_free(output: Path, *, overwrite: bool) -> None:
    """Checks that an output directory can be created or replaced.

    Raises:
      UsageError: it must not be replaced, is a file, or contains the current directory.
    """
    here = Path.cwd()
    if output.resolve() in (here, *here.parents):
        raise UsageError(
            f"--output {output} contains the current directory; allowed: another directory"
        )
    paths.require_writable(output.resolve().parent, "--output")
    if output.exists() and not (output.is_dir() and (overwrite or not any(output.iterdir()))):
        raise UsageError(f"--output {output} is not empty; --overwrite replaces it")
    runs.require_none(output, "--output")


def require_free_file(output: Path, *, overwrite: bool) -> None:
    """Checks that an output file can be created or replaced.

    Raises:
      UsageError: it must not be replaced, is a directory, or is part of a run.
    """
    if output.is_dir() or (output.exists() and not overwrite):
        raise UsageError(f"--output {output} exists; --overwrite replaces a file")
    runs.require_none(output, "--output")
    paths.require_writable(output.parent, "--output")


@contextmanager
def replaced(output: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yields a new directory that replaces `output` at the end; on failure, nothing changes.

    Hidden directories left by a kill are removed by the next call.

    Args:
      overwrite: whether `output` may contain files, which are removed.

    Raises:
      UsageError: it contains files, or another process writes it.
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
            old.rename(output)  # a process was killed between the two renames below
        shutil.rmtree(old, ignore_errors=True)
        require_free(output, overwrite=overwrite)
        try:
            yield partial
            _take_place(partial, output, old, overwrite=overwrite)
        except BaseException:
            if is_at(descriptor, partial):  # otherwise it was put aside
                shutil.rmtree(partial, ignore_errors=True)
            raise


def _empty(directory: Path) -> None:
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _take_place(partial: Path, output: Path, old: Path, *, overwrite: bool) -> None:
    try:
        partial.rename(output)  # replaces nothing or an empty directory
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise UsageError(f"{output} cannot be replaced: {error.strerror}") from error
        require_free(output, overwrite=overwrite)  # files may have been added meanwhile
        output.rename(old)
        partial.rename(output)
        shutil.rmtree(old)


def put_aside(partial: Path, output: Path) -> Path:
    """Keeps a directory that does not replace `output`, as `<output>.failed` or, if that exists,
    `<output>.failed-2` and so on."""
    output, number = output.resolve(), 1
    while True:
        failed = output.with_name(f"{output.name}.failed{f'-{number}' if number > 1 else ''}")
        number += 1
        if not os.path.lexists(failed):
            return partial.rename(failed)
