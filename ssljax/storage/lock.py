"""One process at a time trains in a run directory."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from ssljax.errors import UsageError
from ssljax.log import LOG
from ssljax.storage.files import parse_json

try:
    import fcntl
except ImportError as error:
    raise UsageError(
        "this system has no file locks, without which two processes could train in one run "
        "directory; allowed: Linux, macOS, and on Windows its Subsystem for Linux (WSL)"
    ) from error

NAME = "lock"


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Holds the lock of a directory, or says who does.

    The system lets go of it when its process ends, however it ends; `lock` then still names that
    process, which is told, and is this one's from now on.

    Raises:
      UsageError: another process holds it.
    """
    with (workdir / NAME).open("a+", encoding="utf-8", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"workdir {workdir} is in use: {_holder(file)} trains there; wait for its end or "
                "end it (a SIGTERM lets it save), or use another workdir"
            ) from error
        except OSError as error:  # some network file systems have no locks
            LOG.info(f"note: {workdir} cannot be locked ({error.strerror}); train there only once")
        if _text(file):
            LOG.info(f"note: {_holder(file)} left {workdir} without an end; its lock is taken over")
        file.truncate(0)
        json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _text(file: TextIO) -> str:
    file.seek(0)
    return file.read()


def _holder(file: TextIO) -> str:
    try:
        record = parse_json(_text(file))
        return f"process {record['pid']} on host {record['host']}"
    except (ValueError, KeyError):
        return "a process"
