"""Tests signals at all times of a run, sent to real processes."""

import signal
import time

import pytest

from helpers.processes import LIGHT, final_state, finish, start, train_here
from ssljax.run import metrics


def wait(process, condition):
    end = time.monotonic() + 200
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)


def rows(workdir, count):
    return lambda: len(metrics.read_rows(workdir / "metrics.jsonl")) >= count


@pytest.mark.parametrize(
    "signum",
    [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],  # in test_loop.py
)
def test_a_signal_saves_and_leaves(signum, tmp_path):
    process = start(tmp_path, *LIGHT, "--config.num_steps=1000")
    wait(process, rows(tmp_path, 3))
    sent = time.monotonic()
    process.send_signal(signum)
    code, output = finish(process)
    assert time.monotonic() - sent < 30
    assert code == 128 + signum
    step, _ = final_state(tmp_path)
    assert f"{signum.name}: saved after step {step}; run the same command again" in output
    assert step >= 6
    assert "note: TensorFlow is not installed" in output  # as in all processes of these tests
    assert not list(tmp_path.glob("events.out.*"))


@pytest.mark.slow
def test_a_signal_before_the_first_step_leaves_soon(tmp_path):
    process = start(tmp_path, *LIGHT)
    wait(process, (tmp_path / "config.json").exists)
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, output = finish(process)
    assert time.monotonic() - sent < 30
    assert code in (128 + signal.SIGTERM, -signal.SIGTERM), output
    train_here(tmp_path, *LIGHT, devices=1)
    assert final_state(tmp_path)[0] == 12
