"""Data sets against where they come from."""

import numpy as np
import pytest

from ssljax.data.datasets import digits


@pytest.fixture(scope="module")
def originals():
    """Images `[1797, 64]`, 0..16, and labels; its import takes more than a second."""
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
    # 0..16 is spread over 0..255, and nothing is lost: rounding back gives scikit-learn's levels.
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
