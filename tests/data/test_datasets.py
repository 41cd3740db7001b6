"""Tests data sets against their sources."""

import numpy as np
import pytest

from ssljax.data import datasets
from ssljax.data.datasets import digits


@pytest.fixture(scope="module")
def originals():
    """Images `[1797, 64]`, 0..16, and labels; the import takes more than a second."""
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def test_digits_have_the_documented_sizes_and_types():
    data = digits()
    assert data.images.shape == (1437, 8, 8, 1)
    assert data.test_images.shape == (360, 8, 8, 1)
    assert data.images.dtype == data.test_images.dtype == np.uint8
    assert data.labels.shape == (1437,)
    assert data.test_labels.shape == (360,)
    assert data.labels.dtype == data.test_labels.dtype == np.int64
    assert data.num_classes == 10


def test_digits_are_scikit_learns_images_each_once(originals):
    data = digits()
    images, labels = originals
    ours = np.concatenate([data.images, data.test_images]).reshape(-1, 64)
    # 0..16 is scaled to 0..255 without loss: rounding back gives scikit-learn's levels.
    assert ours.min() == 0
    assert ours.max() == 255
    levels = np.round(ours * (16 / 255))
    np.testing.assert_array_equal(np.round(levels * (255 / 16)), ours)
    rows = np.column_stack([levels, np.concatenate([data.labels, data.test_labels])])
    expected = np.column_stack([images, labels])
    assert sorted(map(tuple, rows)) == sorted(map(tuple, expected))


def test_digits_for_training_are_in_original_order(originals):
    data = digits()
    images, _ = originals
    position = {row.tobytes(): i for i, row in enumerate(images.astype(np.uint8))}
    levels = np.round(data.images.reshape(-1, 64) * (16 / 255)).astype(np.uint8)
    found = [position[row.tobytes()] for row in levels]
    assert found == sorted(found)


def test_every_digit_has_its_share_of_the_test_images():
    data = digits()
    tested = np.bincount(data.test_labels, minlength=10)
    counts = np.bincount(data.labels, minlength=10) + tested
    assert np.abs(tested - counts * 360 / 1797).max() < 1


def test_digits_are_the_same_at_every_call():
    for first, second in zip(digits(), digits(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_an_open_set_knows_some_classes_and_tests_these_alone():
    whole, known = digits(), datasets.digits_open()
    assert known.class_names == ("2", "3", "4", "5", "6", "7")
    np.testing.assert_array_equal(known.images, whole.images)
    foreign = (whole.labels < 2) | (whole.labels > 7)
    np.testing.assert_array_equal(known.labels, np.where(foreign, -1, whole.labels - 2))
    kept = (whole.test_labels >= 2) & (whole.test_labels <= 7)
    np.testing.assert_array_equal(known.test_images, whole.test_images[kept])
    np.testing.assert_array_equal(known.test_labels, whole.test_labels[kept] - 2)


def test_cifar_100_s_open_sets_have_five_classes_of_each_superclass(monkeypatch):
    assert np.bincount(datasets._SUPERCLASSES).tolist() == [5] * 20
    labels = np.arange(100).repeat(2)
    images = np.zeros((200, 2, 2, 3), np.uint8)
    names = tuple(f"class {c}" for c in range(100))
    monkeypatch.setattr(
        datasets,
        "cifar100",
        lambda data_dir: datasets.Dataset(images, labels, images, labels, 100, names),
    )
    for known, function in (
        (20, datasets.cifar100_open20), (50, datasets.cifar100_open50),
        (80, datasets.cifar100_open80),
    ):  # fmt: skip
        data = function("")
        assert data.num_classes == len(data.class_names) == known
        assert (data.labels >= 0).sum() == len(data.test_labels) == 2 * known
        assert np.unique(data.test_labels).tolist() == list(range(known))
        # Apple is in superclass 4, fruit and vegetables; bed, class 5, is in superclass 6.
        assert ("class 0" in data.class_names) == (known > 20)
