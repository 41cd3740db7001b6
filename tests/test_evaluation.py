"""Tests `--mode=eval`, and what a recorded recipe is allowed to do."""

import re
import shutil

import numpy as np
import pytest

from helpers.command import command, refused
from helpers.run_directories import untrained
from helpers.tiny import build, tiny_config
from ssljax import evaluation, recorded, trained
from ssljax.errors import UsageError
from ssljax.storage import output_directory, runs
from ssljax.storage.files import read_json, write_sealed


def write_data(path, seed=0, classes=2, size=8, count=40):
    """Writes an .npz data set whose labels follow from the images."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, size, size, 1), np.uint8)
    labels = np.arange(count) % classes
    np.savez(path, train_images=images, train_labels=labels,
             test_images=images[:10] // 2, test_labels=labels[:10])  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run at step 2, with its initial weights, on data in a file."""
    home = tmp_path_factory.mktemp("evaluation")
    write_data(home / "data.npz")
    config = tiny_config("supervised")
    config.dataset = f"npz:{home}/data.npz.1@8-4"
    config.num_steps = config.eval_every = 2
    return untrained(build(config), home / "run", step=2)


def test_a_test_set_is_the_run_s_own_or_is_named(run, tmp_path, capsys):
    eval_ = ("--mode=eval", f"--workdir={run}")
    code, own, errors = command(capsys, *eval_)
    assert code == 0, errors
    assert own.startswith("step 2: test accuracy ")
    assert "headline: test accuracy" in own
    data = run.parent / "data.npz"
    shutil.copy(data, tmp_path / "moved.npz")
    # Moved data give the same scores.
    code, moved, errors = command(
        capsys, *eval_, f"--config.dataset=npz:{tmp_path}/moved.npz.1@8-4",
        "--config.eval_batch_size=3",
    )  # fmt: skip
    assert (code, moved) == (0, own), errors
    # Other data: only the test images, and no headline, which belongs to the run's data.
    write_data(tmp_path / "other.npz", seed=1)
    for name in (f"npz:{tmp_path}/other.npz.1@8-4", f"npz:{tmp_path}/other.npz"):
        code, other, errors = command(capsys, *eval_, f"--config.dataset={name}")
        assert code == 0, errors
        assert "has other images than the run was trained with" in other
        assert "headline" not in other
        assert "validation" not in other.splitlines()[1]
    # Other images at the original path, which the command did not ask for.
    shutil.copy(tmp_path / "other.npz", data)
    try:
        line = refused(capsys, *eval_)
        assert "has other training images or labels than config.dataset has now" in line
        export = ("--mode=export", f"--workdir={run}", "--format=tf1", f"--output={tmp_path}/out")
        assert "has other training images" in refused(capsys, *export)
    finally:
        shutil.copy(tmp_path / "moved.npz", data)
    assert not (tmp_path / "out").exists()


def test_other_data_need_not_fit_a_run_s_split_file(run, tmp_path, capsys):
    home = tmp_path / "home"
    home.mkdir()
    write_data(home / "data.npz")
    config = tiny_config("supervised")
    config.dataset = f"npz:{home}/data.npz.1@8-4"
    config.split_file = str(run / "split.json")
    config.num_steps = config.eval_every = 2
    untrained(build(config), home / "run", step=2)
    eval_ = ("--mode=eval", f"--workdir={home}/run")
    code, own, errors = command(capsys, *eval_)
    assert code == 0, errors
    assert "headline" in own
    write_data(tmp_path / "fewer.npz", seed=1, count=12)  # less than the split's numbers
    name = f"npz:{tmp_path}/fewer.npz.1@8-4"
    code, other, errors = command(capsys, *eval_, f"--config.dataset={name}")
    assert code == 0, errors
    assert "has other images than the run was trained with" in other
    assert "headline" not in other
    # Without a name it is an error that the run's own images are others now.
    shutil.copy(tmp_path / "fewer.npz", home / "data.npz")
    assert "was written for other images" in refused(capsys, *eval_)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--config.optimizer.lr=1", "--config.optimizer.lr=1: the recipe is that of "),
        ("--config.num_steps=9", "allowed: checkpoint.fallback, compilation_cache, "),
        ("--config.distributed.coordinator=a:1", "the recipe is that of "),
        ("--config.eval_batch_size=0", "config.eval_batch_size is 0; allowed: from 1 up"),
        (
            "--config.eval_batch_size=x",
            "--config.eval_batch_size=x has another type; allowed: a whole",
        ),
        ("--config.eval_batch_sise=2", "the recipe is that of "),
        ("--config.dataset=digits.1@40-0", "has class 2 as None"),
        ("--config=supervised_digits", "--config is given with --mode=eval; allowed: --mode=train"),
        ("--opset=12", "--opset is given with --mode=eval"),
    ],
)
def test_what_an_evaluation_does_not_take_is_refused(run, given, message, capsys):
    assert message in refused(capsys, "--mode=eval", f"--workdir={run}", given)


def test_an_evaluation_has_no_more_room_than_images(run, capsys):
    eval_ = ("--mode=eval", f"--workdir={run}")
    whole = command(capsys, *eval_)
    assert whole[0] == 0
    assert command(capsys, *eval_, "--config.eval_batch_size=1000000000000") == whole


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eval_batch_size": "64"}, "config.eval_batch_size is '64'; allowed: a whole number"),
        ({"model_args": "none"}, "config.model_args is 'none'; allowed: a ConfigDict of its knobs"),
        ({"optimizer": 1}, "config.optimizer is 1; allowed: a ConfigDict of its knobs"),
    ],
)
def test_a_recipe_with_values_of_another_kind_is_one_line(run, changes, message):
    found = read_json(run / "config.json") | changes
    with pytest.raises(UsageError, match=re.escape(message)):
        recorded.config(found, where="config.json")


def test_other_sizes_and_classes_are_refused(run, tmp_path, capsys):
    write_data(tmp_path / "more.npz", classes=4)
    write_data(tmp_path / "large.npz", size=9)
    for name, message in (
        ("more", "has class 2 as None, which in config.dataset is '2'"),
        ("large", "has images of 8×8×1; those of config.dataset are 9×9×1"),
    ):
        given = f"--config.dataset=npz:{tmp_path}/{name}.npz"
        assert message in refused(capsys, "--mode=eval", f"--workdir={run}", given)


def hostile(run, copy, **changes):
    """Returns a sealed copy of the run with a changed recipe."""
    shutil.copytree(run, copy)
    config = read_json(copy / "config.json")
    for knob, value in changes.items():
        config[knob] = value
    write_sealed(copy / "config.json", config)
    return copy


@pytest.mark.parametrize("knob", ["model", "dataset"])
def test_a_run_directory_runs_no_code_that_nobody_names(run, knob, tmp_path, capsys):
    name = "os.mkdir" + (".1@8-0" if knob == "dataset" else "")
    changes = {"model_args": {"path": str(tmp_path / "made")}} if knob == "model" else {}
    copy = hostile(run, tmp_path / "copy", **{knob: name}, **changes)
    line = f"names code that is not ssljax's, config.{knob} {name}; --config.{knob}={name} lets it"
    assert line in refused(capsys, "--mode=eval", f"--workdir={copy}")
    output = f"--output={tmp_path}/out"
    export = ("--mode=export", f"--workdir={copy}", output, "--format=tf1")
    assert line in refused(capsys, *export)
    bundle = ("--mode=export", f"--workdir={copy}", output, "--format=npu_bundle")
    assert line in refused(capsys, *bundle)
    if knob == "model":
        with pytest.raises(UsageError, match="names code"):
            trained.load(copy)
        with pytest.raises(UsageError, match="allowed: the same value"):
            trained.load(copy, model="os.rmdir")
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"data_dir": "gs://evil/x"},
            "names a URL, config.data_dir gs://evil/x; --config.data_dir",
        ),
        ({"dataset": "tfds:evil:x.1@8-0"}, "names code that is not ssljax's, config.dataset tfds:"),
    ],
)
def test_a_run_directory_opens_no_connection_that_nobody_names(
    run, changes, line, tmp_path, capsys
):
    copy = hostile(run, tmp_path / "copy", **changes)
    assert line in refused(capsys, "--mode=eval", f"--workdir={copy}")
    assert not recorded._is_foreign("dataset", "tfds:mnist:3.0.1.1@8-0")


def test_weights_that_do_not_fit_the_recipe_are_one_line(run, tmp_path, capsys):
    copy = hostile(run, tmp_path / "copy", model_args={"filters": 2, "scales": 1})
    line = refused(capsys, "--mode=eval", f"--workdir={copy}")
    assert f"the checkpoint of step 2 in {copy} does not fit its config.json: ValueError: " in line
    for record in ({"class_names": ["0"]}, {"image_shape": [8, 8]}, {"image_shape": "x"}):
        write_sealed(copy / "data.json", record)
        assert "data.json" in refused(capsys, "--mode=eval", f"--workdir={copy}")


def test_what_a_recipe_says_of_its_machine_is_left_out(run):
    config = read_json(run / "config.json") | {
        "distributed": {"coordinator": "evil:1", "num_processes": 2, "process_id": 1},
        "stage": {"data_url": "http://evil/data", "train_url": "http://evil/out"},
        "compilation_cache": "evil",
        "cpu_devices": 10**6,
    }
    del config["checkpoint"]  # as in an older version
    found = recorded.config(config, where="config.json")
    assert found.distributed.coordinator == found.stage.data_url == found.stage.train_url == ""
    assert not found.distributed.auto
    assert found.compilation_cache == ""
    assert found.cpu_devices == 0
    assert not found.checkpoint.fallback
    assert found.method == "supervised"


def test_own_code_runs_when_it_is_named(run, tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text("from ssljax.models.wide_resnet import wide_resnet\n")
    monkeypatch.syspath_prepend(tmp_path)
    name = "own_network.wide_resnet"
    copy = hostile(run, tmp_path / "copy", model=name)
    own = evaluation.evaluate_directory(run).scores
    assert evaluation.evaluate_directory(copy, [f"model={name}"]).scores == own
    assert trained.load(copy, model=name).step == 2


def test_the_directory_above_runs_names_them(run, tmp_path, capsys):
    line = refused(capsys, "--mode=eval", f"--workdir={run.parent}")
    assert f"--workdir={run.parent} holds no run itself; below it are {run}" in line
    export = ("--mode=export", f"--workdir={run.parent}", "--format=tf1", f"--output={tmp_path}/x")
    assert "holds no run itself" in refused(capsys, *export)


@pytest.mark.parametrize("part", [".", "..", "checkpoints", "checkpoints/2", "checkpoints/3"])
def test_an_export_never_writes_over_a_run(run, part, capsys):
    before = {path: path.stat().st_mtime_ns for path in run.parent.rglob("*")}
    line = refused(
        capsys, "--mode=export", f"--workdir={run}", "--format=tf1", "--limit=0", "--overwrite",
        f"--output={run / part}",
    )  # fmt: skip
    assert f"holds the run {run}, or a part of it; allowed: another place" in line
    assert {path: path.stat().st_mtime_ns for path in run.parent.rglob("*")} == before


def test_nothing_else_is_written_into_a_run(run, tmp_path, capsys):
    (tmp_path / "report.tex").write_text("a thesis")
    for args, message in (
        (["--mode=report", f"--workdir={run}", f"--output={tmp_path}"], "is not from a report"),
        (["--config=supervised_digits", f"--workdir={run}/checkpoints/9"], "is a part of the run"),
        (["--mode=import_npu", f"--bundle={tmp_path}", f"--workdir={run}/checkpoints/9"], ""),
        (["--mode=data", "--config=supervised_digits", f"--workdir={run}"], "holds a run"),
    ):
        assert message in refused(capsys, *args)
    with pytest.raises(UsageError, match="or a part of it; allowed: another place"):
        runs.require_none(run / "split.json", "--output")
    assert (tmp_path / "report.tex").read_text() == "a thesis"
    assert [path.name for path in tmp_path.iterdir()] == ["report.tex"]
    assert not (run / "checkpoints" / "9").exists()


def test_an_export_may_lie_within_a_run(run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "served").mkdir()
    (copy / "served" / "labels.txt").touch()
    output_directory.require_free(copy / "served", overwrite=True)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--mode=report", "--workdir=gs://a/b"], "--workdir=gs://a/b is a URL; allowed with --mo"),
        (["--mode=data", "--config=x", "--workdir=gs://a"], "allowed with --mode=data: a path"),
        (["--mode=augment", "--config=x", "--workdir=gs://a"], "allowed with --mode=augment: a p"),
        (["--sweep=seed=1", "--config=x", "--workdir=file:///a"], "allowed with --sweep: a path"),
        (["--mode=export", "--format=tf1", "--output=s3://a"], "--output=s3://a is a URL"),
        (["--mode=import_npu", "--bundle=s3://a"], "--bundle=s3://a is a URL"),
        (["--mode=data", "--config=digits", "--config.split_file=s3://a"], "config.split_file"),
        (["--mode=export", "--format=tf1", "--opset=9"], "--opset is given with --format=tf1; al"),
        (["--mode=export", "--format=npu_bundle", "--limit=9"], "--format=saved_model or tf1 or"),
        (["--mode=export", "--format=tf1", "--config=x"], "--config is given with --format=tf1"),
        (["--mode=report", "--config.seed=1"], "--config.<knob> is given with --mode=report"),
        (["--sweep=seed=1", "--sweep_list", "--sweep_index=0"], "allowed: one of them"),
        (["--mode=export", "--format=npu_bundle", "--config=x", "--workdir=y", "--output=z"],
         "--config and --workdir are given; allowed: one of them"),
    ],
)  # fmt: skip
def test_flags_that_would_be_ignored_and_urls_are_refused(
    args, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    args = [arg.replace("--config=digits", "--config=supervised_digits") for arg in args]
    assert message in refused(capsys, *args)
    assert not list(tmp_path.iterdir())
