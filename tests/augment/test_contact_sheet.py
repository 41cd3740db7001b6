import jax
import numpy as np
import pytest

from ssljax.augment import augmentation, contact_sheet, policies

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 20, 20, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("strong", "rows", "columns"),
    [
        (augmentation.none, 0, 10),
        (augmentation.strong_digits, 7, 10),
        (augmentation.randaugment, 14, 10),
        (augmentation.ctaugment, 19, 17),
    ],
)
def test_views_and_operations_side_by_side(strong, rows, columns):
    chosen = strong(policies.weak_cifar, "cifar")
    sheet = contact_sheet.draw(jax.random.PRNGKey(0), IMAGES, chosen)
    side = 3 * 20 + 4  # enlarged to at least 48 pixels, and a gap
    assert sheet.shape == (16 + (2 + rows) * side, 96 + columns * side, 3)
    original = sheet[16:76:3, 96:156:3]
    np.testing.assert_array_equal(original, IMAGES[0])
    assert (sheet[16 + side - 4 : 16 + side, 96:] == 255).all()  # the gap


def test_one_channel_is_shown_in_grey():
    chosen = augmentation.none(policies.none, "cifar")
    sheet = contact_sheet.draw(jax.random.PRNGKey(0), IMAGES[..., :1], chosen)
    np.testing.assert_array_equal(sheet[16:76:3, 96:156:3], IMAGES[0, ..., :1].repeat(3, axis=2))
