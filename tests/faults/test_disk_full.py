"""Tests a run directory on a disk of a few megabytes."""

import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from helpers.processes import ENVIRONMENT, LIGHT, ROOT, final_state, finish, rows_of, start


@pytest.fixture
def small_disk(tmp_path):
    """A tmpfs of 3 MB, if this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a tmpfs needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_room_lets_it_continue(small_disk, tmp_path):
    workdir, whole = small_disk / "run", tmp_path / "whole"
    assert finish(start(whole))[0] == 0
    checkpoint = sum(4096 + p.stat().st_size for p in (whole / "checkpoints/24").rglob("*"))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 4 * checkpoint))

    code, output = finish(start(workdir))
    assert code == 1, output
    assert "error: " in output
    assert "disk is full. The previous checkpoint is intact: free some space" in output
    assert "Traceback" not in output
    assert 0 < final_state(workdir)[0] < 24  # and it is readable
    assert not [*(workdir / "checkpoints").glob("*.partial*")]

    code, output = finish(start(workdir))  # still full
    assert code == 1, output
    ballast.unlink()
    code, output = finish(start(workdir))
    assert code == 0, output
    assert "resuming" in output
    jax.tree.map(np.testing.assert_array_equal, final_state(whole), final_state(workdir))
    assert rows_of(whole) == rows_of(workdir)


@pytest.mark.slow
def test_an_export_on_a_full_or_read_only_disk_is_one_line(small_disk, tmp_path):
    run = tmp_path / "run"
    assert finish(start(run, *LIGHT))[0] == 0

    def refused(output):
        command = [
            sys.executable, "launch.py", "--mode=export", f"--workdir={run}", "--format=tf1",
            "--limit=0", f"--output={output}",
        ]  # fmt: skip
        environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode in (1, 2), done.stderr
        (line,) = done.stderr.splitlines()
        return line

    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(shutil.disk_usage(small_disk).free - 10_000))
    assert "out cannot be written: its disk is full. Nothing has changed" in refused(
        small_disk / "out"
    )
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]
    ballast.unlink()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert "Read-only file system" in refused(small_disk / "out")
    code, output = finish(start(small_disk / "run", *LIGHT))
    assert code == 2, output
    assert "Traceback" not in output
    assert "Read-only file system" in output
