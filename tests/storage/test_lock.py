import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ssljax.errors import UsageError
from ssljax.storage import lock

HOLD = """
import sys, time
from pathlib import Path
from ssljax.storage import lock
with lock.held(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of `tmp_path`."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_process_is_told_who_trains(holder, tmp_path):
    with (
        pytest.raises(UsageError, match=f"in use: process {holder.pid} on host .* trains there"),
        lock.held(tmp_path),
    ):
        pass
    assert json.loads((tmp_path / "lock").read_text())["pid"] == holder.pid  # unchanged


def test_the_lock_of_a_dead_process_is_explained_and_taken_over(holder, tmp_path, capsys):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock.held(tmp_path):
        assert f"process {holder.pid} on host" in capsys.readouterr().out
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()


def test_a_lock_that_was_let_go_of_is_not_mentioned(tmp_path, capsys):
    for _ in range(2):
        with lock.held(tmp_path):
            pass
    assert capsys.readouterr().out == ""
    assert (tmp_path / "lock").read_text() == ""


@pytest.mark.parametrize(
    "content", [b'{"host": "v\xff\xfe", "pid": 4711}', b"[1]", b'{"host": "\\u001b[2J", "pid": 1}',
                b'{"host": "h", "pid": "x"}', b"[" * 10**6]
)  # fmt: skip
def test_a_lock_with_anything_in_it_is_taken_over(content, tmp_path, capsys):
    (tmp_path / "lock").write_bytes(content)
    with lock.held(tmp_path):
        pass
    said = f"note: a process ended in {tmp_path} without releasing its lock, which is taken over"
    assert capsys.readouterr().out.startswith(said)


def test_a_lock_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "lock").symlink_to("precious")
    with pytest.raises(UsageError, match="lock cannot be written: Too many"), lock.held(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "precious"
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").mkdir()
    with pytest.raises(UsageError, match="lock cannot be written: Is a"), lock.held(tmp_path):
        pass


def test_a_directory_is_held_by_one_and_has_no_file_of_it(tmp_path):
    with lock.held_directory(tmp_path / "a" / "b", "taken"):
        with (
            pytest.raises(UsageError, match="taken"),
            lock.held_directory(tmp_path / "a/b", "taken"),
        ):
            pass
        assert not list((tmp_path / "a/b").iterdir())
        (tmp_path / "a/b").rename(tmp_path / "c")  # its name is free
        with lock.held_directory(tmp_path / "a" / "b", "taken"):
            pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(UsageError, match="file cannot be made"),
        lock.held_directory(tmp_path / "file", ""),
    ):
        pass
