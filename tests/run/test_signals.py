"""Tests signals in a process that cannot check for them, and within an evaluation."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from helpers.processes import final_state, rows_of
from helpers.tiny import build
from ssljax import evaluation
from ssljax.errors import Interrupted
from ssljax.run import loop, signals

BUSY = """
import sys
from ssljax.run import signals
signals._BEFORE_A_STEP = float(sys.argv[1])
with signals.stop_signal():
    import hashlib
    print("busy", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes in C, as a compilation
"""


@pytest.fixture
def busy():
    processes = []

    def start(limit):
        command = [sys.executable, "-c", BUSY, str(limit)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2], **pipes)
        processes.append(process)
        assert process.stdout.readline() == "busy\n"
        time.sleep(0.2)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def test_a_process_that_is_busy_is_left_after_a_while(busy):
    process = busy(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 128 + signal.SIGTERM
    assert (
        "SIGTERM: stopped before the end of the first step, with nothing to save"
        in process.stderr.read()
    )


def test_a_second_signal_ends_at_once(busy):
    process = busy(100.0)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 128 + signal.SIGTERM


@pytest.mark.slow
def test_a_hangup_within_an_evaluation_saves_and_evaluates_again(config, tmp_path, monkeypatch):
    """It arrives before the row of step 8 is written. A closing terminal sends two."""
    config.eval_batch_size = 64
    experiment = build(config)
    loop.train(experiment, tmp_path / "whole")
    watch = signals.Stop.watch

    def interrupt(self, batches):
        calls.append(None)
        for i, batch in enumerate(watch(self, batches)):
            if len(calls) == 4 and i == 2:  # validation and test of steps 4 and 8
                os.kill(os.getpid(), signal.SIGHUP)
                os.kill(os.getpid(), signal.SIGHUP)
                time.sleep(0.2)
            yield batch

    calls = []
    with monkeypatch.context() as patch:
        patch.setattr(signals.Stop, "watch", interrupt)
        with pytest.raises(Interrupted, match="SIGHUP: saved after step 8"):
            loop.train(experiment, tmp_path / "cut")
    assert [row["step"] for row in rows_of(tmp_path / "cut")] == [2, 4, 6]
    assert final_state(tmp_path / "cut")[0] == 8
    assert evaluation.evaluate_directory(tmp_path / "cut").step == 8

    # Interrupted again after the row, before the next checkpoint: the row is not repeated.
    advance = loop.ProgressBar.advance

    def die(self, steps):
        advance(self, steps)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop.ProgressBar, "advance", die)
        with pytest.raises(KeyboardInterrupt):
            loop.train(experiment, tmp_path / "cut")
    assert [row["step"] for row in rows_of(tmp_path / "cut")] == [2, 4, 6, 8]
    loop.train(dataclasses.replace(experiment), tmp_path / "cut")
    assert rows_of(tmp_path / "whole") == rows_of(tmp_path / "cut")
    whole, cut = final_state(tmp_path / "whole"), final_state(tmp_path / "cut")
    jax.tree.map(np.testing.assert_array_equal, whole, cut)


def test_in_another_thread_there_is_no_signal_to_note():
    """As in a notebook that trains in a thread."""
    before, found = signal.getsignal(signal.SIGINT), []

    def train():
        with signals.stop_signal() as stop:
            found.append((stop.now(), signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found == [(0, before)]
