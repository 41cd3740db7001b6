"""Tests that foreign images are found by their features, and none if there are none."""

import numpy as np
import pytest

from ssljax.inference import foreign


def features(random, directions, count):
    """Returns features near some of 8 directions."""
    centers = np.eye(8)[random.choice(directions, count)]
    return random.uniform(1, 3, (count, 1)) * (centers + 0.05 * random.standard_normal((count, 8)))


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_share_of_foreign_images_is_estimated(share):
    random = np.random.default_rng(0)
    kinds = [0, 1, 2]
    found = foreign.fit(*(features(random, kinds, n) for n in (30, 100)))
    others = round(1000 * share)
    pool = [features(random, kinds, 1000 - others), features(random, [5, 6], others)]
    marks = found.marks(np.concatenate(pool))
    assert found.share(int(marks.sum()), 1000) == pytest.approx(share, abs=0.05)
    assert marks[1000 - others :].all()
    assert marks[: 1000 - others].sum() < 100


def test_few_labelled_images_and_no_pool_will_do():
    random = np.random.default_rng(0)
    found = foreign.fit(features(random, [0], 2), features(random, [0], 5))
    assert found.marks(np.zeros((0, 8))).shape == (0,)
    assert found.share(0, 0) == 0
