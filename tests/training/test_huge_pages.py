import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Prints the process, arguments and setting of a restarted script.
SCRIPT = """
import os, sys
from pathlib import Path
from ssljax import log
from ssljax.training import huge_pages
log.show_lines()
huge_pages._KERNEL = Path(sys.argv[1])
print(os.getpid(), sys.argv[2:], os.environ.get("GLIBC_TUNABLES"), flush=True)
huge_pages.restart()
print("done")
"""
SET = "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=100000000000"


@pytest.mark.parametrize(
    ("kernel", "tunables", "expected"),
    [
        ("always [madvise] never", None, ["None", SET]),
        (
            "always [madvise] never",
            "glibc.rtld.nns=4",
            ["glibc.rtld.nns=4", "glibc.rtld.nns=4:" + SET],
        ),
        ("always [madvise] never", "glibc.malloc.hugetlb=0", ["glibc.malloc.hugetlb=0"]),
        ("[always] madvise never", None, ["None"]),
        ("always madvise [never]", None, ["None"]),
        (None, None, ["None"]),
    ],
)
def test_a_command_starts_again_once_where_asking_helps(kernel, tunables, expected, tmp_path):
    if kernel:
        (tmp_path / "enabled").write_text(kernel)
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    if tunables:
        environment["GLIBC_TUNABLES"] = tunables
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "enabled"), "a b", "--c"],
        capture_output=True, text=True, check=True, cwd=ROOT, env=environment,
    )  # fmt: skip
    notes = [line for line in done.stdout.splitlines() if line.startswith("note:")]
    assert len(notes) == len(expected) - 1
    assert all("GLIBC_TUNABLES=glibc.malloc.hugetlb=0 turns this off" in note for note in notes)
    *starts, last = [line for line in done.stdout.splitlines() if line not in notes]
    assert last == "done"
    process = starts[0].split()[0]
    assert starts == [f"{process} ['a b', '--c'] {tunables}" for tunables in expected]
