"""The system's file locks, which all writes of this package rely on."""

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from ssljax.errors import UsageError


def require() -> None:
    """Raises UsageError on a system without file locks."""
    if fcntl is None:
        raise UsageError(
            "this system has no file locks, without which two processes could write one run; "
            "allowed: Linux, macOS, and on Windows its Subsystem for Linux (WSL)"
        )


def exclusive(descriptor: int, *, wait: bool = True) -> None:
    """Locks a file for this process.

    Raises:
      BlockingIOError: another process holds the lock, and `wait` is false.
      OSError: the file system has no locks.
    """
    require()
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
