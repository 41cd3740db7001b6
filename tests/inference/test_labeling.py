"""Tests the selection of images to label next, and the import of labels."""

import csv
import dataclasses
import json

import jax
import numpy as np
import pytest

from helpers.trained_models import model
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split
from ssljax.errors import UsageError
from ssljax.inference import add_labels, calibration, label_next, selection

NAMES = tuple(f"{i} ü.png" for i in range(60))


@pytest.fixture(scope="module")
def trained():
    return model("convnet")[0]


@pytest.fixture(scope="module")
def data():
    """60 images: 10 labelled, 5 for validation, 45 without a label."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 32, 32, 3), np.uint8)
    labels = np.where(np.arange(60) < 15, np.arange(60) % 10, -1)
    names = tuple("0123456789")
    return Dataset(images, labels, images[:0], labels[:0], 10, names, files=NAMES)


SPLIT = Split(np.arange(10), np.arange(10, 60), np.arange(10, 15))


def test_the_pool_is_what_has_no_label_and_the_reasons_are_given(trained, data):
    choices = label_next.choose([trained], data, SPLIT, budget=7, strategy="margin")
    assert len({choice.number for choice in choices}) == 7
    assert min(choice.number for choice in choices) >= 15
    logits = np.asarray(trained.serve()(trained.variables, data.images[15:])["logits"])
    expected = 15 + selection.margin(calibration.softmax(logits), 7)
    assert [choice.number for choice in choices] == expected.tolist()
    first = choices[0]
    assert first.file == NAMES[first.number]
    assert first.why.startswith("the two likeliest classes differ by 0.")
    assert first.prediction == data.class_names[logits[first.number - 15].argmax()]


@pytest.mark.parametrize("strategy", ["typical", "coreset"])
def test_without_a_model_the_pixels_are_looked_at(strategy, data):
    choices = label_next.choose([], data, SPLIT, budget=5, strategy=strategy)
    assert len({choice.number for choice in choices}) == 5
    assert {choice.prediction for choice in choices} == {""}


def test_names_that_a_spreadsheet_would_compute_come_back(tmp_path):
    choices = [
        label_next.Choice(3, "=1+1.png", "why", "-cat", 0.5),
        label_next.Choice(4, "'@", "", "", 0.0),
    ]
    label_next.write(tmp_path, choices)
    path = tmp_path / "label_next.csv"
    rows = list(csv.reader(path.open(encoding="utf-8", newline="")))
    assert [rows[1][0], rows[1][2], rows[2][0]] == ["'=1+1.png", "'-cat", "''@"]
    path.write_text("file,label\n'=1+1.png,'-cat\n''@,dog\n")
    assert add_labels.read(path) == {"=1+1.png": {"-cat"}, "'@": {"dog"}}


def test_a_committee_is_of_models_that_differ(trained, data):
    moved = jax.tree.map(lambda x: x * 1.5, trained.variables)
    other = dataclasses.replace(trained, variables=moved)
    choices = label_next.choose([trained, other], data, SPLIT, budget=3, strategy="committee")
    assert all("the models disagree" in choice.why for choice in choices)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget": 46, "strategy": "margin"}, "budget=46; allowed: 1 to 45"),
        ({"budget": 0, "strategy": "margin"}, "budget=0; allowed: 1 to 45"),
        ({"budget": 3, "strategy": "best"}, "strategy=best; allowed: typical, margin"),
        ({"budget": 3, "strategy": "committee"}, "committee needs runs that differ"),
    ],
)
def test_what_cannot_be_chosen_is_one_line(options, message, trained, data):
    with pytest.raises(UsageError, match=message):
        label_next.choose([trained], data, SPLIT, **options)
    if options["strategy"] == "margin":
        with pytest.raises(UsageError):
            label_next.choose([], data, SPLIT, budget=3, strategy="margin")


def test_labels_go_out_as_a_csv_and_come_back(trained, data, tmp_path):
    choices = label_next.choose([trained], data, SPLIT, budget=4, strategy="entropy")
    label_next.write(tmp_path, choices)
    path = tmp_path / "label_next.csv"
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == [choice.file for choice in choices]
    for row, label in zip(rows, ["3", "", "5", "5"], strict=True):
        row["label"] = label
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    split, new = add_labels.add(data, SPLIT, add_labels.read(path))
    labeled = [choices[i].number for i in (0, 2, 3)]
    assert new == dict(zip(labeled, [3, 5, 5], strict=True))
    assert split.labeled.tolist() == sorted([*range(10), *labeled])


def test_label_studio_reads_the_tasks_and_its_answer_is_read(trained, data, tmp_path):
    choices = label_next.choose([trained], data, SPLIT, budget=2, strategy="entropy")
    label_next.write(tmp_path, choices)
    tasks = json.loads((tmp_path / "label_studio.json").read_text())
    assert tasks[0]["data"]["image"] == f"/data/local-files/?d={choices[0].number}%20%C3%BC.png"
    (result,) = tasks[0]["predictions"][0]["result"]
    assert result["value"] == {"choices": [choices[0].prediction]}
    for task in tasks:
        answer = [{**result, "value": {"choices": ["7"]}}]
        task["annotations"] = [{"result": answer, "was_cancelled": task is tasks[1]}]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(tasks))
    assert add_labels.read(path) == {choices[0].file: {"7"}}


def test_wrong_labels_are_one_line_for_each_kind(data):
    labels = {f"nowhere{i}.png": {"1"} for i in range(5)}
    labels |= {NAMES[20]: {"1", "2"}, NAMES[21]: {"cat"}, NAMES[11]: {"1"}, NAMES[3]: {"4"}}
    with pytest.raises(UsageError) as caught:
        add_labels.add(data, SPLIT, labels)
    text = str(caught.value)
    assert "\n" not in text
    for part in (
        "5 files that are not training images: nowhere0.png, nowhere1.png, nowhere2.png, …",
        f"1 images with several labels: {NAMES[20]}: 1, 2",
        f"1 classes that the run does not have: cat of {NAMES[21]} (allowed: 0, 1,",
        f"1 validation images, which must not be trained on: {NAMES[11]}",
        f"1 images that have another label already: {NAMES[3]}",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.csv", "image,label\na,b\n", "it has no column file"),
        ("x.csv", "file,label\na,\n", "holds no label"),
        ("x.json", "[1]", "cannot be read"),
        ("x.json", "{", "cannot be read"),
        ("missing.csv", None, "cannot be read"),
    ],
)
def test_a_file_that_holds_no_labels_is_one_line(name, text, message, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=message):
        add_labels.read(tmp_path / name)
