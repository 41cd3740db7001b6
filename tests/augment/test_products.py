"""The kernels for TPUs beside those of other platforms, on this CPU: every pixel is the same."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.augment import ops, products

SHAPES = [(12, 32, 32, 3), (6, 20, 27, 1), (5, 9, 12, 4)]
OPERATIONS = {
    "lookup": (ops.lookup, lambda images: (images, tables(images))),
    "histogram": (ops.histogram, lambda images: (images,)),
    "warp": (ops.warp, lambda images: (images, matrices(images))),
    "shift": (lambda images, offset: ops.shift(images, 4, offset), lambda x: (x, offsets(x, 8))),
}


def pixels(shape, levels=256):
    return np.random.default_rng(0).integers(0, levels, shape, np.uint8)


def tables(images):
    return pixels((len(images), images.shape[3], 256))


def offsets(images, most):
    """All of 0 to most in both axes, in different orders."""
    rows = np.arange(len(images)) % (most + 1)
    return np.stack([rows, (rows * 3 + 1) % (most + 1)], axis=1).astype(np.int32)


def matrices(images):
    n, (height, width) = len(images), images.shape[1:3]
    turned = ops.rotate_matrix(jnp.linspace(-60, 60, n - 2), height, width)
    return jnp.concatenate([turned, ops.translate_x_matrix(jnp.array([2.0 * width, -3.0]))])


@pytest.mark.parametrize("levels", [256, 3])
@pytest.mark.parametrize("shape", SHAPES[:2])
def test_lookups_and_histograms(shape, levels):
    images = pixels(shape, levels)
    table = tables(images)
    np.testing.assert_array_equal(products.lookup(images, table), ops.lookup(images, table))
    np.testing.assert_array_equal(products.histogram(images), ops.histogram(images))


@pytest.mark.parametrize("shape", SHAPES)
def test_pixels_are_taken_from_anywhere(shape):
    images = pixels(shape)
    y, x = (np.random.default_rng(i).integers(0, shape[i], shape[:3]) for i in (1, 2))
    expected = images[np.arange(shape[0])[:, None, None], y, x]
    np.testing.assert_array_equal(products.take(images, y, x), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_crops(shape):
    images, pad = pixels(shape), 4
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    offset = offsets(images, 2 * pad)
    found = products.crop(padded, offset, *shape[1:3])
    if shape[-1] in (1, 3):
        np.testing.assert_array_equal(found, ops.shift(images, pad, offset))
    y, x = offset[-1]
    np.testing.assert_array_equal(found[-1], padded[-1, y : y + shape[1], x : x + shape[2]])


@pytest.mark.parametrize("needed", [[0, 1, 0, 0, 1, 1], [0] * 6, [1] * 6])
def test_images_that_need_nothing_stay_as_they_are(needed):
    images, needed = pixels((6, 8, 9, 3)), np.array(needed, bool)
    matrix = jnp.where(needed[:, None], matrices(images), ops.identity_matrix(6))
    found = products.of_some(ops.warp, images, matrix, needed)
    np.testing.assert_array_equal(found, ops.warp(images, matrix))
    levels = np.arange(1, 7, dtype=np.uint8)
    painted = products.of_some(
        lambda image, level: jnp.full_like(image, level[0]), images, levels, needed
    )
    kept = np.where(needed[:, None, None, None], levels[:, None, None, None], images)
    np.testing.assert_array_equal(painted, kept)


@pytest.mark.parametrize("method", ops.WARP_METHODS)
def test_a_large_image_is_warped_where_its_matrix_is_not_the_identity(method, monkeypatch):
    images = pixels((6, 20, 27, 3))
    matrix = jnp.where(jnp.arange(6)[:, None] % 2 == 0, ops.identity_matrix(6), matrices(images))
    expected = ops.warp(images, matrix, method=method)
    np.testing.assert_array_equal(expected[::2], images[::2])
    # As a TPU computes it, of images that count as large.
    monkeypatch.setattr(products, "MOST_PIXELS", 100)
    monkeypatch.setattr(
        jax.lax, "platform_dependent", lambda *args, tpu, default: jax.jit(tpu)(*args)
    )
    np.testing.assert_array_equal(ops.warp(images, matrix, method=method), expected)


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_tpu_gathers_and_scatters_nothing_and_a_gpu_does(name):
    function, arguments = OPERATIONS[name]
    traced = jax.jit(function).trace(*arguments(pixels(SHAPES[0])))
    slow = r"stablehlo\.(\w*gather|scatter|while)"
    for platform, found in (("tpu", False), ("cuda", True), ("cpu", True)):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        assert bool(re.search(slow, program)) == found, platform


def test_a_tpu_warps_large_images_one_after_another():
    images = np.zeros((2, 72, 60, 3), np.uint8)
    traced = jax.jit(ops.warp).trace(images, ops.identity_matrix(2))
    tpu, cpu = (traced.lower(lowering_platforms=(p,)).as_text() for p in ("tpu", "cpu"))
    assert "stablehlo.while" in tpu
    assert "stablehlo.while" not in cpu
