"""Tests one run of several processes on this machine, through jax.distributed."""

import json
import signal
import socket
import time

import jax
import numpy as np
import pytest
from PIL import Image

from helpers.processes import LIGHT, final_state, finish, rows_of, start, train_here
from ssljax.run import metrics

TOLERANCE = 1e-5  # for parameters after 24 steps: sums over devices use another order
MESSAGE = "The newest checkpoint is intact: start all processes again to continue"


def launch(workdir, processes, *more, devices=4):
    """Starts the processes of a run with `devices` devices in total."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        start(
            workdir,
            f"--config.cpu_devices={devices // processes}",
            f"--config.distributed.coordinator=127.0.0.1:{port}",
            f"--config.distributed.num_processes={processes}",
            f"--config.distributed.process_id={i}",
            *more,
        )
        for i in range(processes)
    ]


def train(workdir, processes, *more):
    if processes == 1:
        return train_here(workdir, "--config.cpu_devices=4", *more, devices=4)
    for code, output in [finish(process) for process in launch(workdir, processes, *more)]:
        assert code == 0, output


def close(expected, found):
    (step, expected), (other, found) = final_state(expected), final_state(found)
    assert step == other
    differences = jax.tree.map(
        lambda x, y: float(np.max(np.abs(np.asarray(x, np.float64) - y), initial=0)),
        (expected["state"]["params"], expected["state"]["ema"], expected["state"]["augment"]),
        (found["state"]["params"], found["state"]["ema"], found["state"]["augment"]),
    )
    assert max(jax.tree.leaves(differences)) < TOLERANCE


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of a single process with four devices."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    train(workdir, 1)
    return workdir


@pytest.mark.parametrize(
    ("processes", "more"),
    [
        (2, LIGHT),
        pytest.param(2, (), marks=pytest.mark.slow),  # CTAugment's rates, too
        pytest.param(4, (), marks=pytest.mark.slow),
    ],
)
def test_processes_train_what_one_process_trains(processes, more, tmp_path):
    alone = tmp_path / "alone"
    train(alone, 1, *more)
    train(tmp_path / "run", processes, *more)
    close(alone, tmp_path / "run")
    recorded = [json.loads((x / "config.json").read_text()) for x in (tmp_path / "run", alone)]
    for config in recorded:
        del config["cpu_devices"]
    assert recorded[0] == recorded[1]  # reading the run requires no other process
    ours, theirs = rows_of(tmp_path / "run"), rows_of(alone)
    assert [row["step"] for row in ours] == [row["step"] for row in theirs]
    # Every image is evaluated once, so accuracies are identical.
    accuracies = [
        [row[name] for row in rows for name in row if name.startswith("test/acc")]
        for rows in (ours, theirs)
    ]
    np.testing.assert_allclose(*accuracies, atol=1 / 360)


def wait_for_rows(workdir, count, processes):
    end = time.monotonic() + 200
    while len(metrics.read_rows(workdir / "metrics.jsonl")) < count:
        assert all(process.poll() is None for process in processes)
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "processes"), [(1, 2), (0, 2), (2, 4)])
def test_when_one_dies_the_others_end_and_a_restart_continues(killed, processes, alone, tmp_path):
    workdir = tmp_path / "run"
    started = launch(workdir, processes)
    wait_for_rows(workdir, 4, started)
    started[killed].send_signal(signal.SIGKILL)
    died = time.monotonic()
    for i, process in enumerate(started):
        code, output = finish(process)
        if i != killed:
            assert code != 0
            # JAX itself reports the loss of the first process, which the others depend on.
            message = MESSAGE if killed else "This most likely indicates that another task died"
            assert message in output, output
    assert time.monotonic() - died < 60
    assert not (workdir / "results.json").exists()
    train(workdir, processes)
    close(alone, workdir)
    assert [row["step"] for row in rows_of(workdir)] == [row["step"] for row in rows_of(alone)]


@pytest.mark.slow
def test_a_signal_to_one_stops_all_and_they_continue(alone, tmp_path):
    workdir = tmp_path / "run"
    started = launch(workdir, 2)
    wait_for_rows(workdir, 1, started)
    started[1].send_signal(signal.SIGTERM)
    outputs = [finish(process) for process in started]
    assert [code for code, _ in outputs] == [128 + signal.SIGTERM] * 2, outputs
    step, _ = final_state(workdir)
    assert all(f"SIGTERM: saved after step {step}" in output for _, output in outputs), outputs
    train(workdir, 2)
    close(alone, workdir)
    assert [row["step"] for row in rows_of(workdir)] == [row["step"] for row in rows_of(alone)]


@pytest.mark.slow
def test_an_error_of_one_ends_all(tmp_path):
    """The first process finds a directory that is not a run; the other one learns of it."""
    (tmp_path / "thesis.tex").touch()
    first, second = [finish(process, 100) for process in launch(tmp_path, 2)]
    assert first[0] == 2, first
    assert second[0] in (1, 2), second  # either exit code is possible
    assert all("is not empty, and holds no run" in output for _, output in (first, second))


@pytest.mark.slow
def test_processes_read_their_shares_of_a_stream(tmp_path):
    generator = np.random.default_rng(0)
    for part, count in (("train", 12), ("test", 5)):
        for name in "abc":
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 256, (20, 20, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    more = (
        f"--config.dataset=folder:{tmp_path}/images.1@12-0", "--config.stream=true",
        "--config.image_size=16", "--config.unlabeled=all", "--config.num_steps=8",
        "--config.augment.strong=strong_digits", "--config.eval_batch_size=4",
    )  # fmt: skip
    train(tmp_path / "alone", 1, *more)
    train(tmp_path / "two", 2, *more)
    (_, one), (_, two) = final_state(tmp_path / "alone"), final_state(tmp_path / "two")
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=TOLERANCE),
        one["state"]["params"],
        two["state"]["params"],
    )
