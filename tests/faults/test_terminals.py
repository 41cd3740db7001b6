"""Tests closing terminals, closed outputs and killed commands with real processes."""

import os
import signal
import subprocess
import time
from contextlib import suppress

import pytest

from helpers.processes import ENVIRONMENT, LIGHT, ROOT, command, final_state, finish, start
from ssljax.run import metrics

ENDLESS = (*LIGHT, "--config.num_steps=100000", "--config.eval_every=100000")


def in_a_terminal(arguments):
    """Starts a command as a terminal's first process; returns the process and the terminal."""
    terminal, its_end = os.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *arguments],
        cwd=ROOT,
        env=os.environ | ENVIRONMENT,
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
    )
    os.close(its_end)
    os.set_blocking(terminal, False)
    return process, terminal


def wait_for_rows(workdir, count, terminal=None):
    end = time.monotonic() + 400
    while len(metrics.read_rows(workdir / "metrics.jsonl")) < count:
        assert time.monotonic() < end
        if terminal is not None:
            with suppress(BlockingIOError):
                os.read(terminal, 10**6)  # a process blocks on a terminal whose output is not read
        time.sleep(0.05)


@pytest.mark.slow
def test_a_terminal_that_closes_saves_the_run(tmp_path):
    process, terminal = in_a_terminal(command(tmp_path / "run", *ENDLESS))
    wait_for_rows(tmp_path / "run", 3, terminal)
    os.close(terminal)
    assert process.wait(100) == 128 + signal.SIGHUP
    assert final_state(tmp_path / "run")[0] >= 6
    assert not (tmp_path / "run/failure.txt").exists()


@pytest.mark.slow
def test_a_terminal_that_closes_saves_the_run_of_a_sweep_and_ends_it(tmp_path):
    arguments = command(tmp_path / "runs", *ENDLESS, "--sweep=seed=1,2")
    process, terminal = in_a_terminal(arguments)
    wait_for_rows(tmp_path / "runs/seed=1", 3, terminal)
    os.close(terminal)
    assert process.wait(100) == 128 + signal.SIGHUP
    assert final_state(tmp_path / "runs/seed=1")[0] >= 6
    assert (tmp_path / "runs/seed=1/lock").read_text() == ""  # it has ended cleanly
    assert not (tmp_path / "runs/seed=2").exists()


@pytest.mark.slow
def test_nohup_and_outputs_that_are_gone_end_nothing(tmp_path):
    """SIGHUP is ignored, the output's reader exits, and standard error is a full disk."""
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            ["nohup", *command(tmp_path, *LIGHT, "--config.num_steps=400")],
            cwd=ROOT,
            env=os.environ | ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=full,
        )
    process.stdout.readline()
    process.stdout.close()
    wait_for_rows(tmp_path, 2)
    process.send_signal(signal.SIGHUP)
    assert process.wait(400) == 0
    assert final_state(tmp_path)[0] == 400


# Kills this process when it is about to rename a directory.
KILLED = """
import os, runpy, signal, sys
name = sys.argv.pop(1)
def hook(event, args):
    if event == "os.rename" and os.path.basename(os.fsdecode(args[1])) == name:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
sys.path.insert(0, os.getcwd())
sys.argv[0] = "launch.py"
runpy.run_path("launch.py", run_name="__main__")
"""


@pytest.mark.slow
def test_a_killed_export_leaves_what_was_there_and_can_be_repeated(tmp_path):
    run, output = tmp_path / "run", tmp_path / "exported"
    assert finish(start(run, *LIGHT))[0] == 0
    (output).mkdir()
    (output / "precious").touch()
    flags = [
        "--mode=export", f"--workdir={run}", f"--output={output}", "--format=tf1", "--limit=0",
        "--overwrite",
    ]  # fmt: skip
    python = command(run)[0]
    environment = os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    options = {"cwd": ROOT, "env": environment, "capture_output": True}
    killed = subprocess.run([python, "-c", KILLED, "exported", *flags], **options)
    assert killed.returncode == -signal.SIGKILL
    done = subprocess.run([python, "launch.py", *flags], **options)
    assert done.returncode == 0, done.stderr
    assert (output / "model.pb").exists()
    assert not (output / "precious").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["exported", "run"]
