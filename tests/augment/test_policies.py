import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from benchmarks import pillow_policies
from ssljax.augment import policies


def keys(n):
    return jax.random.split(jax.random.PRNGKey(0), n)


@pytest.mark.parametrize(
    ("view", "pad", "flips"),
    [
        (policies.weak_cifar, 4, True),
        (policies.weak_svhn, 4, False),
        (policies.weak_stl10, 12, True),
        (policies.weak_photos, 4, True),  # for 32 pixels
    ],
)
def test_weak_views_are_all_flips_and_shifts_equally_often(view, pad, flips):
    side = 32  # much larger than the shifts: with reflection, two of them could look the same
    image = np.random.default_rng(0).integers(0, 256, (side, side, 3), dtype=np.uint8)
    kinds = {
        pillow_policies.weak(image, flip=flip, offset=(i, j), pad=pad).tobytes(): number
        for number, (flip, i, j) in enumerate(
            (flip, i, j)
            for flip in ([False, True] if flips else [False])
            for i in range(2 * pad + 1)
            for j in range(2 * pad + 1)
        )
    }
    images = np.asarray(jax.jit(view)(keys(5_000), jnp.tile(image, (5_000, 1, 1, 1))))
    counts = np.bincount([kinds[x.tobytes()] for x in images], minlength=len(kinds))
    assert len(counts) == len(kinds)
    assert stats.chisquare(counts).pvalue > 0.001


def test_images_from_above_are_turned_upside_down_too():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    images = np.asarray(policies.weak_eurosat(keys(4000), jnp.tile(image, (4000, 1, 1, 1))))
    # Among images that are not shifted, each of the four forms occurs in a quarter.
    forms = [x[::rows, ::columns] for x in (image,) for rows in (1, -1) for columns in (1, -1)]
    counts = [sum(np.array_equal(form, x) for x in images) for form in forms]
    assert min(counts) >= 4
    assert sum(counts) == pytest.approx(4000 / 81, abs=25)


@pytest.mark.parametrize(("view", "least"), [(policies.weak_cifar, 5), (policies.weak_stl10, 13)])
def test_images_that_are_too_small_for_a_shift_are_told_by_their_size(view, least):
    message = f"the images have 4×20 pixels; allowed for .*: from {least}×{least} up"
    with pytest.raises(ValueError, match=message):
        view(keys(3), np.zeros((3, 4, 20, 3), np.uint8))


def test_weak_views_work_on_one_channel_and_oblong_images():
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 31, 1), dtype=np.uint8)
    assert policies.weak_cifar(keys(3), images).shape == images.shape


def test_the_digits_magnitude_grid_goes_through_the_image_itself():
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1), dtype=np.uint8)
    for row in jax.jit(policies.digits_magnitude_grid)(image).values():
        np.testing.assert_array_equal(row[4], image[0])
        assert not np.array_equal(row[0], row[8])
