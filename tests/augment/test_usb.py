"""Tests USB's RandAugment: the draws, and the pixels."""

import jax
import numpy as np
import pytest

from benchmarks import pillow_policies
from helpers.draws import is_uniform, keys, pictures
from ssljax.augment import usb

CIFAR = usb.SPACES["cifar"]


def test_operations_magnitudes_and_the_rectangle_are_uniform():
    draws = jax.device_get(jax.jit(lambda k: usb.draw(k, 14, 3))(keys(50_000)))
    assert draws.op.shape == draws.magnitude.shape == (50_000, 3)
    pairs = draws.op[:, 0] * 14 + draws.op[:, 2]
    assert is_uniform(pairs, 14 * 14)
    for drawn in (draws.magnitude[:, 1], draws.corner[:, 0], draws.corner[:, 1], draws.size):
        assert is_uniform(np.floor(drawn * 50).astype(int), 50)


def test_the_published_ranges():
    ranges = {op.name: (op.low, op.high) for op in CIFAR if op.low < op.high}
    assert ranges == {
        "brightness": (0.05, 0.95), "color": (0.05, 0.95), "contrast": (0.05, 0.95),
        "sharpness": (0.05, 0.95), "posterize": (4, 8), "rotate": (-30, 30),
        "shear_x": (-0.3, 0.3), "shear_y": (-0.3, 0.3), "solarize": (0, 256),
        "translate_x": (-0.3, 0.3), "translate_y": (-0.3, 0.3),
    }  # fmt: skip
    assert {op.name for op in CIFAR} - ranges.keys() == {"autocontrast", "equalize", "identity"}
    missing = {op.name for op in CIFAR} - {op.name for op in usb.SPACES["no_color"]}
    assert missing == {"autocontrast", "color", "contrast", "posterize", "solarize"}


def test_the_pixels_are_pillow_s():
    images = pictures(400)
    draws = jax.device_get(usb.draw(keys(len(images), seed=2), len(CIFAR), usb.LAYERS))
    ours = np.asarray(jax.jit(lambda x, d: usb.apply(x, d, CIFAR))(images, draws))
    equal = []
    for i, image in enumerate(images):
        picked = [
            (CIFAR[op].name, CIFAR[op].low, CIFAR[op].high, float(share))
            for op, share in zip(draws.op[i], draws.magnitude[i], strict=True)
        ]
        corner, size = map(float, draws.corner[i]), float(draws.size[i])
        expected = pillow_policies.randaugment_usb(image, picked, list(corner), size)
        equal.append(np.array_equal(ours[i], expected))
    # A float32 magnitude may move a pixel's source across a border, or round a level differently.
    assert np.mean(equal) > 0.97


def test_one_channel_and_oblong_images():
    images = np.random.default_rng(0).integers(0, 256, (6, 12, 20, 1), dtype=np.uint8)
    assert usb.randaugment(keys(6), images, ops=CIFAR).shape == images.shape


def test_the_magnitude_grid_shows_each_operation():
    rows = usb.magnitude_grid(pictures(1), CIFAR)
    assert list(rows) == [op.name for op in CIFAR]
    np.testing.assert_array_equal(rows["identity"], np.repeat(pictures(1), 9, axis=0))
    assert rows["rotate"].shape == (9, 32, 32, 3)
    assert not np.array_equal(rows["rotate"][0], rows["rotate"][8])


@pytest.mark.parametrize("recipe", ["imagenet", "remixmatch"])
def test_another_space_is_refused(recipe):
    from ssljax.augment import augmentation, policies

    with pytest.raises(ValueError, match=f"recipe is '{recipe}'; allowed: cifar, no_color"):
        augmentation.usb_randaugment(policies.weak_cifar, recipe)
