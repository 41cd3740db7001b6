"""Tests that the predictions of exported models equal those of the run."""

import csv
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.compilation import NO_KERAS
from helpers.run_directories import untrained
from helpers.tiny import tiny_config
from helpers.trained_models import write_data
from ssljax import cli, recipe, trained
from ssljax.data import sources
from ssljax.export import export, predict
from ssljax.storage.files import write_sealed

ROOT = Path(__file__).parents[2]
FORMATS = ("saved_model", "tf1", "onnx")
TEMPERATURE = 0.4


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A run with a temperature, its exports, and photos."""
    home = tmp_path_factory.mktemp("home")
    write_data(home / "data.npz", size=16, test=20)
    config = tiny_config("supervised")
    config.dataset = f"npz:{home / 'data.npz'}.1@100-0"
    config.augment.weak = "none"
    untrained(recipe.build(config), home / "run", step=6)
    found = {"step": 6, "weights": "ema", "temperature": TEMPERATURE, "on": "validation"}
    write_sealed(home / "run" / "calibration.json", found)
    for format in FORMATS:
        sizes = (1, 8) if format == "tf1" else ()
        dtype = "float32" if format == "onnx" else "uint8"
        export.export(
            home / "run",
            home / format,
            format=format,
            limit=0,
            batch_sizes=sizes,
            input_dtype=dtype,
        )
    random = np.random.default_rng(0)
    (home / "photos" / "deep").mkdir(parents=True)
    for i in range(11):
        pixels = random.integers(0, 256, (4, 3 + i % 4, 3), np.uint8)
        picture = Image.fromarray(pixels).resize((20 + 7 * i, 60 - 3 * i))
        exif = Image.Exif()
        exif[0x0112] = 1 + i % 8
        picture.save(home / "photos" / ("deep" if i % 2 else "") / f"{i}, =ü.png", exif=exif)
    (home / "photos" / "damaged.png").write_bytes(b"no image")
    return home


def rows(directory):
    with (directory / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def of_run(home):
    """The rows predicted by the run."""
    command = ["--mode=predict", f"--workdir={home}/run", f"--images={home}/photos"]
    assert cli.main([*command, f"--output={home}/of_run"]) == 0
    return rows(home / "of_run")


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_s_rows_are_those_of_the_run(format, home, of_run, tmp_path, capsys):
    shutil.copytree(home / format, tmp_path / "moved")  # no other files are needed
    command = [str(tmp_path / "moved"), str(home / "photos"), f"--output={tmp_path}/out"]
    assert predict.main(command) == 0
    printed = capsys.readouterr().out
    assert "12 images: " in printed
    assert "1 could not be read, such as damaged.png: image " in printed
    found = rows(tmp_path / "out")
    assert len(found) == len(of_run) == 12
    for row, expected in zip(found, of_run, strict=True):
        assert row.keys() == expected.keys()
        for column in ("file", "class", "problem", *(f"class_{i}" for i in range(1, 6))):
            assert row[column] == expected[column]
        for column, value in expected.items():
            if "confidence" in column and value:
                assert float(row[column]) == pytest.approx(float(value), abs=1e-4)
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"predictions.csv", "predictions.npz", "predictions.html"}
    with (
        np.load(home / "of_run" / "predictions.npz") as expected,
        np.load(tmp_path / "out" / "predictions.npz") as arrays,
    ):
        assert {*expected} - {*arrays} == {"features"}
        np.testing.assert_array_equal(arrays["predicted"], expected["predicted"])
        for name in ("probabilities", "confidence", "raw_confidence", "margin", "entropy"):
            np.testing.assert_allclose(arrays[name], expected[name], atol=1e-4, err_msg=name)


def test_the_library_says_the_same_and_the_temperature_matters(home, of_run):
    read = [row for row in of_run if not row["problem"]]
    model = trained.load(home / "run")
    files = [home / "photos" / row["file"] for row in read]
    probabilities = model.predict_proba(files)
    assert model.predict(files).tolist() == [row["class"] for row in read]
    confidence = [float(row["confidence"]) for row in read]
    np.testing.assert_allclose(probabilities.max(axis=1), confidence, atol=1e-4)
    raw = [float(row["raw_confidence"]) for row in read]
    assert np.min(np.abs(np.array(confidence) - raw)) > 1e-3


@pytest.mark.slow
def test_it_is_a_command_that_needs_the_export_alone(home, tmp_path):
    shutil.copytree(home / "onnx", tmp_path / "onnx")
    np.savez(tmp_path / "x.npz", np.zeros((70, 16, 16, 3), np.uint8))
    command = [sys.executable, "-m", "ssljax.export.predict", "onnx", "x.npz"]
    environment = os.environ | NO_KERAS | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("wrote predictions/predictions.csv, .npz and .html\n")
    assert [row["file"] for row in rows(tmp_path / "predictions")] == [*map(str, range(70))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["onnx"], "the following arguments are required: IMAGES; --help says more"),
        (["onnx", "photos", "--outptu=x"], "unrecognized arguments: --outptu=x"),
        (["nothing", "photos"], "nothing holds no exported model; allowed: what --mode=export"),
        (["old", "photos"], "preprocess.json cannot be read"),
        (["changed", "photos"], "model.onnx has changed since it was written"),
        (["missing", "photos"], "labels.txt is missing, which SHA256SUMS names"),
        (["fewer", "photos"], "labels.txt has 3 lines; allowed: 10, one per class"),
        (["onnx", "none"], "IMAGES=none: no image found; allowed: a folder, a file"),
        (["onnx", "wrong.npz"], "IMAGES=wrong.npz: uint8 [2, 8, 8, 3]; allowed: uint8 [N, 16"),
        (["onnx", "damaged.png"], "damaged.png: none of 1 images could be read, such as dama"),
        (["onnx", "photos", "--output=full"], "--output full is not empty; --overwrite repl"),
        (["onnx", "photos", "--output=run", "--overwrite"], "holds the run"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(arguments, message, home, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("onnx", "photos", "run"):
        shutil.copytree(home / name, tmp_path / name)
    for name in ("old", "changed", "missing", "fewer"):
        shutil.copytree(home / "onnx", tmp_path / name)
    (tmp_path / "old" / "preprocess.json").unlink()
    with (tmp_path / "changed" / "model.onnx").open("ab") as file:
        file.write(b"more")
    (tmp_path / "missing" / "labels.txt").unlink()
    (tmp_path / "fewer" / "labels.txt").write_text("a\nb\nc\n")
    (tmp_path / "fewer" / "SHA256SUMS").unlink()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("dear")
    (tmp_path / "damaged.png").write_bytes(b"no image")
    np.savez(tmp_path / "wrong.npz", np.zeros((2, 8, 8, 3), np.uint8))
    before = sorted(tmp_path.rglob("*"))
    assert predict.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_ctrl_c_leaves_nothing_half_written(home, tmp_path, capsys, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("dear")
    real, left = sources.images.read, [signal.SIGINT]

    def interrupted(path):
        if left:
            os.kill(os.getpid(), left.pop())
        return real(path)

    monkeypatch.setattr(sources.images, "read", interrupted)
    command = [str(home / "onnx"), str(home / "photos"), f"--output={tmp_path}/out", "--overwrite"]
    assert predict.main(command) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "SIGINT: there was nothing to save\n"
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]
