"""How much data fits in memory: refused with its size before any of it is read."""

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
    """The memory in bytes that this process may have, used or not.

    The machine's, or less where `ulimit -v` or a container's control group says so.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    if resource is not None:
        limits.append(resource.getrlimit(resource.RLIMIT_AS)[0])
    for file in _CONTAINER:
        with contextlib.suppress(OSError, ValueError):  # no such limit, or "max"
            limits.append(int(Path(file).read_text("utf-8")))
    return min(limit for limit in limits if limit > 0)  # -1 is no limit


def require(what: str, size: int, limit: int, where: str) -> None:
    """Refuses `size` bytes of `what` in a memory of `limit` bytes called `where`.

    Raises:
      UsageError: it does not fit.
    """
    if size > limit:
        raise UsageError(f"{what}: {describe(size)} do not fit in {where}, {describe(limit)}")


def describe(size: int) -> str:
    """Bytes in the unit that suits them: `184.3 MB`."""
    unit, name = next(
        u for u in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if size >= u[0] or u[0] == 1e3
    )
    return f"{size / unit:,.1f} {name}"
