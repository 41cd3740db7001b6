"""Locks: only one process trains in a run directory, or writes an output directory."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from ssljax.errors import UsageError
from ssljax.log import LOG
from ssljax.storage import flock
from ssljax.storage.files import is_at, parse_json

NAME = "lock"


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Holds the lock of a directory, or raises an error that names its holder.

    The system releases the lock when the process ends, however it ends. `lock` then still names
    that process, which is logged, and is taken over.

    Raises:
      UsageError: another process holds it, or `lock` cannot be written.
    """
    try:
        descriptor = os.open(workdir / NAME, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise UsageError(f"{workdir / NAME} cannot be written: {error.strerror}") from error
    try:
        try:
            _lock(descriptor, workdir)
        except BlockingIOError as error:
            raise UsageError(
                f"workdir {workdir} is in use: {_holder(descriptor)} trains there; wait for its "
                "end or end it (a SIGTERM lets it save), or use another workdir"
            ) from error
        if os.fstat(descriptor).st_size:
            LOG.info(
                f"note: {_holder(descriptor)} ended in {workdir} without releasing its lock, which "
                "is taken over"
            )
        with contextlib.suppress(OSError):  # on a full disk, the lock file stays empty
            os.ftruncate(descriptor, 0)
            record = {"host": socket.gethostname(), "pid": os.getpid()}
            os.pwrite(descriptor, json.dumps(record).encode(), 0)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def held_directory(directory: Path, refusal: str) -> Iterator[int]:
    """Creates a directory and locks the directory itself, without a file; yields its descriptor.

    Raises:
      UsageError: another process holds it (message: `refusal`), or it cannot be created.
    """
    while True:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise UsageError(f"{error.filename} cannot be made: {error.strerror}") from error
        try:
            try:
                _lock(descriptor, directory)
            except BlockingIOError as error:
                raise UsageError(refusal) from error
            if is_at(descriptor, directory):  # otherwise its previous holder has renamed it
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _lock(descriptor: int, path: Path) -> None:
    try:
        flock.exclusive(descriptor, wait=False)
    except BlockingIOError:
        raise
    except OSError as error:  # some network file systems have no locks
        LOG.info(
            f"note: {path} cannot be locked ({error.strerror}); let only one process write there"
        )


def _holder(descriptor: int) -> str:
    """Returns the process named in a lock file, if that can be read."""
    try:
        record = parse_json(os.pread(descriptor, 1000, 0))
        host, pid = record["host"], record["pid"]
        return f"process {pid:d} on host {host}" if host.isprintable() else "a process"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "a process"
