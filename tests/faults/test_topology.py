"""Tests one run on changing numbers of devices."""

import dataclasses
import os
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.processes import ENVIRONMENT, ROOT, final_state, rows_of
from helpers.tiny import build
from ssljax import evaluation, recipe
from ssljax.errors import Interrupted
from ssljax.run import loop, results

TOLERANCE = 1e-5  # for parameters, see docs/running.md


def watched(config, devices):
    """Builds the recipe with one row per step, with sums of the pixels and labels trained on."""
    experiment = dataclasses.replace(recipe.build(config), devices=jax.devices()[:devices])
    loss = experiment.method.loss

    def traced(params, ema_params, apply, batch, noise, state, progress):
        value, aux = loss(params, ema_params, apply, batch, noise, state, progress)
        images = (batch.labeled, *batch.views)
        pixels = [jnp.mean(jnp.round((x + 1) * 127.5).sum((1, 2, 3))) for x in images]
        logs = {f"data/{i}": x for i, x in enumerate([*pixels, jnp.mean(batch.labels * 1.0)])}
        return value, aux._replace(logs=aux.logs | logs)

    return dataclasses.replace(experiment, method=experiment.method._replace(loss=traced))


def train_up_to(step, config, devices, workdir, monkeypatch):
    advance = loop.ProgressBar.advance

    def advance_and_interrupt(self, steps):
        advance(self, steps)
        if self._steps_left == config.num_steps - step:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop.ProgressBar, "advance", advance_and_interrupt)
        with pytest.raises(Interrupted):
            loop.train(watched(config, devices), workdir)


@pytest.mark.slow
def test_four_devices_then_one_two_and_four(config, tmp_path, monkeypatch):
    config.log_every = 1
    loop.train(watched(config, 4), tmp_path / "whole")
    for step, devices in ((3, 4), (6, 1), (9, 2)):
        train_up_to(step, config, devices, tmp_path / "cut", monkeypatch)
    loop.train(watched(config, 4), tmp_path / "cut")

    whole, cut = rows_of(tmp_path / "whole"), rows_of(tmp_path / "cut")
    assert [row["step"] for row in cut] == list(range(1, 13))
    for a, b in zip(whole, cut, strict=True):  # bit for bit
        assert {k: v for k, v in a.items() if k.startswith("data/")} == {
            k: v for k, v in b.items() if k.startswith("data/")
        }
    assert len({row["data/0"] for row in whole}) == 12
    (_, whole), (_, cut) = final_state(tmp_path / "whole"), final_state(tmp_path / "cut")
    for part in ("params", "ema", "batch_stats"):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, atol=TOLERANCE),
            whole["state"][part],
            cut["state"][part],
        )


@pytest.fixture
def run_of_four(config, tmp_path):
    """The directory of a run on four devices, and its last scores."""
    config.num_steps = config.batch_size = 4
    experiment = build(config, devices=None)
    assert len(experiment.devices) == 4
    return tmp_path, loop.train(experiment, tmp_path)["last"]


def test_a_run_of_four_devices_is_evaluated_again(run_of_four):
    workdir, expected = run_of_four
    found = evaluation.evaluate_directory(workdir)
    assert found.step == 4
    assert found.scores == pytest.approx(expected, rel=1e-5)


@pytest.mark.slow
def test_a_run_of_four_devices_is_evaluated_on_a_machine_with_one_cpu(run_of_four):
    workdir, scores = run_of_four
    command = [sys.executable, "launch.py", "--mode=eval", f"--workdir={workdir}"]
    environment = os.environ | ENVIRONMENT | {"JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"step 4: {results.describe(scores)}" in done.stdout


def test_the_batch_of_a_run_does_not_follow_the_machine_that_resumes_it(config, untraced):
    config.batch_size, config.per_worker_batch_size = 1, 2
    experiment = recipe.build(config)
    assert experiment.batch_size == 8  # with 4 devices
    resumed = recipe.build(config, batch_size=4)
    assert resumed.batch_size == 4
