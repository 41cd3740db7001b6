"""Tests initial weights from another run, and rejection of weights that do not fit."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from helpers.run_directories import untrained
from helpers.steps import run_steps
from helpers.tiny import build, tiny_config
from ssljax import cli, recipe, trained
from ssljax.description import describe, notes
from ssljax.errors import UsageError
from ssljax.export import npu_export
from ssljax.run import directory, seeds
from ssljax.storage.checkpoints import Checkpoints
from ssljax.training import pretrained


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """A run at step 3 whose method has a head, and whose average differs from its weights."""
    experiment = build(tiny_config("supervised"))
    workdir = tmp_path_factory.mktemp("other") / "run"
    state = experiment.init_state()
    ema = jax.tree.map(lambda x: x + 0.5, state.params) | {"heads": {"rotation": np.zeros(3)}}
    batch_stats = jax.tree.map(lambda x: x + 0.25, state.batch_stats)
    state = state.replace(step=np.int32(3), ema=ema, batch_stats=batch_stats)
    directory.open_directory(workdir, experiment)
    with Checkpoints(workdir, keep=0) as checkpoints:
        checkpoints.save(3, {"state": state, "window": {}})
    return workdir


def config_from(other, method="supervised", **knobs):
    config = tiny_config(method)
    config.init_from = str(other)
    for knob, value in knobs.items():
        config[knob] = value
    return config


def test_training_starts_with_the_average_of_the_other_run(other):
    model = trained.load(other)
    experiment = build(config_from(other))
    state, fresh = experiment.init_state(), build(tiny_config("supervised")).init_state()
    for params in (state.params, state.ema):
        jax.tree.map(np.testing.assert_array_equal, params, model.variables["params"])
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, model.variables["batch_stats"])
    assert "heads" not in state.params
    # Nothing else comes from the other run.
    for field in ("step", "opt_state", "method", "key"):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, field), getattr(fresh, field))
    after, _ = run_steps(experiment, 1)
    difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), after.params, state.params)
    assert 0 < max(jax.tree.leaves(difference)) < 0.1
    assert f"starts with the weights of {other}, step 3" in describe(experiment)


def test_a_head_starts_anew_and_averaged_statistics_start_with_the_others():
    state = build(tiny_config("supervised")).init_state()
    head = {"heads": {"rotation": np.ones(3)}}
    state = state.replace(
        params=state.params | head, ema=state.ema | head, ema_batch_stats=state.batch_stats
    )
    params, stats = (jax.tree.map(lambda x: x + 1, x) for x in (state.params, state.batch_stats))
    after = state.starting_with({k: v for k, v in params.items() if k != "heads"}, stats)
    for found in (after.params, after.ema):
        jax.tree.map(np.testing.assert_array_equal, found, params | head)
    for found in (after.batch_stats, after.ema_batch_stats):
        jax.tree.map(np.testing.assert_array_equal, found, stats)


def test_a_run_records_whose_weights_it_starts_with_and_goes_on_without_them(other, tmp_path):
    source = tmp_path / "source"
    shutil.copytree(other, source)
    config = config_from(source)
    experiment, workdir = recipe.build(config, max_devices=1), tmp_path / "run"
    assert directory.begun(workdir) == (None, False)
    directory.open_directory(workdir, experiment)
    record = json.loads((workdir / "init_from.json").read_text())
    model = trained.load(source)
    assert record == {
        "init_from": str(source), "step": 3, "sha256": pretrained.checksum(model.variables)
    }  # fmt: skip

    assert json.loads((workdir / "config.json").read_text())["init_from_sha256"] == record["sha256"]

    # Killed before its first checkpoint, it needs the same weights again.
    assert directory.begun(workdir) == (8, False)
    directory.open_directory(workdir, experiment)
    moved = record | {"sha256": "0" * 64, "step": 4}
    object.__setattr__(experiment, "start", experiment.start._replace(record=moved))
    with pytest.raises(
        UsageError, match="other initial weights than .* now, those of step 4, not 3"
    ):
        directory.open_directory(workdir, experiment)

    untrained(build(config_from(other)), tmp_path / "begun", step=0)
    shutil.rmtree(source)
    with pytest.raises(
        UsageError, match="config.init_from is .*/source; allowed: .* a run directory"
    ):
        recipe.build(config)
    begun = directory.begun(tmp_path / "begun")
    assert begun == (8, True)
    resumed = recipe.build(config_from(other), max_devices=1, **begun._asdict())
    assert resumed.start is None
    directory.open_directory(tmp_path / "begun", resumed)
    kept = json.loads((tmp_path / "begun/config.json").read_text())["init_from_sha256"]
    assert kept == record["sha256"]


def test_a_recipe_can_name_the_checksum_of_its_weights(other, untraced):
    known = pretrained.checksum(trained.load(other).variables)
    config = config_from(other, init_from_sha256=known)
    assert recipe.build(config, max_devices=1).config["init_from_sha256"] == known
    message = f"has the SHA-256 {known}; allowed by config.init_from_sha256: {'0' * 64}"
    with pytest.raises(UsageError, match=message):
        recipe.build(config_from(other, init_from_sha256="0" * 64), max_devices=1)


def test_all_seeds_start_with_the_same_weights(other, tmp_path, untraced):
    config = config_from(other, num_seeds=2)
    one, two = (each.init_state() for each in recipe.build_seeds(config))
    jax.tree.map(np.testing.assert_array_equal, one.params, two.params)
    assert np.any(one.key != two.key)
    config.init_from = str(tmp_path / "gone")
    assert [each.start for each in recipe.build_seeds(config, started=True)] == [None, None]
    untrained(build(tiny_config("supervised")), tmp_path / "all/seed=0", step=2)
    assert seeds.begun(tmp_path / "all", 0, 1) == (None, True)
    assert seeds.begun(tmp_path / "all", 0, 2) == (None, False)


def test_what_holds_no_weights_is_one_line(other, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    shutil.copytree(other, tmp_path / "damaged", dirs_exist_ok=True)
    next((tmp_path / "damaged/checkpoints/3").rglob("_METADATA")).write_text("{}")
    shutil.copytree(other, tmp_path / "unstarted", ignore=lambda *_: ["checkpoints"])
    with Checkpoints(tmp_path / "strange", keep=0) as checkpoints:
        checkpoints.save(5, {"state": {"ema": {"a": np.zeros(2)}}})
    shutil.copy(other / "data.json", tmp_path / "strange")
    for source, message in (
        (tmp_path / "none", "config.init_from is .*none; allowed: a .safetensors file"),
        (tmp_path / "empty", "empty holds no checkpoint yet"),
        (tmp_path / "unstarted", "unstarted holds no checkpoint yet"),
        (other.parent, "config.init_from=.* holds no run itself; below it are .*/run"),
        (tmp_path / "damaged", "the last checkpoint, .*, cannot be read"),
        (tmp_path / "strange", "its checkpoint of step 5 is not a training state: KeyError"),
    ):
        with pytest.raises(UsageError, match=message) as caught:
            recipe.build(config_from(source))
        assert "\n" not in str(caught.value)


def test_weights_that_do_not_fit_are_one_line_with_both_shapes(other):
    for args, message in (
        ({"filters": 8, "scales": 1}, r"its BatchNorm_1/bias is \[4\]; allowed: \[8\]"),
        ({"filters": 4, "scales": 2}, r"it lacks BatchNorm_3/bias, .*; allowed: all weights of"),
    ):
        config = config_from(other)
        with config.unlocked():
            config.model_args = {**args, "repeat": 1}
        start = "config.init_from .* does not fit config.model 'wide_resnet': "
        with pytest.raises(UsageError, match=start + message):
            recipe.build(config)


def test_the_last_layer_is_drawn_where_classes_differ_in_number(other, tmp_path, untraced):
    def started(labels, size):
        path = tmp_path / "own.npz"
        images = np.zeros((40, 8, 8, 1), np.uint8)
        np.savez(path, train_images=images, train_labels=labels, test_images=images[:2],
                 test_labels=[0, 1])  # fmt: skip
        config = config_from(other, dataset=f"npz:{path}.1@{size}-0")
        return recipe.build(config, max_devices=1)

    experiment = started(np.arange(40) % 2, 8)
    state = experiment.init_state()
    theirs = trained.load(other).variables["params"]
    assert state.params["Dense_0"]["kernel"].shape == (4, 2)
    np.testing.assert_array_equal(state.ema["Conv_0"]["kernel"], theirs["Conv_0"]["kernel"])
    assert "randomly initialised: Dense_0/bias, Dense_0/kernel" in describe(experiment)
    assert "knows other classes" not in describe(experiment)


def test_other_classes_of_the_same_number_are_noted(other):
    experiment = build(config_from(other))
    names = ("n0", *"123456789")
    data = experiment.dataset._replace(class_names=names)
    lines = notes(dataclasses.replace(experiment, dataset=data))
    assert (
        "note: the last layer of config.init_from knows other classes: 0 is '0' there, "
        in lines[-1]
    )
    assert not [line for line in notes(experiment) if "init_from" in line]


def test_a_recorded_recipe_opens_no_weights(other, tmp_path, monkeypatch):
    config = config_from(other)
    workdir = untrained(recipe.build(config), tmp_path / "run", step=2)

    def read(*args):
        raise AssertionError(args)

    monkeypatch.setattr(pretrained, "read", read)
    monkeypatch.setattr(npu_export.npu_bundle, "write", lambda *args, **options: None)
    npu_export.of_run(workdir, tmp_path / "bundle", overwrite=False)


@pytest.mark.slow
def test_eval_and_predict_open_no_weights(other, tmp_path, monkeypatch):
    workdir = untrained(recipe.build(config_from(other)), tmp_path / "run", step=2)
    monkeypatch.setattr(pretrained, "read", None)
    for mode in ("eval", "predict"):
        more = [] if mode == "eval" else ["--images=test", f"--output={tmp_path}/out"]
        assert cli.main([f"--mode={mode}", f"--workdir={workdir}", *more]) == 0


@pytest.mark.slow
def test_a_run_from_another_one_goes_on_when_that_is_gone(tmp_path):
    """On the command line, with one seed and with two."""
    command = [
        "--config=supervised_digits", "--config.model_args.filters=4",
        "--config.model_args.scales=1", "--config.log_every=2", "--config.eval_every=2",
    ]  # fmt: skip
    assert cli.main([*command, "--config.num_steps=4", f"--workdir={tmp_path}/a"]) == 0
    command.append(f"--config.init_from={tmp_path}/a")
    for name, more in (("b", []), ("c", ["--config.num_seeds=2", "--config.cpu_devices=1"])):
        run = [*command, *more, f"--workdir={tmp_path}/{name}"]
        assert cli.main([*run, "--config.num_steps=2"]) == 0
    (tmp_path / "a").rename(tmp_path / "gone")
    for name, more in (("b", []), ("c", ["--config.num_seeds=2", "--config.cpu_devices=1"])):
        run = [*command, *more, f"--workdir={tmp_path}/{name}"]
        assert cli.main([*run, "--config.num_steps=4"]) == 0
    for workdir in (tmp_path / "b", *(tmp_path / "c").glob("seed=*")):
        assert trained.load(workdir).step == 4
        assert json.loads((workdir / "init_from.json").read_text())["step"] == 4
