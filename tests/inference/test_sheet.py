"""Tests the selection of each class's most and least confident images."""

import numpy as np

from ssljax.data.sources import Loaded
from ssljax.inference import sheet


def test_the_extremes_of_all_batches_are_kept_and_no_batch_is():
    random = np.random.default_rng(0)
    predicted = random.integers(0, 3, 500)
    confidence = random.permutation(500) / 500
    pixels = np.arange(500, dtype=np.uint16).view(np.uint8).reshape(500, 1, 2, 1)
    extremes = sheet.Extremes(4)
    for first in range(0, 500, 64):
        rows = slice(first, first + 64)
        positions = np.arange(500)[rows]
        names = [str(i) for i in positions]
        loaded = Loaded(first, names, pixels[rows], positions, {})
        extremes.add(loaded, predicted[rows], confidence[rows])
    for c in range(3):
        order = sorted(np.flatnonzero(predicted == c), key=lambda i: -confidence[i])
        surest, least_sure = extremes.surest[c], extremes.least_sure[c]
        assert [item.name for item in surest] == [str(i) for i in order[:12]]
        assert [item.name for item in least_sure] == [str(i) for i in order[:-13:-1]]
        for item in surest + least_sure:
            assert item.image.base is None  # a view would keep its batch alive
            np.testing.assert_array_equal(item.image, pixels[int(item.name)])
            assert item.confidence == confidence[int(item.name)]
    assert extremes.surest[3] == extremes.least_sure[3] == []


def test_an_image_that_cannot_be_read_moves_no_name():
    extremes = sheet.Extremes(1)
    pixels = np.zeros((2, 1, 1, 1), np.uint8)
    loaded = Loaded(10, ["a", "bad", "c"], pixels, np.array([10, 12]), {11: "why"})
    extremes.add(loaded, np.array([0, 0]), np.array([0.5, 0.75]))
    assert [item.name for item in extremes.surest[0]] == ["c", "a"]
