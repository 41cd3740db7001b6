"""Compares steps of the runner with those of JAX: inputs, weights after each step, skipped steps.

The runner runs in real TensorFlow 1.15.5 on Python 3.7 if available, and in the current
TensorFlow.
"""

import dataclasses
import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from clu.metrics import Average

from helpers import tensorflow_1_15
from helpers.tiny import tiny_config
from ssljax import recipe
from ssljax.export import npu_bundle
from ssljax.export.npu_bundle import flat
from ssljax.training import optim
from ssljax.training import step as step_module

SCRIPT = Path(__file__).parents[1] / "helpers/npu_steps.py"
# JAX steps per case. Gradients of biases before BatchNorm are only rounding errors, which Adam's
# division amplifies to the size of the others; therefore ten steps are compared only for a network
# without such biases.
TEN_STEPS = ("mixmatch without biases", "fixmatch")
CASES = ("mixmatch", "fixmatch", "mixmatch without biases")


class WithoutBiases(nn.Module):
    """Maps images `[N, H, W, 1]` to logits `[N, 10]` and features."""

    axis_name: str | None = None

    @nn.compact
    def __call__(self, images, *, train):
        x = images
        for filters, stride in ((4, 1), (8, 2), (8, 1)):
            x = nn.Conv(filters, (3, 3), strides=stride, use_bias=False)(x)
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-3)(x)
            x = nn.leaky_relu(x, 0.1)
        features = x.mean((1, 2))
        return nn.Dense(10)(features), features


class Case(NamedTuple):
    """A bundle, and the inputs and results of steps in JAX."""

    bundle: Path
    feeds: dict[str, np.ndarray]  # as `npu_steps.py` reads them
    found: dict[str, np.ndarray]  # as `npu_steps.py` writes them


@pytest.fixture(scope="module")
def make_case(tmp_path_factory):
    """`make_case(name)`, cached."""
    made = {}

    def make(name):
        if name not in made:
            config = tiny_config(name.split()[0])
            config.num_steps = 40  # so that the learning rate of FixMatch decreases
            if "mixmatch" in name:
                config.method_args.ramp_images = 100  # so that the unlabelled loss contributes
            else:
                config.method_args.threshold = 0.12  # so that some guesses pass and some do not
                config.dataset, config.logit_adjustment = "digits_lt5.1@20+60-20", 1.5
            experiment = recipe.build(config)
            if "without" in name:
                experiment = dataclasses.replace(experiment, model=WithoutBiases())
            bundle = tmp_path_factory.mktemp("bundle")
            npu_bundle.write(experiment, bundle)
            made[name] = Case(bundle, *_steps_of_jax(experiment, 10 if name in TEN_STEPS else 1))
        return made[name]

    return make


@pytest.fixture(
    scope="module",
    params=["tensorflow 1.15.5", pytest.param("current tensorflow", marks=pytest.mark.slow)],
)
def found(request, make_case, tmp_path_factory):
    """`found(case name)` maps run names to the results of npu_steps.py, cached."""

    @functools.cache
    def run_steps(name):
        case, directory = make_case(name), tmp_path_factory.mktemp("steps")
        (directory / "in").mkdir()
        (directory / "out").mkdir()
        for run, feeds in runs_of(name, case).items():
            np.savez(directory / "in" / f"{run}.npz", **feeds)
        arguments = [str(x) for x in (case.bundle, directory / "in", directory / "out")]
        if request.param == "tensorflow 1.15.5":
            tensorflow_1_15.run(SCRIPT, *arguments)
        else:
            environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
            done = subprocess.run(
                [sys.executable, SCRIPT, *arguments],
                capture_output=True,
                text=True,
                env=environment,
            )
            assert done.returncode == 0, done.stderr[-3000:]
        return {path.stem: dict(np.load(path)) for path in (directory / "out").iterdir()}

    return run_steps


BAD = {1, 3, 8, 9, 10, 11, 12, 13}  # steps whose loss is infinite in the run `overflowing`


def runs_of(name, case):
    """Returns the runs of a case, with their inputs."""
    runs = {"as JAX": case.feeds}
    if name == "mixmatch":
        runs["overflowing"] = overflowing(case, 14, BAD) | {
            "loss_scale": 0, "start": 2.0**32, "incr_every": 4
        }  # fmt: skip
        runs["low"] = overflowing(case, 6, {1, 2, 3, 4, 5}) | {
            "loss_scale": 0, "start": 1.5, "incr_every": 4
        }  # fmt: skip
        runs["fixed"] = overflowing(case, 3, {1}) | {"loss_scale": 128}
    return runs


def _steps_of_jax(experiment, steps):
    """Returns `feeds` and `found` of a case, computed by the training step."""
    monitors, optimizer = step_module.monitors, _optimizer(experiment)

    def watched(aux, unlabeled_labels):
        return {
            **monitors(aux, unlabeled_labels),
            "seen/hidden": Average(unlabeled_labels, jnp.ones(())),
        }

    def loss(params, ema, apply, batch, noise, state, progress):
        value, aux = experiment.method.loss(params, ema, apply, batch, noise, state, progress)
        seen = {"seen/labeled": batch.labeled, "seen/labels": batch.labels}
        seen |= {f"seen/view{i}": view for i, view in enumerate(batch.views)}
        seen |= {f"seen/noise/{name}": x for name, x in (noise or {}).items()}
        gradients = flat(jax.grad(
            lambda p: experiment.method.loss(p, ema, apply, batch, noise, state, progress)[0]
        )(params), "gradient/param")  # fmt: skip
        return value, aux._replace(state=(aux.state, {**seen, **gradients}))

    with pytest.MonkeyPatch.context() as context:
        context.setattr(step_module, "_check_logs", lambda aux: None)  # arrays are recorded, too
        context.setattr(step_module, "monitors", watched)
        train_step = step_module.make_train_step(
            model=experiment.model.clone(axis_name=None),
            method=experiment.method._replace(loss=loss),
            optimizer=optimizer, schedule=experiment.schedule, augmentation=experiment.augmentation,
            batch_size=experiment.batch_size, uratio=experiment.uratio,
            num_steps=experiment.num_steps,
            ema_decay=experiment.ema_decay, adjustment=experiment.adjustment,
            image_shape=experiment.dataset.image_shape,
        )  # fmt: skip
        step, data = jax.jit(train_step), experiment.data()
        state = experiment.init_state()
        state = state.replace(opt_state=optimizer.init(state.params))
        feeds, found = {}, {}
        for i in range(steps):
            state, metrics = step(state, data)
            method_state, seen = state.method
            state = state.replace(method=method_state)
            seen["seen/hidden"] = metrics.pop("seen/hidden").total
            for name, value in seen.items():
                _sort(f"{i}/", name, np.asarray(value), feeds, found)
            for name, average in metrics.items():
                found[f"{i}/metric/{name}/total"] = np.asarray(average.total)
                found[f"{i}/metric/{name}/count"] = np.asarray(average.count)
            feeds[f"{i}/in/step"] = np.int32(i)
            for prefix, tree in (
                ("param", state.params), ("stat", state.batch_stats), ("ema", state.ema)
            ):  # fmt: skip
                found |= {f"{i}/variable/{n}": np.asarray(x) for n, x in flat(tree, prefix).items()}
    return feeds, found


def _optimizer(experiment):
    """Returns the recipe's optimizer, with TensorFlow's epsilon for Adam: see `make_optimizer`."""
    if experiment.config["optimizer"]["name"] != "adam":
        return experiment.optimizer
    moments = optax.scale_by_adam()

    def update(grads, state, params):
        del params
        _, state = moments.update(grads, state)
        t = state.count
        size = experiment.schedule(t - 1) * jnp.sqrt(1 - 0.999**t) / (1 - 0.9**t)
        steps = jax.tree.map(lambda m, v: -size * m / (jnp.sqrt(v) + 1e-8), state.mu, state.nu)
        return steps, state

    decay = experiment.config["optimizer"]["weight_decay"]
    adam = optax.GradientTransformation(moments.init, update)
    return optax.chain(adam, optim._shrink_kernels(experiment.schedule, decay))


def _sort(start, name, value, feeds, found):
    """Sorts the reports of the patched step into inputs and gradients."""
    if name.startswith("seen/"):
        images = name.startswith(("seen/labeled", "seen/view"))
        value = np.round((value + 1) * 127.5).astype(np.uint8) if images else value
        feeds[start + name.replace("seen/", "in/")] = value
    else:
        found[start + name] = value


def norm(arrays):
    """Returns the global norm."""
    return np.sqrt(sum(np.sum(np.square(x.astype(np.float64))) for x in arrays))


def assert_close(found, expected, names, tolerance):
    """Compares arrays, with a tolerance relative to the global norm of all of them."""
    names = list(names)
    difference = norm([found[n] - expected[n] for n in names]) / norm([expected[n] for n in names])
    assert difference <= tolerance, (difference, names[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_loss_metrics_and_gradients_are_those_of_jax(name, found, make_case):
    case, found = make_case(name), found(name)["as JAX"]
    metrics = {n for n in case.found if n.startswith("0/metric/")}
    assert metrics - {f"0/metric/learning_rate/{x}" for x in ("total", "count")} == {
        n for n in found if n.startswith("0/metric/")
    }
    for n in metrics & found.keys():
        np.testing.assert_allclose(found[n], case.found[n], rtol=1e-5, atol=1e-7, err_msg=n)
    assert found["0/loss"] == pytest.approx(case.found["0/metric/loss/total/total"], rel=1e-5)
    gradients = {n for n in case.found if n.startswith("0/gradient/")}
    assert gradients == {n for n in found if n.startswith("0/gradient/")}
    assert_close(found, case.found, gradients, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", TEN_STEPS)
def test_ten_steps_are_those_of_jax(name, found, make_case):
    case, found = make_case(name), found(name)["as JAX"]
    for i in range(10):
        for group in ("param", "stat", "ema"):
            names = [n for n in case.found if n.startswith(f"{i}/variable/{group}/")]
            assert names
            assert_close(found, case.found, names, 1e-4)


def state_of(found, step):
    """Returns everything that an update changes."""
    start = f"{step}/variable/"
    counters = ("step", "loss_scale", "good_steps", "bad_steps")
    return {
        n[len(start) :]: v
        for n, v in found.items()
        if n.startswith(start) and n[len(start) :] not in counters
    }


def same(a, b):
    return all(np.array_equal(a[n], b[n]) for n in a)


def overflowing(case, steps, bad):
    """Returns the case's first inputs, repeated; in `bad` steps the loss is infinite."""
    feeds = {}
    for i in range(steps):
        for n, value in case.feeds.items():
            if n.startswith("0/"):
                feeds[f"{i}/{n[2:]}"] = value
        if i in bad:
            feeds[f"{i}/in/noise/lam"] = np.full_like(feeds[f"{i}/in/noise/lam"], 1e30)
    return feeds


@pytest.mark.slow
def test_steps_that_overflow_change_the_loss_scale_alone(found):
    found = found("mixmatch")["overflowing"]
    scales = [found[f"{i}/variable/loss_scale"] / 2.0**32 for i in range(14)]
    # A bad step, a good one, a bad one: halved. Four good ones: doubled. Then pairs of bad ones.
    assert scales == [1, 1, 1, 0.5, 0.5, 0.5, 0.5, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.125]
    for i in range(1, 14):
        unchanged = same(state_of(found, i), state_of(found, i - 1))
        assert unchanged == (i in BAD), i
        assert not np.isfinite(found[f"{i}/loss"]) or i not in BAD
    assert found["13/variable/step"] == 14
    assert found["13/variable/applied_steps"] == 14 - len(BAD)


def test_a_loss_scale_stays_from_1_up_and_changes_no_result(found, make_case):
    case, found = make_case("mixmatch"), found("mixmatch")["low"]
    scales = [found[f"{i}/variable/loss_scale"] for i in range(6)]
    assert scales == [1.5, 1.5, 1, 1, 1, 1]
    expected = [n for n in case.found if n.startswith("0/variable/ema/")]
    assert_close(found, case.found, expected, 1e-4)


def test_a_fixed_loss_scale_skips_too(found):
    found = found("mixmatch")["fixed"]
    assert same(state_of(found, 1), state_of(found, 0))
    assert not same(state_of(found, 2), state_of(found, 1))
    assert all(np.isfinite(x).all() for x in state_of(found, 2).values())
    assert "0/variable/loss_scale" not in found
