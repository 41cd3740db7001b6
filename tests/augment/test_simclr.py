"""Tests SimCLR's view: the draws, and the pixels."""

import jax
import numpy as np
import pytest
from PIL import Image

from benchmarks import pillow_policies
from helpers.draws import is_uniform, keys, pictures
from ssljax.augment import policies, simclr

DRAWS = 50_000


@pytest.fixture(scope="module")
def drawn():
    return jax.device_get(jax.jit(lambda k: simclr.draw(k, 32, 32))(keys(DRAWS)))


def test_boxes_are_in_the_image_and_have_the_published_areas_and_ratios(drawn):
    height, width = drawn.height.astype(float), drawn.width.astype(float)
    assert (drawn.top >= 0).all()
    assert (drawn.top + drawn.height <= 32).all()
    assert (drawn.left >= 0).all()
    assert (drawn.left + drawn.width <= 32).all()
    area = height * width / 32**2
    assert 0.18 < area.min() < 0.22
    assert area.max() == 1
    ratio = np.log(width / height)
    assert abs(ratio).max() < np.log(4 / 3) + 0.1
    # Small boxes occur as often as drawn; large ones do not fit with every ratio.
    small = area[(area > 0.22) & (area < 0.5)]
    np.testing.assert_allclose(np.mean(small < 0.36), 0.5, atol=0.02)
    whole = drawn.top[(height == 20)]
    assert is_uniform(whole, 13)


def test_jitters_come_in_any_order_eight_times_in_ten(drawn):
    on = drawn.order[:, 0] >= 0
    np.testing.assert_allclose(on.mean(), 0.8, atol=0.01)
    assert (drawn.order[~on] == -1).all()
    orders = drawn.order[on] @ np.array([64, 16, 4, 1])
    _, numbers = np.unique(orders, return_inverse=True)
    assert is_uniform(numbers, 24)
    for name, factor in zip(simclr.STRENGTHS, drawn.factor.T, strict=True):
        low, high = (-0.1, 0.1) if name == "hue" else (0.6, 1.4)
        assert is_uniform(np.floor((factor - low) / (high - low) * 20).astype(int), 20)
    np.testing.assert_allclose((drawn.grey.mean(), drawn.flip.mean()), (0.2, 0.5), atol=0.01)


def test_an_image_that_no_box_fits_has_its_centre_cropped():
    """In 20×100 pixels, no box with an allowed ratio has a fifth of the area."""
    draws = jax.device_get(simclr.draw(keys(50), 20, 100))
    fits = draws.height < 20
    assert (draws.width[~fits] <= 27).all()
    centred = draws.top[draws.height == 20]
    assert (centred == 0).all()


def test_the_pixels_are_those_of_torchvision_on_pillow_s_images():
    images = pictures(300)
    draws = jax.device_get(simclr.draw(keys(len(images), seed=5), 32, 32))
    ours = np.asarray(jax.jit(simclr.apply)(images, draws)).astype(int)
    names, close = list(simclr.STRENGTHS), []
    for i, image in enumerate(images):
        expected = pillow_policies.simclr(
            image,
            [int(x[i]) for x in draws[:4]],
            flip=bool(draws.flip[i]),
            jitters=[(names[j], float(draws.factor[i, j])) for j in draws.order[i] if j >= 0],
            grey=bool(draws.grey[i]),
        )
        difference = abs(ours[i] - expected.astype(int))
        close.append(np.mean(difference <= 3))
    assert np.mean(close) > 0.985  # resized levels differ by up to 2, which a hue shift can amplify


def test_every_hue_is_turned_as_by_pillow():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    images[:, :8] = images[:, :8, :, :1]  # grey pixels, which have no hue
    images[:, 8:12] //= 32  # dark
    shift = rng.uniform(-0.1, 0.1, 40).astype(np.float32)
    ours = jax.jit(simclr.hue)(images, shift)
    theirs = [
        np.asarray(pillow_policies.adjust_hue(Image.fromarray(x), float(s)))
        for x, s in zip(images, shift, strict=True)
    ]
    difference = abs(np.asarray(ours).astype(int) - np.array(theirs).astype(int))
    assert np.mean(difference == 0) > 0.999
    unchanged = simclr.hue(images, np.zeros(40, np.float32))
    np.testing.assert_array_equal(unchanged, images)


@pytest.mark.slow
def test_one_channel():
    images = np.random.default_rng(0).integers(0, 256, (5, 9, 9, 1), dtype=np.uint8)
    assert policies.PLAIN["simclr"](keys(5), images).shape == images.shape
