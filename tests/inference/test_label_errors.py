"""Tests the detection of labels that are probably wrong."""

import csv

import numpy as np
import pytest

from helpers.trained_models import model
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split
from ssljax.inference import calibration, label_errors
from ssljax.inference.table import readable
from ssljax.spreadsheet import original


def test_the_quality_of_a_label_by_hand():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1], [0.0, 0.0, 1.0]])
    found = label_errors.label_quality(probabilities, np.array([0, 1, 2]))
    np.testing.assert_allclose(found, [(0.7 - 0.2 + 1) / 2, (0.2 - 0.7 + 1) / 2, 1])


def test_confident_learning_by_hand():
    """The expected result is that of cleanlab 2.9 with filter_by="confident_learning"."""
    probabilities = np.array(
        [[0.9, 0.1, 0], [0.52, 0.48, 0], [0.3, 0.7, 0], [0.2, 0.8, 0], [0.9, 0.1, 0]]
    )
    labels = np.array([0, 0, 0, 1, 1])
    # Thresholds are 0.573 for class 0, the mean of 0.9, 0.52 and 0.3, and 0.45 for class 1. The
    # second image is confidently of class 1 only, but its prediction is the given class.
    assert label_errors.issues(probabilities, labels).tolist() == [False, False, True, False, True]


def clusters(counts, seed=0):
    """Returns features around one point per class, and the labels."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(len(counts)), counts)
    return 4 * np.eye(len(counts), 6)[labels] + random.normal(0, 0.3, (len(labels), 6)), labels


def test_a_wrong_label_is_contradicted_by_models_that_have_not_seen_it():
    features, labels = clusters([20, 20, 20])
    given = labels.copy()
    given[7], given[33] = 2, 0
    found = label_errors.out_of_fold(features, given, 4)
    np.testing.assert_allclose(found.sum(axis=-1), 1, rtol=1e-5)
    assert not found[:, 3].any()  # no image has class 3
    np.testing.assert_array_equal(np.flatnonzero(found.argmax(axis=-1) != given), [7, 33])
    assert np.flatnonzero(label_errors.issues(found, given)).tolist() == [7, 33]


@pytest.mark.filterwarnings("error")
def test_classes_with_fewer_images_than_folds_have_their_share_too():
    features, labels = clusters([9, 2, 1, 3])
    found = label_errors.out_of_fold(features, labels, 4)
    single = labels == 2
    assert np.isnan(found[single]).all()
    assert (found[~single].argmax(axis=-1) == labels[~single]).all()
    few = label_errors.out_of_fold(*clusters([2, 2]), 2)  # two folds
    assert np.isfinite(few).all()
    for counts in ([5], [1, 1, 1], [5, 1]):
        assert np.isnan(label_errors.out_of_fold(*clusters(counts), len(counts))).all()


NAMES = (
    "=1.png",
    "a, b.png",
    'c "d".png',
    "e\nf.png",
    "NA",
    "caf\udce9.png",
    "<b>.png",
    "日本.png",
)


@pytest.fixture(scope="module")
def found():
    """Images of the network's classes 0 to 4; class 4 has a single image."""
    trained = model("convnet")[0]
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (40, 32, 32, 3), np.uint8)
    labels = np.where(np.arange(40) < 25, np.arange(40) % 4, -1)
    labels[24] = 4
    files = (*NAMES, *(f"{i}.png" for i in range(len(NAMES), 40)))
    classes = ("-cat", "<i>dog</i>", *"23456789")
    data = Dataset(images, labels, images[:0], labels[:0], 10, classes, files=files)
    split = Split(np.arange(1, 25), np.arange(25, 40), np.array([0]))
    return trained, data, label_errors.find(trained, data, split)


def test_what_cannot_be_out_of_fold_is_the_model_s_own(found):
    trained, data, errors = found
    assert sorted(errors.numbers) == list(range(25))
    assert errors.numbers[errors.valid].tolist() == [0]
    assert errors.numbers[~errors.out_of_fold].tolist() == [24]
    np.testing.assert_array_equal(errors.labels, data.labels[errors.numbers])
    logits = np.asarray(trained.serve()(trained.variables, data.images[[24]])["logits"])
    own = errors.probabilities[~errors.out_of_fold]
    np.testing.assert_allclose(own, calibration.softmax(logits), atol=1e-5)
    quality = label_errors.label_quality(errors.probabilities, errors.labels)
    assert np.all(np.diff(quality) >= 0)  # the worst first


def test_the_table_reads_back_whatever_the_names_hold(found, tmp_path):
    _, data, errors = found
    label_errors.write(tmp_path, errors, data, weights="ema")
    with (tmp_path / "label_errors.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = [readable(data.files[number]) for number in errors.numbers]
    assert [original(row["file"]) for row in rows] == names
    assert not [row for row in rows for text in row.values() if text.startswith(("=", "-"))]
    for i, row in enumerate(rows):
        assert int(row["number"]) == errors.numbers[i]
        assert original(row["given_label"]) == data.class_names[errors.labels[i]]
        assert original(row["predicted_label"]) == data.class_names[errors.predicted[i]]
        own = errors.probabilities[i, errors.labels[i]]
        assert float(row["self_confidence"]) == pytest.approx(own, abs=1e-6)
        assert row["is_label_issue"] == str(bool(errors.issues[i]))
        assert row["prediction"] == ("ema" if errors.numbers[i] == 24 else "out-of-fold")
        assert row["part"] == ("validation" if errors.numbers[i] == 0 else "labelled")


def test_the_page_shows_what_is_contradicted_and_escapes_names(found, tmp_path):
    _, data, errors = found
    label_errors.write(tmp_path, errors, data, weights="ema")
    page = (tmp_path / "label_errors.html").read_text(encoding="utf-8")
    contradicted = np.flatnonzero(errors.predicted != errors.labels)
    assert page.count("<img ") == len(contradicted) > 3
    assert f"contradicts the labels of {len(contradicted)} of 25 images" in page
    assert "<i>" not in page
    assert "<b>" not in page
    assert "&lt;i&gt;dog" in page
