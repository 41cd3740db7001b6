"""Output directories: written under another name, and renamed when they are complete."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssljax.errors import UsageError
from ssljax.storage import runs


def require_free(output: Path, *, overwrite: bool) -> None:
    """Raises UsageError for a file, and for a directory with files that is not to be replaced."""
    if output.exists() and not (output.is_dir() and (overwrite or not any(output.iterdir()))):
        raise UsageError(f"--output {output} is not empty; --overwrite replaces it")
    runs.require_none(output, "--output")


@contextmanager
def replaced(output: Path) -> Iterator[Path]:
    """A new directory that takes the place of `output`; if anything fails, nothing has changed."""
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = _fresh(output, "partial")
    try:
        yield partial
        old = _fresh(output, "old")
        if output.exists():
            output.rename(old / output.name)
        partial.rename(output)
        shutil.rmtree(old)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def put_aside(partial: Path, output: Path) -> Path:
    """Keeps a directory that will not take the place of `output`, as `<output>.failed`."""
    failed = _fresh(output, "failed")
    failed.rmdir()
    return partial.rename(failed)


def _fresh(output: Path, kind: str) -> Path:
    """A new directory beside `output`."""
    path = output.with_name(f"{output.name}.{kind}")
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path
