"""Tests complete runs of the runner, the import of their results, and rejected input."""

import ast
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import ml_collections
import numpy as np
import pytest

from helpers import tensorflow_1_15
from helpers.command import command
from helpers.compilation import NO_KERAS
from helpers.tiny import build, tiny_config
from ssljax import cli, evaluation, recipe, trained
from ssljax.errors import UsageError
from ssljax.export import npu_bundle, npu_import
from ssljax.run import loop
from ssljax.storage.files import partial_path, plain_path, read_json, write_sealed

ROOT = Path(__file__).parents[2]
INTERRUPTED = Path(__file__).parents[1] / "helpers/npu_interrupted.py"
ENVIRONMENT = os.environ | NO_KERAS | {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """MixMatch on digits, twelve steps."""
    directory = tmp_path_factory.mktemp("mixmatch")
    npu_bundle.write(build(tiny_config("mixmatch")), directory)
    return directory


@pytest.fixture(scope="module")
def runner(bundle):
    """The runner's module."""
    import tensorflow as tf

    module = load(bundle / "run.py")
    tf.compat.v1.enable_control_flow_v2()  # for the other tests in this process
    return module


def load(path):
    spec = importlib.util.spec_from_file_location("npu_runner", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train_here(path, *flags):
    """Calls a runner in this process, which has already imported TensorFlow."""
    import tensorflow as tf

    module = load(path)
    try:
        module.train(module.parse(["--device=cpu", *flags]), types.SimpleNamespace(number=None))
    finally:
        tf.compat.v1.enable_control_flow_v2()


@pytest.fixture(
    params=["tensorflow 1.15.5", pytest.param("current tensorflow", marks=pytest.mark.slow)]
)
def python(request):
    """`python(script, *arguments)` returns the script's output."""

    def run(script, *arguments):
        arguments = [str(x) for x in arguments]
        if request.param == "tensorflow 1.15.5":
            return tensorflow_1_15.run(script, *arguments)
        return in_current(script, *arguments).stdout

    return run


def in_current(script, *arguments, returncode=0, environment=ENVIRONMENT):
    done = subprocess.run(
        [sys.executable, script, *arguments], capture_output=True, text=True, env=environment
    )
    assert done.returncode == returncode, done.stderr[-3000:]
    return done


def variables_of(output):
    import tensorflow as tf

    with plain_path(output) as plain:
        reader = tf.train.load_checkpoint(str(plain / "checkpoint-12"))
        return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def rows_of(output):
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows]


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(python, bundle, tmp_path):
    whole, parted = tmp_path / "whole", tmp_path / "parted"
    printed = python(INTERRUPTED, bundle, whole, parted, 3)
    record = read_json(whole / "results.json")
    accuracy = record["headline"]["test_accuracy"]
    *lines, last = printed.splitlines()
    assert last == "SIGTERM: saved after step 3"
    assert (
        f"headline: test accuracy {100 * accuracy:.2f} % (EMA weights, median of the last 3 "
        "evaluations)"
    ) in lines
    assert not (parted / "results.json").exists()
    python(bundle / "run.py", "--device=cpu", "--loss_scale=0", f"--output={parted}")
    assert rows_of(parted) == rows_of(whole)
    assert read_json(parted / "results.json") == record
    expected = variables_of(whole)
    found = variables_of(parted)
    assert set(found) == set(expected)
    assert {"loss_scale", "good_steps", "bad_steps", "step", "beta1_power"} <= set(found)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    # A finished run is left unchanged.
    before = (whole / "metrics.jsonl").read_text()
    train_here(bundle / "run.py", "--loss_scale=0", f"--output={whole}")
    assert (whole / "metrics.jsonl").read_text() == before


@pytest.fixture(scope="module")
def staged(bundle, tmp_path_factory):
    """The output of a run that reads its bundle elsewhere, and writes elsewhere."""
    here, out = tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("out") / "run [1]"
    shutil.copy(bundle / "run.py", here)
    train_here(here / "run.py", f"--data_url={bundle}", f"--train_url={out}")
    return out


@pytest.mark.slow
def test_metrics_have_the_names_of_ssljax(staged, tmp_path):
    loop.train(build(tiny_config("mixmatch")), tmp_path / "jax")
    ours, theirs = rows_of(tmp_path / "jax"), rows_of(staged)
    assert [row["step"] for row in theirs] == [row["step"] for row in ours]
    for row, expected in zip(theirs, ours, strict=True):
        assert set(row) - {"applied_steps"} == set(expected)
        assert row["learning_rate"] == pytest.approx(expected["learning_rate"])
    assert read_json(staged / "results.json").keys() == (
        read_json(tmp_path / "jax/results.json").keys()
    )


@pytest.fixture(
    scope="module", params=["mixmatch", pytest.param("fixmatch", marks=pytest.mark.slow)]
)
def finished(request, tmp_path_factory):
    """A bundle of a JAX run, trained further by the runner, and that run."""
    directory = tmp_path_factory.mktemp("finished") / "of [1]"  # not a pattern
    config = tiny_config(request.param)
    config.num_steps = 4
    loop.train(build(config), directory / "jax")
    code = cli.main([
        "--mode=export", "--format=npu_bundle",
        f"--workdir={directory / 'jax'}", f"--output={directory / 'bundle'}",
    ])  # fmt: skip
    assert code == 0
    manifest = read_json(directory / "bundle" / "manifest.json")
    assert manifest["first_step"] == 4
    manifest["config"]["num_steps"] = 12
    write_sealed(directory / "bundle" / "manifest.json", manifest)
    train_here(directory / "bundle" / "run.py", "--loss_scale=128")
    return directory


def test_what_was_trained_comes_back_as_a_run(finished, tmp_path, capsys):
    workdir = tmp_path / "run"
    partial_path(workdir).mkdir()
    (partial_path(workdir) / "config.json").touch()  # a killed import
    bundle = f"--bundle={finished / 'bundle'}"
    code, output, errors = command(capsys, "--mode=import_npu", f"--workdir={workdir}", bundle)
    assert code == 0, errors
    assert output.endswith(f"wrote {workdir}: step 12 of the bundle's runner\n")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert read_json(workdir / "results.json") == read_json(finished / "bundle/run/results.json")

    config = ml_collections.ConfigDict(read_json(workdir / "config.json"))
    found = evaluation.evaluate_directory(workdir)
    assert found.step == 12
    recorded = rows_of(finished / "bundle" / "run")[-1]
    for name, value in found.scores.items():
        assert recorded[name] == pytest.approx(value, rel=1e-4), name
    assert trained.load(workdir).step == 12

    # Training can continue, with the optimizer's state.
    config.num_steps = 16
    loop.train(build(config), workdir)
    rows = rows_of(workdir)
    assert [row["step"] for row in rows] == [6, 8, 10, 12, 14, 16]
    assert rows[-1]["loss/total"] < 2 * rows[3]["loss/total"]


def test_the_optimizers_state_comes_back(finished):
    import jax

    manifest = read_json(finished / "bundle" / "manifest.json")
    experiment = build(ml_collections.ConfigDict(manifest["config"]))
    variables = variables_of(finished / "bundle" / "run")
    state = npu_import._state(experiment, manifest, variables.__getitem__, Path("checkpoint"))
    slots = {"adam": ("mu", "Adam"), "momentum": ("trace", "Momentum")}
    field, suffix = slots[manifest["optimizer"]["name"]]
    leaves = jax.tree_util.tree_leaves_with_path(state.opt_state)
    found = {jax.tree_util.keystr(path): leaf for path, leaf in leaves}
    counts = [int(v) for k, v in found.items() if k.endswith(".count")]
    # The runner made eight updates with a new optimizer; the schedule is at step 12.
    assert sorted(counts) == ([8, 12, 12] if field == "mu" else [12])
    kernel = next(v for k, v in found.items() if f".{field}['Conv_1']['kernel']" in k)
    np.testing.assert_array_equal(kernel, variables[f"param/Conv_1/kernel/{suffix}"])


def test_what_cannot_be_imported_is_named(bundle, finished, tmp_path):
    def refused(match, **arguments):
        arguments = {"bundle": finished / "bundle", "workdir": tmp_path / "run"} | arguments
        with pytest.raises(UsageError, match=match):
            npu_import.import_run(**arguments)
        assert not (tmp_path / "run").exists()

    refused("holds no checkpoint of the runner", bundle=bundle, output=tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(UsageError, match="full is not empty"):
        npu_import.import_run(finished / "bundle", tmp_path / "full")
    other = tmp_path / "other"
    npu_bundle.write(build(tiny_config("supervised")), other_directory(other))
    manifest = read_json(other / "manifest.json")
    manifest["config"]["model_args"]["filters"] = 2
    write_sealed(other / "manifest.json", manifest)
    refused("to another bundle|not \\(", bundle=other, output=finished / "bundle" / "run")
    write_sealed(other / "manifest.json", manifest | {"format": 0})
    refused("has format 0, not 1", bundle=other)


def other_directory(path):
    path.mkdir()
    return path


@pytest.mark.slow
def test_a_terminal_that_closes_saves_and_leaves(bundle, tmp_path):
    """Its output is closed, and SIGHUP arrives twice."""
    endless = tmp_path / "bundle"
    shutil.copytree(bundle, endless)
    manifest = read_json(endless / "manifest.json")
    manifest["config"] |= {"num_steps": 10**6, "eval_every": 10**6, "log_every": 1}
    write_sealed(endless / "manifest.json", manifest)
    command = [sys.executable, endless / "run.py", "--device=cpu"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=ENVIRONMENT, **pipes)
    process.stdout.close()
    deadline = time.monotonic() + 120
    rows = endless / "run" / "metrics.jsonl"
    while not (rows.exists() and rows.read_text().count("\n") > 2):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGHUP)
    printed = process.stderr.read()
    assert process.wait(60) == 128 + signal.SIGHUP, printed
    last = printed.splitlines()[-1]
    assert last.startswith("SIGHUP: saved after step ")
    step = int(last.split()[4].rstrip(";"))
    assert (endless / "run" / f"checkpoint-{step}.index").exists()


def flip(path, at=None):
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if at is None else at] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "name", ["train.pb", "eval.pb", "data.npz", "weights.npz", "manifest.json", "run.py"]
)
def test_a_bundle_that_was_damaged_on_its_way_is_refused(name, runner, bundle, tmp_path, capsys):
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    flip(copy / name, at=-3)
    refuse(runner, f"--bundle={copy}")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {copy / name} ")
    (copy / name).unlink()
    refuse(runner, f"--bundle={copy}")
    assert f"{copy / name} " in capsys.readouterr().err
    assert not (copy / "run").exists()


def refuse(runner, *flags):
    """Runs the runner in this process, without its signal handlers; it must reject the flags."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "StopSignal", lambda: None)
        assert runner.main(["--device=cpu", *flags]) == 2


def test_arrays_of_an_older_bundle_are_whole_or_refused(runner, bundle, tmp_path):
    """Without `SHA256SUMS`: flips each bit of the beginning, with NumPy's header, and others."""
    expected = runner.read_arrays(bundle / "weights.npz")
    path = tmp_path / "weights.npz"
    content = (bundle / "weights.npz").read_bytes()
    refused = 0
    for at in [*range(200), *range(200, len(content), len(content) // 100)]:
        path.write_bytes(content)
        flip(path, at)
        try:
            found = runner.read_arrays(path, expected)
        except runner.Mistake:
            refused += 1
        else:
            assert all(map(np.array_equal, found.values(), expected.values())), at
    assert refused > 200


@pytest.mark.parametrize(
    "name", ["checkpoint-12.index", "checkpoint-12.data-00000-of-00001", "window-12.json"]
)
def test_a_damaged_checkpoint_is_neither_gone_on_from_nor_imported(
    name, runner, bundle, staged, tmp_path
):
    output = tmp_path / "run"
    shutil.copytree(staged, output)
    assert runner.saved_steps(output) == [12, 8, 4]
    runner._verified(output, 12)
    for damage in (flip, Path.unlink):
        damage(output / name)
        with pytest.raises(runner.Mistake, match=f"{name} .*or remove .* to continue from step 8"):
            runner._verified(output, 12, 8)
        with pytest.raises(UsageError, match=f"run is damaged: {name} "):
            npu_import.import_run(bundle, tmp_path / "imported", output=output)
    (output / "manifest-12.json").write_text("{")
    with pytest.raises(runner.Mistake, match="manifest-12.json cannot be read"):
        runner._verified(output, 12, 8)
    with pytest.raises(UsageError, match=r"manifest-12.json is damaged"):
        npu_import.import_run(bundle, tmp_path / "imported", output=output)
    assert not (tmp_path / "imported").exists()


def test_rows_of_the_runner_do_not_change_without_a_word(runner, bundle, staged, tmp_path, capsys):
    output = tmp_path / "run"
    shutil.copytree(staged, output)
    recorded, rows = runner._verified(output, 12), output / "metrics.jsonl"
    content = rows.read_bytes()
    rows.write_bytes(content + b'{"step": 14}\n{"st')  # after the checkpoint
    assert len(runner.Log(output, 12, recorded).rows) == 6
    assert rows.read_bytes() == content
    rows.write_bytes(content.partition(b"\n")[2])
    with pytest.raises(runner.Mistake, match="changed or lost rows since step 12 was saved"):
        runner.Log(output, 12, recorded)
    with pytest.raises(UsageError, match="metrics.jsonl has changed since checkpoint-12 was saved"):
        npu_import.import_run(bundle, tmp_path / "imported", output=output)
    rows.write_bytes(b"{]\n" + content)
    with pytest.raises(runner.Mistake, match="metrics.jsonl cannot be read in line 1"):
        runner.Log(output, 12, None)  # written by an older version
    rows.unlink()
    assert runner.Log(output, 12, recorded).rows == []
    assert "metrics.jsonl is missing: the rows up to step 12 are lost" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["OSError", "OutOfRangeError", "PermissionError"])
def test_what_the_system_refuses_is_one_line(name, runner, bundle, capsys, monkeypatch):
    def refuse(options, stop):
        if name == "OutOfRangeError":
            raise runner.tf.errors.OutOfRangeError(None, None, "/out/checkpoint-2; File too large")
        if name == "PermissionError":
            raise PermissionError(13, "Permission denied", "/out")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runner, "train", refuse)
    monkeypatch.setattr(runner, "StopSignal", lambda: None)
    assert runner.main(["--device=cpu", f"--bundle={bundle}"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    reasons = {
        "OSError": "No space left on device; the previous checkpoint",
        "PermissionError": "Permission",
    }
    assert reasons.get(name, "File too large; the previous checkpoint is intact") in line


def test_a_run_of_something_else_is_left_alone(runner, tmp_path):
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "lock").touch()
    runner.require_own(tmp_path)  # a run killed before its first checkpoint
    (tmp_path / "config.json").touch()
    with pytest.raises(runner.Mistake, match="holds no run of a bundle, but config.json"):
        runner.require_own(tmp_path)
    (tmp_path / "manifest-4.json").touch()
    runner.require_own(tmp_path)


def test_one_process_trains_in_an_output_directory(runner, tmp_path):
    with (
        runner.alone(tmp_path),
        pytest.raises(runner.Mistake, match="in use: another process"),
        runner.alone(tmp_path),
    ):
        pass


def test_a_hangup_is_heeded_unless_nohup_ignores_it(runner):
    signums = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {signum: signal.getsignal(signum) for signum in signums}
    try:
        for ignored in (False, True):
            signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
            stop = runner.StopSignal()
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.number == (None if ignored else signal.SIGHUP)
    finally:
        for signum, action in before.items():
            signal.signal(signum, action)


def test_directories_are_staged(staged):
    assert (staged / "results.json").exists()
    assert (staged / "checkpoint-12.index").exists()


def test_moxing_stages_where_it_is_there(runner, tmp_path, monkeypatch):
    calls = []
    moxing = type(sys)("moxing")
    moxing.file = type(sys)("moxing.file")
    moxing.file.copy_parallel = lambda *args: calls.append(args)
    monkeypatch.setitem(sys.modules, "moxing", moxing)
    runner.copy("obs://a", "b")
    assert calls == [("obs://a", "b")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device=cpu", "--loss_scale=-2"], "--loss_scale is -2; allowed: 0, -1, or from 1 up"),
        (["--device=cpu", "--loss_scale=0.5"], "--loss_scale is 0.5; allowed: 0, -1, or from 1 up"),
        (["--device=cpu", "--loss_scale=nan"], "--loss_scale is nan; allowed"),
        ([], "--device=npu needs npu_bridge"),
        (["--device=cpu", "--bundle=/nowhere"], "/nowhere/manifest.json cannot be read"),
    ],
)
def test_bad_flags_get_one_line_and_exit_code_2(
    flags, message, runner, bundle, capsys, monkeypatch
):
    monkeypatch.setattr(runner, "StopSignal", lambda: None)  # this process keeps its handlers
    assert runner.main(["--bundle", str(bundle), *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not (bundle / "run").exists()


class Manager:
    """Stands for npu_bridge's manager and records its arguments."""

    def __init__(self, **arguments):
        self.arguments = arguments


class Wrapped:
    """Stands for `NPULossScaleOptimizer`."""

    def __init__(self, optimizer, manager):
        self.optimizer, self.manager = optimizer, manager


@pytest.fixture
def npu_bridge(monkeypatch):
    """Stands for npu_bridge, which exists on Ascend machines only."""
    package, module = type(sys)("npu_bridge"), type(sys)("npu_bridge.npu_init")
    module.ExponentialUpdateLossScaleManager = type("Exponential", (Manager,), {})
    module.FixedLossScaleManager = type("Fixed", (Manager,), {})
    module.NPULossScaleOptimizer = Wrapped
    package.npu_init = module
    monkeypatch.setitem(sys.modules, "npu_bridge", package)
    monkeypatch.setitem(sys.modules, "npu_bridge.npu_init", module)


def test_npu_bridge_scales_the_loss_where_it_is_there(runner, npu_bridge):
    dynamic = runner.scaled("updates", 0, "npu")
    assert isinstance(dynamic, Wrapped)
    assert dynamic.optimizer == "updates"
    assert type(dynamic.manager).__name__ == "Exponential"
    assert dynamic.manager.arguments == {
        "init_loss_scale": 2**32,
        "incr_every_n_steps": 1000,
        "decr_every_n_nan_or_inf": 2,
        "decr_ratio": 0.5,
    }
    fixed = runner.scaled("updates", 1024, "npu")
    assert (type(fixed.manager).__name__, fixed.manager.arguments) == (
        "Fixed", {"loss_scale": 1024},
    )  # fmt: skip
    assert runner.scaled("updates", -1, "npu") == "updates"


def test_the_session_of_an_npu_is_configured_as_published(runner, npu_bridge):
    flags = ["--precision=allow_mix_precision"]
    options = runner.session_config(runner.parse(flags)).graph_options.rewrite_options
    (custom,) = options.custom_optimizers
    assert custom.name == "NpuOptimizer"
    assert custom.parameter_map["use_off_line"].b
    assert custom.parameter_map["precision_mode"].s == b"allow_mix_precision"
    assert "dynamic_input" not in custom.parameter_map
    assert (options.remapping, options.memory_optimization) == (options.OFF, options.OFF)

    options = runner.session_config(runner.parse(["--dynamic_input"])).graph_options.rewrite_options
    (custom,) = options.custom_optimizers
    assert custom.parameter_map["precision_mode"].s == b"force_fp32"
    assert custom.parameter_map["dynamic_input"].b
    assert custom.parameter_map["dynamic_graph_execute_mode"].s == b"lazy_recompile"
    on_cpu = runner.session_config(runner.parse(["--device=cpu"]))
    assert not on_cpu.graph_options.rewrite_options.custom_optimizers


def test_an_epoch_has_each_example_once_in_an_order_of_its_own(runner):
    orders = runner.permuted(7, 0, 10, np.arange(30)).reshape(3, 10)
    for order in orders:
        assert sorted(order) == list(range(10))
    assert len({tuple(order) for order in orders}) == 3
    # Any part of the sequence can be computed directly.
    np.testing.assert_array_equal(
        runner.permuted(7, 0, 10, np.arange(13, 22)), orders.ravel()[13:22]
    )
    assert not np.array_equal(runner.permuted(7, 1, 10, np.arange(30)), orders.ravel())


def test_weak_views_flip_and_shift(runner):
    images = np.random.RandomState(1).randint(0, 10**9, (2000, 6, 6, 1))
    found = runner.weak_view(images, np.random.RandomState(0), flip=0.5, pad=2, mode="reflect")
    offsets, flips = [], 0
    for image, view in zip(images[..., 0], found[..., 0], strict=True):
        padded = [np.pad(x, 2, "reflect") for x in (image, image[:, ::-1])]
        matches = [
            (flip, y, x)
            for flip in (False, True)
            for y in range(5)
            for x in range(5)
            if np.array_equal(view, padded[flip][y : y + 6, x : x + 6])
        ]
        (match,) = matches
        flips += match[0]
        offsets.append(match[1:])
    assert abs(flips - 1000) < 100
    counts = np.histogram2d(*np.array(offsets).T, bins=5)[0]
    assert counts.min() > 40  # 80 expected
    assert counts.max() < 130


def test_noise_has_the_distributions_of_the_manifest(runner):
    lam = runner.draw(np.random.RandomState(0), kind="larger_beta", size=20_000, beta=0.5)
    assert lam.dtype == np.float32
    assert lam.min() >= 0.5
    # max(λ, 1 - λ) of Beta(½, ½), the arcsine law: ½ + 1/π on average.
    assert lam.mean() == pytest.approx(0.5 + 1 / np.pi, abs=0.005)
    order = runner.draw(np.random.RandomState(0), kind="permutation", size=50)
    assert sorted(order) == list(range(50))
    with pytest.raises(runner.Mistake, match="distribution 'cauchy', which is unknown"):
        runner.draw(np.random.RandomState(0), kind="cauchy", size=1)


@pytest.mark.parametrize(
    ("name", "decay_epochs"), [("constant", [1]), ("cosine", [1]), ("staircase", [3]),
                               ("staircase", [2, 4])]
)  # fmt: skip
def test_learning_rates_are_those_of_jax(runner, name, decay_epochs):
    from ssljax.training import optim

    knobs = {
        "name": name, "lr": 0.3, "steps": 40, "steps_per_epoch": 7.5, "warmup_epochs": 1.5,
        "decay_epochs": decay_epochs,
    }  # fmt: skip
    schedule = optim.make_schedule(**knobs)
    for step in range(45):
        assert runner.learning_rate(step, **knobs) == pytest.approx(float(schedule(step)), rel=1e-5)


def test_a_batch_that_cannot_be_made_stops_the_run(runner):
    def make(step):
        if step == 2:
            raise OSError("no such disk")
        return step

    batches = runner.Prefetch(make, 0, 5)
    assert [batches.next(), batches.next()] == [0, 1]
    with pytest.raises(OSError, match="no such disk"):
        batches.next()
    batches.close()


def test_the_runner_needs_nothing_but_numpy_and_tensorflow():
    tree = ast.parse((ROOT / "ssljax/export/npu_run.py").read_text(), feature_version=(3, 7))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    allowed = {"numpy", "tensorflow", "npu_bridge", "moxing"}
    assert imported - allowed <= set(sys.stdlib_module_names)
    assert allowed <= imported


def test_python_3_7_compiles_the_runner(bundle):
    base = tensorflow_1_15._python_3_7()
    if base is None:
        pytest.skip("no Python 3.7, on the PATH or in pyenv")
    command = [base, "-m", "py_compile", str(bundle / "run.py")]
    assert subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.slow
def test_a_run_on_digits_is_as_good_as_jaxs(tmp_path):
    config = tiny_config("mixmatch")
    fresh = __import__("configs.mixmatch_digits").mixmatch_digits.get_config()
    for name in ("batch_size", "uratio", "ema_decay", "model_args", "log_every", "eval_every"):
        config[name] = fresh[name]
    config.num_steps = 800
    experiment = recipe.build(config)
    results = loop.train(experiment, tmp_path / "jax")
    (tmp_path / "bundle").mkdir()
    npu_bundle.write(experiment, tmp_path / "bundle")
    in_current(tmp_path / "bundle" / "run.py", "--device=cpu", "--loss_scale=0")
    found = read_json(tmp_path / "bundle" / "run" / "results.json")
    ours, theirs = (x["last"]["test/accuracy_ema"] for x in (results, found))
    print(f"JAX {100 * ours:.2f} %, the runner {100 * theirs:.2f} %")
    assert ours > 0.9
    assert abs(ours - theirs) <= 0.02
