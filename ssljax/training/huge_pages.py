"""Huge pages for the buffers of XLA on CPUs.

A step of a large network fills gigabytes that malloc gets from the kernel and gives back, step
after step. In pages of 4 KiB that takes about a seventh of the step: `docs/performance.md`.
"""

import os
import sys
from pathlib import Path

from ssljax.log import LOG

_KERNEL = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_SETTINGS = (
    "glibc.malloc.hugetlb=1",
    # The heap serves large buffers too, and keeps what is freed.
    "glibc.malloc.mmap_max=0",
    f"glibc.malloc.trim_threshold={10**11}",
)


def restart() -> None:
    """Runs this command again, as the same process, with a malloc that asks for huge pages.

    For the first line of a script: whatever the process has done by then is lost. glibc reads
    `$GLIBC_TUNABLES` while a process starts, never after. Nothing happens where it says something
    of malloc already, or where the kernel gives huge pages to all or to nobody.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    asking_helps = _KERNEL.exists() and "[madvise]" in _KERNEL.read_text("utf-8")
    if asking_helps and "glibc.malloc." not in tunables:
        os.environ["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, *_SETTINGS]))
        LOG.info(
            "note: restarting with huge pages for faster steps on CPUs; "
            "GLIBC_TUNABLES=glibc.malloc.hugetlb=0 turns this off"
        )
        sys.stdout.flush()  # what is not written is lost
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
