"""Tests that the benchmarks run; their measurements are not checked."""

import json
import sys

import numpy as np
import pytest

import ssljax.methods
from benchmarks import first_picture, gpu_checks, methods, predict, tfrecords_npz, train
from helpers import run_directories, tfds_data
from ssljax import overrides, recipe
from ssljax.lookup import modules_of
from ssljax.run import loop


@pytest.mark.slow
def test_train_takes_any_override_and_counts_arithmetic(monkeypatch, capsys):
    flags = [
        "--config=fixmatch_digits", "--config.model_args.filters=4", "--config.model_args.scales=1",
        "--config.batch_size=4", "--steps=1", "--json",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["train", *flags])
    train.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["images_per_step"] == 4 * 15
    assert found["flop_per_step"] > 1e6
    assert found["share_of_peak"] > 0


@pytest.mark.parametrize("files", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_predict_is_measured_beside_the_evaluation_step(files, monkeypatch, capsys):
    flags = ["--images=40", "--few=8", "--turns=2", "--filters=2", "--json"]
    monkeypatch.setattr(sys, "argv", ["predict", *flags, *(["--files"] if files else [])])
    monkeypatch.setattr(predict, "memory", lambda place, args: len(place))  # other processes'
    predict.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["of"] == ("PNG files" if files else "an .npz")
    assert len(found["ratio"]) == len(found["predict_images_per_second"]) == 2
    assert all(ratio > 0 for ratio in found["ratio"])
    assert {*found["peak_memory_bytes"]} == {"8", "40"}
    predict.describe(found | {"peak_memory_bytes": {8: 1}})


@pytest.mark.slow
def test_methods_stand_beside_each_other_the_best_one_first(tmp_path, monkeypatch, capsys):
    flags = [
        "--table=uneven", "--sets=2", "--jobs=2", f"--workdir={tmp_path}", "--config.num_steps=2",
        "--config.eval_every=2", "--config.model_args.filters=4",
    ]  # fmt: skip

    def printed(*more):
        monkeypatch.setattr(sys, "argv", ["methods", *flags, *more])
        methods.main()
        lines = capsys.readouterr().out.splitlines()
        assert (tmp_path / "uneven.md").read_text().splitlines() == lines
        return lines

    head, _, row = printed("--methods=crest+")
    assert head == "| method | accuracy % | balanced accuracy % |"
    _, _, *rows = printed("--methods=supervised")
    assert row in rows
    found = [float(line.split("|")[3].split("±")[0]) for line in rows]
    assert len(rows) == 2
    assert found == sorted(found, reverse=True)
    # Completed work is not repeated.
    monkeypatch.setattr(methods.subprocess, "call", lambda *args, **kwargs: 1)
    assert printed("--methods=supervised,crest+")[2:] == rows
    with pytest.raises(RuntimeError, match="abc/1 ended with exit code 1"):
        printed("--methods=abc")


def test_a_row_that_is_not_there_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["methods", f"--workdir={tmp_path}", "--methods=abc,fix"])
    with pytest.raises(SystemExit):
        methods.main()
    assert "--methods has fix; allowed: supervised, abc, adamatch" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_cost_of_a_step_is_compared_with_another_checkout(monkeypatch, capsys):
    flags = ["--table=cost", f"--before={methods.ROOT}", "--methods=fixmatch", "--turns=1"]
    monkeypatch.setattr(sys, "argv", ["methods", *flags, "--steps=3"])
    methods.main()
    head, _, row = capsys.readouterr().out.splitlines()
    assert head == "| method | ms per step before | now | now / before |"
    name, before, now, ratio = (cell.strip() for cell in row.split("|")[1:-1])
    assert name == "`fixmatch`"
    assert float(ratio) == pytest.approx(float(now) / float(before), abs=2e-3)


def test_every_method_has_a_row(tmp_path):
    names = {x.__name__.rpartition(".")[2] for x in modules_of(ssljax.methods, without=["method"])}
    assert {row.method for row in methods.Table("digits", tmp_path, 5, ()).rows()} == names


@pytest.mark.slow
def test_runs_are_compared_bit_by_bit(config, tmp_path):
    config.num_steps = config.eval_every = 1
    for name, seed in (("a", 0), ("b", 1)):
        config.seed = seed
        loop.train(recipe.build(config), tmp_path / name)
    a, b = (str(tmp_path / name) for name in "ab")
    same, different = gpu_checks.runs([a, a]), gpu_checks.runs([a, b])
    assert (same["step"], same["different"], same["apart"]) == (1, 0, 0)
    assert different["different"] > 5
    assert different["apart"] > 0.1


def test_prepared_images_are_read_without_tensorflow(tmp_path):
    import tensorflow_datasets as tfds

    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(32, 32, 3)),
        "label": tfds.features.ClassLabel(num_classes=200),
    }

    def examples(split, numbers):
        return [
            {"id": f"{split}_{i:05}", "image": tfds_data.picture(i), "label": i} for i in numbers
        ]

    splits = {"train": examples("train", range(150)), "test": examples("test", range(150, 160))}
    tfds_data.prepare(tmp_path, "numbered", "1.0.0", features, splits)
    for split, numbers in (("train", range(150)), ("test", range(150, 160))):
        images, labels = tfrecords_npz.read(tmp_path / "numbered" / "1.0.0", split)
        np.testing.assert_array_equal(images, [tfds_data.picture(i) for i in numbers])
        np.testing.assert_array_equal(labels, numbers)


def test_the_first_picture_has_the_means_over_the_runs(tmp_path):
    for seed in (1, 2):
        run_directories.make(tmp_path / f"runs/{seed}", seed=seed, evaluations=3)
    picture, data = tmp_path / "picture.svg", tmp_path / "data.csv"
    files = [f"--output={picture}", f"--data={data}"]
    first_picture.main([f"--workdir={tmp_path / 'runs'}", *files])
    head, *lines = data.read_text().splitlines()
    assert head == "method,step,test_error_percent,standard_deviation"
    rows = [
        [
            json.loads(line)
            for line in (tmp_path / f"runs/{seed}/metrics.jsonl").read_text().split("\n")[:3]
        ]
        for seed in (1, 2)
    ]
    for i, line in enumerate(lines):
        errors = [100 * (1 - run[i]["test/accuracy_ema"]) for run in rows]
        expected = f"{np.mean(errors):.2f},{np.std(errors, ddof=1):.2f}"
        assert line == f"fixmatch,{10 * (i + 1)},{expected}"
    drawn = picture.read_bytes()
    first_picture.main(files)  # from the numbers alone
    assert picture.read_bytes() == drawn


def test_the_first_picture_names_the_batches_of_the_recipes():
    for method, size in first_picture._BATCHES.items():
        assert overrides.load(f"{method}_digits").batch_size == size


def test_the_first_picture_is_drawn_from_the_numbers_beside_it():
    rows = (first_picture.DOCS / "results/digits_test_error.csv").read_text().splitlines()[1:]
    assert len(rows) == 150
    last = {row.split(",")[0]: row.split(",")[2:] for row in rows if ",2000," in row}
    table = (first_picture.DOCS / "results.md").read_text()
    for method, (mean, std) in last.items():  # the table's last column
        assert any(
            line.startswith(f"| {method} | 40 | 3 |") and line.endswith(f"| {mean} ± {std} |")
            for line in table.splitlines()
        )
