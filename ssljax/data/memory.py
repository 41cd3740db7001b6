"""Memory checks: data that do not fit are rejected, with their size, before they are read."""

import contextlib
import os
from pathlib import Path

from ssljax.errors import UsageError

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def host_bytes() -> int:
    """Returns the memory in bytes available to this process, whether in use or not.

    It is the machine's memory, or the limit of `ulimit -v` or a container's control group if less.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    if resource is not None:
        limits.append(resource.getrlimit(resource.RLIMIT_AS)[0])
    for file in _CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # the limit is missing or "max"
            limits.append(int(Path(file).read_text("utf-8")))
    return min(limit for limit in limits if limit > 0)  # -1 means unlimited


def require(what: str, size: int, limit: int, where: str) -> None:
    """Rejects `size` bytes of `what` in a memory of `limit` bytes named `where`.

    Raises:
      UsageError: the data do not fit.
    """
    if size > limit:
        raise UsageError(f"{what}: {describe(size)} do not fit in {where}, {describe(limit)}")


def describe(size: int) -> str:
    """Formats bytes in a suitable unit: `184.3 MB`."""
    unit, name = next(
        u for u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if size >= u[0] or u[0] == 1e3
    )
    return f"{size / unit:,.1f} {name}"
