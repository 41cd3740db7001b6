"""Huge pages for the buffers of XLA on CPUs.

In every step of a large network, malloc gets gigabytes from the kernel and gives them back. With
pages of 4 KiB that takes about 14 % of the step (`docs/performance.md`).
"""

import os
import sys
from pathlib import Path

from ssljax.log import LOG

_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SETTINGS = (
    "glibc.malloc.hugetlb=1",
    # Large buffers come from the heap too, and freed memory stays in it.
    "glibc.malloc.mmap_max=0",
    f"glibc.malloc.trim_threshold={10**11}",
)


def restart() -> None:
    """Restarts this command in the same process, with a malloc that requests huge pages.

    It must be the first line of a script, since the state of the process is lost. glibc reads
    `$GLIBC_TUNABLES` only when a process starts. Nothing happens if that already has a setting of
    malloc, or if the kernel gives huge pages always or never.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    asking_helps = _KERNEL.exists() and "[madvise]" in _KERNEL.read_text("utf-8")
    if asking_helps and "glibc.malloc." not in tunables:
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, *_SETTINGS]))
        LOG.info(
            "note: restarting with huge pages for faster steps on CPUs; "
            "GLIBC_TUNABLES=glibc.malloc.hugetlb=0 turns this off"
        )
        sys.stdout.flush()  # unwritten output would be lost
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
