import numpy as np
import pytest

from ssljax.data import check
from ssljax.data.datasets import Dataset
from ssljax.data.splits import Split


def dataset():
    """40 different training images of 3 classes, 10 test images, and a split."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (50, 12, 12, 3), np.uint8)
    labels = np.arange(50) % 3
    data = Dataset(
        images[:40].copy(), labels[:40], images[40:].copy(), labels[40:], 3, ("cat", "dog", "fox")
    )
    return data, Split(np.arange(18), np.arange(30), np.arange(30, 40))


def test_of_images_that_are_all_different_nothing_is_said():
    data, split = dataset()
    assert check.lines(data, split) == []


def test_equal_images_are_found_within_and_across_parts():
    data, split = dataset()
    data.images[20] = data.images[25]  # unlabelled
    data.images[0] = data.test_images[4]  # labelled and test
    data.images[31] = data.images[3]  # labelled and validation
    assert check.lines(data, split) == [
        "leak: 1 groups of equal images, labelled and test, such as labelled 0 = test 4",
        "leak: 1 groups of equal images, labelled and validation, such as labelled 3 = "
        "validation 31",
        "1 groups of equal images, unlabelled, such as unlabelled 20 = unlabelled 25",
        "2 groups of equal images have different labels, such as labelled 0 = test 4; labelled 3 "
        "= validation 31",
    ]


def test_nearly_equal_images_are_found():
    data, split = dataset()
    smooth = np.kron(np.arange(9).reshape(3, 3), np.ones((4, 4))).astype(np.uint8) * 25
    data.images[19] = smooth[..., None]
    data.images[22] = smooth[..., None] + 3
    data.images[23] = smooth[..., None] + 50  # the same edges in a different image
    found = check.duplicates(data, split)
    assert [(group.positions, group.exact) for group in found] == [((19, 22), False)]


def test_a_validation_image_that_is_a_labelled_one_is_no_duplicate():
    data, split = dataset()
    overlapping = split._replace(valid=np.arange(10, 40))
    assert check.lines(data, overlapping) == []


@pytest.mark.parametrize("channels", [1, 3])
def test_constant_images_are_named(channels):
    data, split = dataset()
    data = data._replace(
        images=data.images[..., :channels], test_images=data.test_images[..., :channels]
    )
    data.images[7] = 99
    assert check.lines(data, split) == ["1 training images are nearly constant, such as 7"]


def test_few_and_uneven_labels_are_named():
    data, split = dataset()
    labels = data.labels.copy()
    labels[:14], labels[14:17], labels[17:20] = 0, 1, 2
    assert check.lines(data._replace(labels=labels), split) == [
        "2 classes have fewer than 5 labelled images: dog (3), fox (1)",
        "the labels are uneven: 14 of cat, 1 of fox",
    ]
