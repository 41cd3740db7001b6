"""Views against what they promise; the operations themselves are in test_ops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.augment import ops, policies


def photographs(n, side=32):
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8))


def keys(n, seed=0):
    return jax.random.split(jax.random.PRNGKey(seed), n)


@pytest.mark.parametrize(
    ("view", "mirrors", "pad", "side"),
    [("weak_cifar", True, 4, 32), ("weak_svhn", False, 4, 32), ("weak_stl10", True, 12, 96)],
)
def test_a_weak_view_is_one_of_the_mirrored_and_shifted_images(view, mirrors, pad, side):
    n = 200
    images = jnp.broadcast_to(photographs(1, side), (n, side, side, 3))
    seen = np.asarray(jax.jit(getattr(policies, view))(keys(n), images))
    image = np.asarray(images[0])
    mirrored, rows, columns = 0, set(), set()
    for out in seen:
        found = []
        for flipped in (False, True):
            source = np.pad(
                image[:, ::-1] if flipped else image, ((pad, pad), (pad, pad), (0, 0)), "reflect"
            )
            windows = np.lib.stride_tricks.sliding_window_view(source[..., 0], (side, side))
            same = (windows[:, :, 20, 20:28] == out[20, 20:28, 0]).all(-1)
            found += [
                (flipped, r, c)
                for r, c in np.argwhere(same)
                if (source[r : r + side, c : c + side] == out).all()
            ]
        (flipped, r, c), *_ = found
        mirrored += flipped
        rows.add(r)
        columns.add(c)
    assert 70 < mirrored < 130 if mirrors else mirrored == 0
    assert max(rows) == max(columns) == 2 * pad
    assert min(rows) == min(columns) == 0


def one_op(op, image, level, sign):
    """Each of RandAugment's ops by the function of `ops` that has its name."""
    enhance = jnp.float32(0.18) * level + jnp.float32(0.1)
    warped = dict(fill=127)
    return {
        0: lambda: image,
        1: lambda: ops.rotate(image, 3.0 * level * sign, **warped),
        2: lambda: ops.shear_x(image, jnp.float32(0.03) * (level * sign), **warped),
        3: lambda: ops.shear_y(image, jnp.float32(0.03) * (level * sign), **warped),
        4: lambda: ops.translate_x(image, level * sign, **warped),
        5: lambda: ops.translate_y(image, level * sign, **warped),
        6: lambda: ops.autocontrast(image),
        7: lambda: ops.equalize(image),
        8: lambda: ops.posterize(image, 4 - int(0.4 * level)),
        9: lambda: ops.solarize(image, 256 - int(25.6 * level)),
        10: lambda: ops.contrast(image, enhance),
        11: lambda: ops.brightness(image, enhance),
        12: lambda: ops.color(image, enhance),
        13: lambda: ops.sharpness(image, enhance),
    }[op]()


def test_a_random_op_is_one_of_the_14_at_a_published_level():
    n = 120
    images = jnp.broadcast_to(photographs(1) // 2 + 20, (n, 32, 32, 3))
    seen = np.asarray(jax.jit(policies._random_op)(keys(n), images))
    candidates = [
        (op, np.asarray(one_op(op, images[:1], level, sign))[0].astype(int))
        for op in range(14)
        for level in range(1, 10)
        for sign in (-1, 1)
    ]
    counts = np.zeros(14, int)
    for out in seen.astype(int):
        errors = [np.abs(out - candidate).max() for _, candidate in candidates]
        best = int(np.argmin(errors))
        assert errors[best] <= 1  # a fused multiply-add may truncate to the next level
        counts[candidates[best][0]] += 1
    assert 45 <= counts[0] <= 85  # half of them nothing, and a 14th of the others
    assert (counts[1:] > 0).sum() >= 11


@pytest.mark.parametrize("view", ["randaugment_cifar", "randaugment_svhn", "randaugment_stl10"])
def test_randaugment_ends_with_a_grey_square_and_depends_on_each_key_alone(view):
    side = 96 if view.endswith("stl10") else 32
    images = photographs(6, side)
    policy = jax.jit(getattr(policies, view))
    seen = np.asarray(policy(keys(6), images))
    assert seen.shape == images.shape
    assert seen.dtype == np.uint8
    grey = (seen == 127).all(-1).sum(axis=(1, 2))
    assert (grey >= 64).all()  # at least a corner of 16×16
    np.testing.assert_array_equal(policy(keys(6)[2:4], images[2:4]), seen[2:4])
