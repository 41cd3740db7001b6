"""Tests the way from a folder of photos to labels on the command line: `docs/photos.md`."""

import csv
import json
import os
import shutil
import signal

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from helpers.run_directories import untrained
from helpers.tiny import TINY_PHOTOS
from ssljax import cli, overrides, recipe, trained
from ssljax.inference import foreign, predict, sheet


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder of photos of three classes, and a run on it."""
    home = tmp_path_factory.mktemp("home")
    random = np.random.default_rng(0)
    for part, count in {
        "train/cat": 12, "train/dog, or =so": 12, "train/ünï": 12, "unlabeled/deep": 20,
        "test/cat": 5, "test/ünï": 5,
    }.items():  # fmt: skip
        (home / "photos" / part).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 256, (9 + i % 3, 10, 3), np.uint8)
            Image.fromarray(pixels).save(home / "photos" / part / f"{i}, {part[-1]}.png")
    assert cli.main([*flags(home), f"--workdir={home}/run"]) == 0
    shutil.copytree(home / "run", home / "run0", ignore=shutil.ignore_patterns("[0-9]*"))
    np.savez(home / "grey.npz", np.zeros((2, 8, 8, 1), np.uint8))
    (home / "bad").mkdir()
    (home / "bad" / "bad.png").write_bytes(b"no image")
    return home


def flags(home):
    return ["--config=photos", f"--config.dataset=folder:{home}/photos.1@18-9", *TINY_PHOTOS]


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_pool_is_predicted_and_the_rows_are_those_of_the_model(home, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["--mode=predict", f"--workdir={home}/run", "--images=unlabeled", f"--output={out}"]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    found = rows(out / "predictions.csv")
    # Of 36 labelled photos, 18 are labelled images and 9 are for validation; 20 have no label.
    assert len(found) == 36 - 18 - 9 + 20
    assert "29 images: " in printed
    assert "adjusted" not in printed
    assert "with a known label are right" in printed
    model = trained.load(home / "run")
    assert model.calibration["on"] == "labelled"
    files = {row["file"]: row for row in found}
    name = next(name for name in files if name.startswith("unlabeled/deep"))
    from_folder = tmp_path / "folder"
    command[2:] = [f"--images={home}/photos/unlabeled", f"--output={from_folder}"]
    assert cli.main(command) == 0
    again = {row["file"]: row for row in rows(from_folder / "predictions.csv")}
    assert len(again) == 20
    row = again[name.removeprefix("unlabeled/")]
    assert row["class"] == files[name]["class"]
    assert float(row["confidence"]) == pytest.approx(float(files[name]["confidence"]), abs=1e-4)

    assert cli.main(command) == 2  # it exists already
    assert "is not empty; --overwrite replaces it" in capsys.readouterr().err
    assert cli.main([*command, "--overwrite", "--logit_adjustment=2"]) == 0
    printed = capsys.readouterr().out
    assert "adjusted by τ = 2 for the shares of the classes among the labelled images" in printed
    # All classes have six labels, so that nothing changes.
    classes = [row["class"] for row in again.values()]
    assert [row["class"] for row in rows(from_folder / "predictions.csv")] == classes


def test_the_weights_are_those_that_are_asked_for(home, tmp_path, capsys):
    command = ["--mode=predict", f"--workdir={home}/run", f"--images={home}/photos/test"]
    found = {}
    for weights in ("ema", "raw"):
        out = tmp_path / weights
        assert cli.main([*command, f"--weights={weights}", f"--output={out}"]) == 0
        told = "confidences are not calibrated" in capsys.readouterr().out
        assert told == (weights == "raw")  # the temperature belongs to the averaged weights
        model = trained.load(home / "run", weights=weights)
        found[weights] = [float(row["confidence"]) for row in rows(out / "predictions.csv")]
        expected = model.predict_proba(home / "photos" / "test").max(axis=1)
        np.testing.assert_allclose(found[weights], expected, atol=1e-5)
    assert np.abs(np.subtract(found["ema"], found["raw"])).max() > 1e-4


def test_a_bar_counts_all_images_in_batches_that_may_be_small(home, tmp_path, monkeypatch):
    bars = []

    class Bar(tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options | {"disable": False})
            self.counts = []
            bars.append(self)

        def update(self, n=1):
            self.counts.append(n)
            return super().update(n)

    monkeypatch.setattr(predict, "tqdm", Bar)
    command = ["--mode=predict", f"--workdir={home}/run", f"--images={home}/photos"]
    small = "--config.eval_batch_size=4"
    assert cli.main([*command, small, f"--output={tmp_path}/small"]) == 0
    assert cli.main([*command, f"--output={tmp_path}/large"]) == 0
    (small, large) = bars
    assert (small.n, small.total) == (large.n, large.total) == (66, 66)
    assert (len(small.counts), len(large.counts)) == (17, 1)
    one, other = (rows(tmp_path / name / "predictions.csv") for name in ("small", "large"))
    assert [row["file"] for row in one] == [row["file"] for row in other]
    confidence = [[float(row["confidence"]) for row in found] for found in (one, other)]
    np.testing.assert_allclose(*confidence, atol=1e-5)


@pytest.mark.slow
def test_a_stream_s_run_crops_the_images_that_it_predicts(home, tmp_path, capsys):
    config = overrides.load(
        "photos",
        [
            *(x.removeprefix("--config.") for x in TINY_PHOTOS),
            f"dataset=folder:{home}/photos.1@18-9", "stream=true",
        ],
    )  # fmt: skip
    run = untrained(recipe.build(config), tmp_path / "run", step=4)
    shutil.copytree(home / "photos" / "unlabeled", tmp_path / "photos")
    (tmp_path / "photos" / "damaged.jpg").write_bytes(b"no image")
    command = ["--mode=predict", f"--workdir={run}", "--config.eval_batch_size=8"]
    for images in ("unlabeled", tmp_path / "photos"):
        out = f"--output={tmp_path}/{str(images).rpartition('/')[2]}.out"
        assert cli.main([*command, f"--images={images}", out]) == 0
    own = {row["file"]: row for row in rows(tmp_path / "unlabeled.out" / "predictions.csv")}
    given = rows(tmp_path / "photos.out" / "predictions.csv")
    assert (len(own), len(given)) == (29, 21)
    assert "damaged.jpg cannot be decoded: cannot identify" in capsys.readouterr().out
    for row in given:
        if row["file"] != "damaged.jpg":
            assert row == own[f"unlabeled/{row['file']}"] | {"file": row["file"]}
    assert next(row for row in given if row["problem"])["file"] == "damaged.jpg"
    classes = trained.load(run).predict(tmp_path / "photos" / "deep").tolist()
    assert classes == [row["class"] for row in given if not row["problem"]]


def test_ctrl_c_leaves_no_half_written_file(home, tmp_path, capsys, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("dear")
    written = []

    def interrupted(self, *args):
        written.extend(path.name for path in tmp_path.glob(".*/*"))
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(sheet.Extremes, "add", interrupted)
    command = ["--mode=predict", f"--workdir={home}/run", "--images=unlabeled"]
    assert cli.main([*command, f"--output={tmp_path}/out", "--overwrite"]) == 128 + signal.SIGINT
    assert capsys.readouterr().err == "SIGINT: there was nothing to save\n"
    assert "predictions.csv" in written
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine"]


def test_labels_go_round_from_the_run_to_a_run_with_more(home, tmp_path, capsys):
    out = tmp_path / "next"
    command = ["--mode=label_next", f"--workdir={home}/run", "--budget=6", f"--output={out}"]
    assert cli.main(command) == 0
    assert "6 images to label next" in capsys.readouterr().out
    found = rows(out / "label_next.csv")
    assert all(row["prediction"] for row in found)
    for row, label in zip(found, ["cat", "ünï", "dog, or =so", "cat", "", "cat"], strict=True):
        row["label"] = label
    answers = tmp_path / "answers.csv"
    with answers.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, found[0].keys())
        writer.writeheader()
        writer.writerows(found)
    split = tmp_path / "more.json"
    command = ["--mode=add_labels", f"--workdir={home}/run", f"--labels={answers}"]
    assert cli.main([*command, f"--output={split}"]) == 0
    assert "5 new labels (3 cat, 1 dog, or =so, 1 ünï), 23 in all" in capsys.readouterr().out
    record = json.loads(split.read_text())
    assert len(record["labeled"]) == 23
    assert record["parent"] == json.loads((home / "run" / "split.json").read_text())["hash"]

    more = [*flags(home), f"--config.split_file={split}", f"--workdir={tmp_path}/more"]
    assert cli.main(more) == 0
    assert "23 labelled" in capsys.readouterr().out
    # The run directory contains all that the run needs.
    split.unlink()
    assert cli.main(["--mode=eval", f"--workdir={tmp_path}/more"]) == 0
    kept = json.loads((tmp_path / "more" / "split.json").read_text())
    assert kept["labels"] == record["labels"]


def test_labels_that_predictions_contradict_are_listed(home, tmp_path, capsys):
    out = tmp_path / "errors"
    command = ["--mode=label_errors", f"--workdir={home}/run", f"--output={out}"]
    assert cli.main([*command, "--weights=raw"]) == 0
    lines = capsys.readouterr().out.splitlines()
    found = rows(out / "label_errors.csv")
    wrong = [row for row in found if row["given_label"] != row["predicted_label"]]
    assert len(found) == 18 + 9
    assert f"predicted out of fold: {len(wrong)} labels are contradicted" in "".join(lines)
    assert any(
        line.startswith(f"  {wrong[0]['file']}: {wrong[0]['given_label']}") for line in lines
    )
    assert (out / "label_errors.html").exists()
    assert cli.main(command) == 2  # it exists already
    assert "is not empty; --overwrite replaces it" in capsys.readouterr().err


def test_without_a_run_a_recipe_will_do(home, tmp_path, capsys):
    command = ["--mode=label_next", *flags(home), "--budget=4", f"--output={tmp_path}/next"]
    assert cli.main(command) == 0
    assert {row["prediction"] for row in rows(tmp_path / "next" / "label_next.csv")} == {""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode=predict", "--workdir={run}"], "--images is missing"),
        (["--mode=predict", "--workdir={run}", "--images={tmp}/none"], "no image found"),
        (["--mode=predict", "--workdir={tmp}", "--images=test"], "config.json cannot be read"),
        (["--mode=predict", "--workdir={run}0", "--images=test"], "holds no checkpoint yet"),
        (["--mode=predict", "--workdir={run}", "--images=tset"], "an .npz, unlabeled or test"),
        (
            ["--mode=predict", "--workdir={run}", "--images={run}/../grey.npz"],
            "grey.npz: uint8 [2, 8, 8, 1]; allowed: uint8 [N, 8, 8, 3]",
        ),
        (
            ["--mode=predict", "--workdir={run}", "--images={run}/../bad"],
            "none of 1 images could be read, such as bad.png: image ",
        ),
        *(
            (
                ["--mode=predict", "--workdir={run}", "--images=test", f"--max_error={value}"],
                f"--max_error={value}; allowed: above 0 and below 1",
            )
            for value in ("0.0", "1.0", "-0.1", "nan")
        ),
        (
            ["--mode=predict", "--workdir={run}", "--images=test", "--output={run}"],
            "--output {run} is not empty",
        ),
        (
            ["--mode=predict", "--workdir={run}", "--images=test", "--config.num_steps=9"],
            "--config.num_steps=9: the recipe is that of",
        ),
        (
            ["--mode=predict", "--workdir={run}", "--images=test", "--max_error=0.1"],
            "needs 50 validation images",
        ),
        (
            [
                "--mode=predict",
                "--workdir={run}",
                "--images=test",
                "--max_error=0.1",
                "--logit_adjustment=1",
            ],
            "--max_error=0.1 and --logit_adjustment=1.0 are given; allowed: one of them",
        ),
        (
            ["--mode=predict", "--workdir={run}", "--images=test", "--logit_adjustment=-1"],
            "logit_adjustment is -1.0; allowed: from 0 up",
        ),
        (
            ["--logit_adjustment=1", "--config=photos"],
            "allowed: --mode=predict, or --config.logit_adjustment",
        ),
        (["--mode=label_next", "--workdir={run}", "--budget=1000"], "allowed: 1 to 29"),
        (["--mode=label_errors"], "--workdir is missing"),
        (["--mode=label_errors", "--workdir={tmp}"], "config.json cannot be read"),
        (["--mode=label_errors", "--workdir={run}", "--budget=3"], "--budget is given with"),
        (["--mode=label_next", "--budget=3"], "needs --workdir or --config, one of them"),
        (
            ["--mode=add_labels", "--workdir={run}", "--labels={tmp}/x.csv", "--output={tmp}/s"],
            "x.csv cannot be read",
        ),
    ],
)
def test_what_cannot_be_done_is_one_line_and_nothing_is_written(
    arguments, message, home, tmp_path, capsys
):
    before = sorted(home.rglob("*"))
    filled = [x.format(run=home / "run", tmp=tmp_path) for x in arguments]
    assert cli.main(filled) == 2
    error = capsys.readouterr().err
    assert message.format(run=home / "run") in error
    assert error.count("\n") == 1
    assert sorted(home.rglob("*")) == before
    assert not list(tmp_path.iterdir())


def test_a_folder_that_has_moved_is_found_by_its_new_place(home, tmp_path):
    shutil.copytree(home / "photos", tmp_path / "moved")
    shutil.copytree(home / "run", tmp_path / "run")
    command = ["--mode=predict", f"--workdir={tmp_path}/run", "--images=test"]
    moved = f"--config.dataset=folder:{tmp_path}/moved.1@18-9"
    assert cli.main([*command, moved, f"--output={tmp_path}/out"]) == 0
    assert len(rows(tmp_path / "out" / "predictions.csv")) == 10


def test_foreign_images_of_the_pool_are_counted_where_there_is_validation(
    home, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(foreign, "ENOUGH", 9)
    command = ["--mode=predict", f"--workdir={home}/run", f"--output={tmp_path}/out"]
    assert cli.main([*command, "--images=unlabeled"]) == 0
    marks = [int(row["foreign"]) for row in rows(tmp_path / "out" / "predictions.csv")]
    assert f"foreign: {sum(marks)} of {len(marks)} are further from" in capsys.readouterr().out
    # Nothing is reported about other images.
    assert cli.main([*command, "--images=test", "--overwrite"]) == 0
    assert "foreign:" not in capsys.readouterr().out
    assert "foreign" not in rows(tmp_path / "out" / "predictions.csv")[0]
