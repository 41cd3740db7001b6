"""Tests `--mode=probe` on digits, with features of a random network."""

import csv
import json

import numpy as np
import pytest

from helpers.command import refused
from ssljax import cli
from ssljax.data.load import load
from ssljax.probe import command, measure
from ssljax.report import report


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The command, without its workdir."""
    cache = tmp_path_factory.mktemp("features")
    return [
        "--mode=probe", "--config=supervised_digits", "--config.model=convnet",
        "--config.model_args.scales=1", f"--config.feature_cache={cache}",
    ]  # fmt: skip


def test_it_prints_a_table_and_a_sentence_and_writes_both(
    run, tmp_path, capsys, caplog, monkeypatch
):
    monkeypatch.setattr(measure, "_BOUND", 150)  # more take a minute
    workdir = tmp_path / "probe"
    assert cli.main([*run, f"--workdir={workdir}", "--label_counts=40,100", "--sets=2"]) == 0
    printed = capsys.readouterr().out
    assert "errors in % on test images, mean ± standard deviation over 2 sets" in printed
    assert "With 40 labels the linear probe has an error of" in printed
    assert "config.init_from is '': the features are those of a random network" in caplog.text
    record = json.loads((workdir / "probe.json").read_text())
    assert record["dataset"] == "digits"
    assert record["verdict"] in printed
    assert {row["labels"] for row in record["rows"]} == {40, 100}
    (probe,) = [r for r in record["rows"] if r["labels"] == 100 and r["method"] == "linear probe"]
    assert probe["mean"] == pytest.approx(np.mean(probe["errors"]))
    assert probe["mean"] < 50  # with ten classes
    with (workdir / "probe.csv").open() as file:
        table = list(csv.DictReader(file))
    assert len(table) == 6
    assert float(table[3]["error_mean"]) == pytest.approx(probe["mean"])

    # It is the first row of a report.
    run_directory(tmp_path / "run")
    text = report.write([tmp_path], tmp_path)
    first = text.splitlines()[1].split("  ")
    assert first[0] == "linear probe"
    assert "probe of convnet" in text
    (row, *_) = csv.DictReader((tmp_path / "report.csv").read_text().splitlines())
    assert (row["method"], row["labels"], row["status"]) == ("linear probe", "40", "probe")


def test_labels_of_validation_images_are_used_where_there_are_test_images():
    """The labelled sets are then those that the data set's names have."""
    data, split = load("digits.1@40-100", unlabeled="exclude_labeled")
    found = command._images(data, split, None)
    assert found.part == "test"
    np.testing.assert_array_equal(found.labels, data.labels)

    data = data._replace(test_images=data.test_images[:0], test_labels=data.test_labels[:0])
    found = command._images(data, split, None)
    assert found.part == "validation"
    np.testing.assert_array_equal(np.flatnonzero(found.labels < 0), np.sort(split.valid))
    np.testing.assert_array_equal(found.asked_labels, data.labels[split.valid])


def run_directory(path):
    from helpers.run_directories import make

    make(path)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--label_counts=40,many"], "--label_counts=40,many; allowed: numbers of labelled images"),
        (["--label_counts=5"], "labels is 5; allowed: from 10 to"),
        (["--sets=0"], "sets"),
        (["--config.init_from=gone.safetensors"], "config.init_from gone.safetensors is not there"),
        (["--config.model_args.filters=0"], "filters is 0; allowed: from 1"),
    ],
)
def test_what_does_not_fit_is_one_line(run, more, message, tmp_path, capsys):
    run = [flag for flag in run if "scales" not in flag]  # cnn13 has none
    assert message in refused(capsys, *run, *more, f"--workdir={tmp_path / 'out'}")
    assert not (tmp_path / "out").exists()


def test_a_run_s_directory_and_somebody_s_own_files_are_left_alone(run, tmp_path, capsys):
    run_directory(tmp_path / "run")
    said = refused(capsys, *run, f"--workdir={tmp_path}/run")
    assert "holds a run; --mode=probe needs another" in said
    (tmp_path / "probe.csv").write_text("mine")
    assert "probe.csv exists already and is not from a probe" in refused(
        capsys, *run, f"--workdir={tmp_path}"
    )
