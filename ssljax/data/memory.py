"""How much data fits in memory: refused with its size before any of it is read."""

import os

from ssljax.errors import UsageError


def host_bytes() -> int:
    """The machine's memory in bytes, used or not."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
