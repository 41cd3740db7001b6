"""Tests exports of a trained run: their outputs, the accompanying files, and rejected input."""

import dataclasses
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.command import command, refused
from helpers.compilation import NO_KERAS
from helpers.trained_models import logits_of, model, train
from ssljax import trained
from ssljax.errors import RunError, UsageError
from ssljax.export import export, onnx_model, parity, saved_model, tf1_model
from ssljax.export.artefact import Artefact
from ssljax.inference.calibration import softmax

ROOT = Path(__file__).parents[2]
FORMATS = ("saved_model", "tf1", "onnx")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run directory."""
    return train(tmp_path_factory.mktemp("export"))[0]


def runner(format, directory):
    if format == "onnx":
        return onnx_model.runner(directory / "model.onnx")
    if format == "tf1":
        return tf1_model.runner(directory / "model.pb")
    return saved_model.runner(directory)


def logits(run, weights, images):
    return logits_of(trained.load(run, weights=weights), images)


def images_of(run, n):
    with np.load(run.parent / "data.npz") as data:
        return data["test_images"][:n]


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_computes_what_the_run_evaluated(format, run, tmp_path, capsys):
    export.export(run, tmp_path / "out", format=format)
    report = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert report["passed"]
    assert (report["images"], report["weights"], report["step"]) == (1000, "ema", 6)
    (compared,) = report["exported"].values()
    assert compared["agreement"] == 1
    assert compared["max_abs_difference"] < 1e-4 * compared["max_abs_logit"]
    recorded = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert report["top1_recorded"] == recorded["test/accuracy_ema"]
    assert compared["top1_exported"] == pytest.approx(report["top1_recorded"])
    printed = capsys.readouterr().out
    assert "parity passed" in printed
    assert "100.000 % of 1000 predictions agree" in printed
    assert (tmp_path / "out" / "labels.txt").read_text().split() == list("0123456789")
    assert "uint8 `[N, 16, 16, 3]`" in (tmp_path / "out" / "README.md").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]  # no incomplete files


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_the_chosen_weights_and_input_type_are_exported(format, weights, run, tmp_path):
    images = images_of(run, 7)
    export.export(run, tmp_path, format=format, weights=weights, input_dtype="float32", limit=0)
    found = runner(format, tmp_path)
    other = logits(run, {"ema": "raw", "raw": "ema"}[weights], images)
    for n in (1, 7):
        expected = logits(run, weights, images[:n])
        values = found(images[:n].astype(np.float32))["logits"]
        np.testing.assert_allclose(values, expected, atol=1e-5)
        assert np.abs(values - other[:n]).max() > 1e-3


@pytest.mark.parametrize(
    "name",
    [
        "wide_resnet", "cnn13", "convnet", "vit_tiny",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "shake_resnet", "resnet18", "vit_clip", "vit_mae", "vit_augreg",
                "efficientnet_lite0", "efficientnet_lite4",
            )
        ),
    ],
)  # fmt: skip
def test_every_model_can_be_exported_in_every_format(name, tmp_path):
    source, images = model(name)
    expected = logits_of(source, images)
    saved_model.write(source, tmp_path, input_dtype="uint8")
    tf1_model.write(source, tmp_path / "model.pb", input_dtype="uint8", batch_size=None)
    onnx_model.write(source, tmp_path / "model.onnx", input_dtype="uint8", opset=17)
    for format in FORMATS:
        found = runner(format, tmp_path)
        for n in (1, 7):
            difference = np.abs(found(images[:n])["logits"] - expected[:n]).max()
            assert difference <= 1e-5 * np.abs(expected).max(), (format, n)


@pytest.mark.slow
def test_a_saved_model_loads_without_jax_and_by_the_loader_of_tensorflow_1(run, tmp_path):
    export.export(run, tmp_path / "out", format="saved_model", limit=0)
    images = images_of(run, 3)
    np.save(tmp_path / "images.npy", images)
    script = """if True:
        import sys
        sys.modules["jax"] = sys.modules["ssljax"] = None  # their import fails
        import numpy as np, tensorflow as tf
        images = np.load(sys.argv[1] + "/images.npy")
        serve = tf.saved_model.load(sys.argv[1] + "/out").signatures["serving_default"]
        outputs = {k: v.numpy() for k, v in serve(images=tf.constant(images)).items()}
        with tf.Graph().as_default(), tf.compat.v1.Session() as session:
            loaded = tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1] + "/out")
            signature = loaded.signature_def["serving_default"]
            outputs["loaded"] = session.run(
                signature.outputs["logits"].name, {signature.inputs["images"].name: images})
        np.savez(sys.argv[1] + "/outputs.npz", **outputs)
    """
    command = [sys.executable, "-c", script, str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | NO_KERAS)
    outputs = np.load(tmp_path / "outputs.npz")
    expected = logits(run, "ema", images)
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-5)
    np.testing.assert_allclose(outputs["loaded"], expected, atol=1e-5)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), 1, atol=1e-6)


def test_a_saved_model_is_lowered_for_cpu_cuda_and_tpu(run, tmp_path):
    import tensorflow as tf

    export.export(run, tmp_path, format="saved_model", limit=0)
    meta_graph = tf.saved_model.load(str(tmp_path)).signatures["serving_default"].graph
    graph_def = meta_graph.as_graph_def()
    nodes = [node for f in graph_def.library.function for node in f.node_def]
    (call,) = [node for node in nodes if node.op == "XlaCallModule"]
    assert sorted(call.attr["platforms"].list.s) == [b"CPU", b"CUDA", b"TPU"]


def test_a_tf1_graph_for_each_batch_size_and_the_command_for_atc(run, tmp_path):
    export.export(run, tmp_path / "out", format="tf1", batch_sizes=(1, 8), limit=20)
    report = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert set(report["exported"]) == {"model_b1.pb", "model_b8.pb"}
    assert report["images"] == 20
    assert report["passed"]
    with np.load(run.parent / "data.npz") as data:
        right = logits(run, "ema", data["test_images"]).argmax(axis=1) == data["test_labels"]
        chosen = parity.spread(data["test_labels"], 20)
    assert report["exported"]["model_b8.pb"]["top1_jax"] == right[chosen].mean()
    images = images_of(run, 8)
    found = tf1_model.runner(tmp_path / "out" / "model_b8.pb")(images)
    np.testing.assert_allclose(found["logits"], logits(run, "ema", images), atol=1e-5)
    (tmp_path / "atc").write_text('#!/bin/sh\nprintf "%s\\n" "$@" ---\n')
    (tmp_path / "atc").chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SOC": "Ascend310P3"}
    script = ["sh", str(tmp_path / "out" / "atc.sh")]
    printed = subprocess.run(script, env=environment, capture_output=True, text=True, check=True)
    first, second, _ = printed.stdout.split("---\n")
    assert first.splitlines() == [
        "--framework=3",
        "--model=model_b1.pb",
        "--output=model_b1",
        "--soc_version=Ascend310P3",
        "--input_format=NHWC",
        "--input_shape=images:1,16,16,3",
        "--out_nodes=logits:0;probabilities:0",
        "--output_type=FP32",
        "--precision_mode=must_keep_origin_dtype",
    ]
    assert "--input_shape=images:8,16,16,3" in second.splitlines()
    del environment["SOC"]
    refused = subprocess.run(script, env=environment, capture_output=True, text=True)
    assert refused.returncode
    assert "SOC" in refused.stderr


def test_an_opset_that_nothing_knows_is_refused_before_anything_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(trained, "load", lambda *args, **options: pytest.fail("the model is read"))
    (tmp_path / "config.json").write_text('{"model": "convnet"}')
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(UsageError, match="--opset is 99; allowed: up to [0-9]+, of onnx "):
        export.export(tmp_path, tmp_path.parent / "out", format="onnx", opset=99)
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(UsageError, match="ONNX Runtime cannot run the model: .*; try --opset=17"):
        onnx_model.runner(tmp_path / "model.onnx")


def test_onnx_has_the_opset_that_is_asked_for_and_passes_the_checker(run, tmp_path):
    import onnx

    for opset in (17, 20):
        export.export(run, tmp_path, format="onnx", opset=opset, limit=0, overwrite=True)
        found = onnx.load(tmp_path / "model.onnx")
        onnx.checker.check_model(found, full_check=True)
        assert [o.version for o in found.opset_import] == [opset]
        assert [o.name for o in found.graph.output] == ["logits", "probabilities"]
    with pytest.raises(UsageError, match="--opset=3: "):
        export.export(run, tmp_path, format="onnx", opset=3, limit=0, overwrite=True)


@pytest.mark.slow
def test_neither_training_code_nor_data_is_needed(run, tmp_path):
    script = """if True:
        import sys
        from pathlib import Path
        for name in ("training", "methods", "data", "recipe", "parts", "experiment", "run"):
            sys.modules["ssljax." + name] = None  # its import fails
        from ssljax.export import export
        for format in sys.argv[3:]:
            export.export(Path(sys.argv[1]), Path(sys.argv[2], format), format=format, limit=0)
    """
    command = [sys.executable, "-c", script, str(run), str(tmp_path), *FORMATS]
    environment = os.environ | NO_KERAS
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if "allowed: an older jax" in done.stderr:
        pytest.skip(done.stderr.splitlines()[-1])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("no parity report was asked for") == len(FORMATS)
    for format in FORMATS:
        assert not (tmp_path / format / "parity.json").exists()
        assert (tmp_path / format / "README.md").exists()


def test_data_that_is_gone_is_named_before_anything_is_written(run, tmp_path):
    data = run.parent / "data.npz"
    data.rename(tmp_path / "elsewhere.npz")
    try:
        with pytest.raises(UsageError, match=r"data.npz .*--limit=0 exports without the data"):
            export.export(run, tmp_path / "out", format="tf1")
    finally:
        (tmp_path / "elsewhere.npz").rename(data)
    assert not (tmp_path / "out").exists()
    run = Path(shutil.copytree(run, tmp_path / "run"))
    shutil.rmtree(run / "checkpoints" / "6")
    with pytest.raises(UsageError, match="holds no checkpoint yet"):
        export.export(run, tmp_path / "out", format="tf1", limit=0)
    with pytest.raises(UsageError, match=r"nowhere/config.json cannot be read"):
        export.export(tmp_path / "nowhere", tmp_path / "out", format="tf1", limit=0)


def test_an_output_directory_with_files_is_replaced_only_when_asked(run, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("dear")
    with pytest.raises(UsageError, match="out is not empty; --overwrite replaces it"):
        export.export(run, tmp_path / "out", format="tf1", limit=0)
    assert (tmp_path / "out" / "mine").read_text() == "dear"
    export.export(run, tmp_path / "out", format="tf1", limit=0, overwrite=True)
    assert not (tmp_path / "out" / "mine").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    (tmp_path / "file").write_text("dear")
    with pytest.raises(UsageError, match="file is not empty"):
        export.export(run, tmp_path / "file", format="tf1", limit=0, overwrite=True)


def test_what_breaks_half_way_leaves_everything_as_it_was(run, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("dear")

    def broken(*args, **options):
        raise OSError("disk full")

    monkeypatch.setattr(tf1_model.tf1_graph, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        export.export(run, tmp_path / "out", format="tf1", overwrite=True)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["mine", "out"]


def test_an_export_that_computes_something_else_fails_and_is_put_aside(run, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("dear")
    real = tf1_model.write

    def wrong_head(source, path, **options):
        real(trained.load(run, weights="raw"), path, **options)

    monkeypatch.setattr(tf1_model, "write", wrong_head)
    with pytest.raises(RunError, match=r"differs from the JAX model; it is kept in .*out.failed"):
        export.export(run, tmp_path / "out", format="tf1", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "out.failed"]
    assert (tmp_path / "out" / "mine").read_text() == "dear"
    report = json.loads((tmp_path / "out.failed" / "parity.json").read_text())
    assert not report["passed"]
    assert "parity FAILED" in (tmp_path / "out.failed" / "README.md").read_text()


def test_an_export_carries_the_temperature_and_another_one_fails(run, tmp_path, monkeypatch):
    calibrated = dataclasses.replace(trained.load(run), calibration={"temperature": 2.5})
    monkeypatch.setattr(export.trained, "load", lambda *args, **options: calibrated)
    export.export(run, tmp_path / "out", format="tf1", limit=30)
    report = json.loads((tmp_path / "out" / "parity.json").read_text())
    assert report["temperature"] == 2.5
    assert "divided by the temperature 2.5" in (tmp_path / "out" / "README.md").read_text()
    images = images_of(run, 5)
    found = runner("tf1", tmp_path / "out")(images)
    np.testing.assert_allclose(found["logits"], logits(run, "ema", images), atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], softmax(found["logits"], 2.5), atol=1e-6)

    real = tf1_model.write
    warmer = dataclasses.replace(calibrated, calibration={"temperature": 2.6})
    monkeypatch.setattr(
        tf1_model, "write", lambda _, path, **options: real(warmer, path, **options)
    )
    with pytest.raises(RunError, match="differs from the JAX model"):
        export.export(run, tmp_path / "other", format="tf1", limit=30)


def test_weights_other_than_those_that_were_evaluated_fail(run, tmp_path, monkeypatch):
    """Both sides of the report have the same weights; only the run's recorded scores differ."""
    real = trained.load
    monkeypatch.setattr(
        export.trained,
        "load",
        lambda run, weights, **more: dataclasses.replace(
            real(run, weights="raw", **more), weights="ema"
        ),
    )
    rows = (run / "metrics.jsonl").read_text().splitlines()
    last = json.loads(rows[-1])
    assert abs(last["test/accuracy_raw"] - last["test/accuracy_ema"]) > 0.001
    with pytest.raises(RunError, match="differs from the JAX model"):
        export.export(run, tmp_path / "out", format="tf1")


class Sorting(nn.Module):
    num_classes: int = 10

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Dense(self.num_classes, name="Last")(images.mean(axis=(1, 2)))
        return _Sorted(name="Odd")(x), x


class _Sorted(nn.Module):
    @nn.compact
    def __call__(self, x):
        return jnp.sort(x)


class Training(nn.Module):
    """BatchNorm that normalises by the batch even in evaluation."""

    @nn.compact
    def __call__(self, images, *, train):
        x = nn.Dense(10)(images.mean(axis=(1, 2)))
        return nn.BatchNorm(use_running_average=False)(x), x


def with_model(monkeypatch, run, network):
    key = {"params": jax.random.key(0)}
    variables = network.init(key, jnp.zeros((2, 16, 16, 3)), train=False)
    real = dataclasses.replace(trained.load(run), model=network, variables=variables)
    monkeypatch.setattr(export.trained, "load", lambda *args, **options: real)


def test_a_model_with_an_unsupported_primitive_is_named_with_the_layer(run, tmp_path, monkeypatch):
    with_model(monkeypatch, run, Sorting())
    with pytest.raises(UsageError, match="sort in layer Sorting/Odd cannot be exported as tf1"):
        export.export(run, tmp_path / "out", format="tf1")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", FORMATS)
def test_batch_norm_in_training_mode_is_refused(format, run, tmp_path, monkeypatch):
    with_model(monkeypatch, run, Training())
    with pytest.raises(UsageError, match="BatchNorm in training mode cannot be exported"):
        export.export(run, tmp_path / "out", format=format)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("format", "package", "extra"),
    [
        ("onnx", "jax2onnx", "onnx"),
        ("onnx", "onnxruntime", "onnx"),
        ("tf1", "tensorflow", "tensorflow"),
        ("saved_model", "tensorflow", "tensorflow"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    format, package, extra, run, tmp_path, monkeypatch
):
    for name in [*sys.modules]:
        if name.startswith("ssljax.export.") and name.count(".") == 2:
            monkeypatch.delitem(sys.modules, name)
            monkeypatch.delattr(f"ssljax.export.{name.rpartition('.')[2]}", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=rf"--format={format} needs the extra {extra}: pip"):
        export.export(run, tmp_path / "out", format=format, limit=0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--format=pmml"], "saved_model"),
        (
            ["--format=tf1", "--batch_sizes=1,0"],
            "--batch_sizes=1,0 is not a list of numbers from 1",
        ),
        (["--format=onnx", "--batch_sizes=1"], "--batch_sizes is given with --format=onnx"),
        (["--format=tf1", "--limit=-1"], "--limit is -1; allowed: from 0 up"),
        (["--format=tf1", "--weights=best"], "weights"),
        ([], "--format is missing"),
        (["--format=tf1", "--workdir=nowhere"], "nowhere/config.json cannot be read"),
    ],
)
def test_bad_flags_get_one_line_and_exit_code_2(args, message, run, tmp_path, capsys):
    output = f"--output={tmp_path / 'out'}"
    assert message in refused(capsys, "--mode=export", f"--workdir={run}", output, *args)
    assert not (tmp_path / "out").exists()


def test_the_command_exports(run, tmp_path, capsys):
    code, output, errors = command(
        capsys, "--mode=export", f"--workdir={run}", "--format=tf1",
        f"--output={tmp_path / 'out'}", "--batch_sizes=4", "--limit=10", "--weights=raw",
        "--input=float32",
    )  # fmt: skip
    assert code == 0, errors
    assert "model_b4.pb: top-1 " in output
    assert output.splitlines()[-1] == f"wrote {tmp_path}/out: tf1 of step 6, raw weights"


# The report.


def compare(run, labels=None, *, count=140, batch_size=None, **options):
    source, images = model("convnet")
    images = np.concatenate([images] * 20)[:count]  # 140: more than two batches
    labels = np.zeros(len(images), int) if labels is None else labels
    batches = [(images[i : i + 64], labels[i : i + 64]) for i in range(0, len(images), 64)]
    artefacts = {"m": Artefact(run, batch_size)}
    return parity.compare(source, artefacts, batches, **{"input_dtype": "uint8"} | options)


@functools.cache
def _served():
    source, _ = model("convnet")
    return functools.partial(jax.jit(source.serve()), source.variables)


def exact(images):
    return {name: np.asarray(x) for name, x in _served()(images).items()}


def test_a_report_counts_what_is_equal():
    predicted = exact(model("convnet")[1])["logits"].argmax(axis=1)
    labels = np.concatenate([predicted] * 20)
    labels[:35] = (labels[:35] + 1) % 10
    report = compare(exact, labels)
    assert report["passed"]
    assert report["images"] == 140
    assert report["temperature"] == 1
    assert report["exported"]["m"]["top1_jax"] == report["exported"]["m"]["top1_exported"] == 0.75
    labels[:70] = -1  # half the images have no labels and do not count
    assert compare(exact, labels)["exported"]["m"]["top1_jax"] == 1
    assert compare(exact, labels * 0 - 1)["exported"]["m"]["top1_jax"] is None
    assert compare(exact, count=65)["images"] == 65
    assert not compare(exact, count=0)["passed"]


def test_a_fixed_batch_size_is_filled_up():
    sizes = []

    def run(images):
        sizes.append(len(images))
        return exact(images)

    report = compare(run, batch_size=48, count=70)
    assert report["passed"]
    assert sizes == [48, 48, 48]  # 64 images, then 6


@pytest.mark.parametrize(
    "wrong",
    [
        lambda logits: logits * 1.001,  # the same predictions
        lambda logits: logits * np.nan,
        lambda logits: logits - 5 * np.eye(10)[logits.argmax(axis=1)],
        lambda logits: logits + len(logits) * 0.01,  # depends on the batch
        lambda logits: logits + logits.mean(axis=0) * 0.01,
    ],
)
def test_logits_that_differ_fail(wrong):
    def run(images):
        found = exact(images)
        return found | {"logits": wrong(found["logits"])}

    assert not compare(run)["passed"]


@pytest.mark.parametrize("temperature", [0.9, 1.1, np.nan])
def test_probabilities_of_another_temperature_fail(temperature):
    def run(images):
        found = exact(images)
        return found | {"probabilities": softmax(found["logits"], temperature)}

    report = compare(run)
    assert not report["passed"]
    assert report["exported"]["m"]["agreement"] == 1
    assert report["exported"]["m"]["max_abs_difference"] < 1e-4


def test_figures_unlike_those_the_run_recorded_fail():
    labels = np.zeros(140, int)
    found = compare(exact, labels)["exported"]["m"]["top1_jax"]
    assert compare(exact, labels, recorded=found)["passed"]
    assert not compare(exact, labels, recorded=found + 0.002)["passed"]


def test_the_images_of_a_report_are_spread_over_the_classes_and_the_data():
    labels = np.repeat([0, 1, 2, -1], [1000, 3, 500, 40])
    chosen = parity.spread(labels, 63)
    assert np.bincount(labels[chosen] + 1).tolist() == [20, 20, 3, 20]
    assert chosen.tolist() == sorted(chosen)
    of_first = chosen[labels[chosen] == 0]
    assert of_first[0] == 25
    assert set(np.diff(of_first)) == {50}
    for count in (1, 2, 7, 1500, 1543, 9999):
        chosen = parity.spread(labels, count)
        assert len(np.unique(chosen)) == len(chosen) == min(count, 1543)
    assert len(parity.spread(labels[:0], 5)) == 0
