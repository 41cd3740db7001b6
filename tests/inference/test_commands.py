"""From a folder of photos to labels, by the command line: `docs/photos.md`."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from helpers.tiny import TINY_PHOTOS
from ssljax import cli, trained


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
    assert cli.main([*recipe(home), f"--workdir={home}/run"]) == 0
    return home


def recipe(home):
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
    # 36 labelled photos, of which 18 are labelled images and 9 for validation; 20 have no label.
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

    assert cli.main(command) == 2  # it is there
    assert "is not empty; --overwrite replaces it" in capsys.readouterr().err
    assert cli.main([*command, "--overwrite", "--logit_adjustment=2"]) == 0
    printed = capsys.readouterr().out
    assert "adjusted by τ = 2 for the shares of the classes among the labelled images" in printed
    # All classes have six labels, so that nothing changes.
    classes = [row["class"] for row in again.values()]
    assert [row["class"] for row in rows(from_folder / "predictions.csv")] == classes


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

    more = [*recipe(home), f"--config.split_file={split}", f"--workdir={tmp_path}/more"]
    assert cli.main(more) == 0
    assert "23 labelled" in capsys.readouterr().out
    # The run directory has all that the run needs.
    split.unlink()
    assert cli.main(["--mode=eval", f"--workdir={tmp_path}/more"]) == 0
    kept = json.loads((tmp_path / "more" / "split.json").read_text())
    assert kept["labels"] == record["labels"]


def test_without_a_run_a_recipe_will_do(home, tmp_path, capsys):
    command = ["--mode=label_next", *recipe(home), "--budget=4", f"--output={tmp_path}/next"]
    assert cli.main(command) == 0
    assert {row["prediction"] for row in rows(tmp_path / "next" / "label_next.csv")} == {""}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mode=predict", "--workdir={run}"], "--images is missing"),
        (["--mode=predict", "--workdir={run}", "--images={tmp}/none"], "no image found"),
        (["--mode=predict", "--workdir={tmp}", "--images=test"], "config.json cannot be read"),
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
    assert message in error
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
