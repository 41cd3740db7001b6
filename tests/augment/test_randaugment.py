"""Tests RandAugment: the draws, and the pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from benchmarks import pillow_policies
from helpers.draws import is_uniform, keys, pictures
from ssljax.augment import layer, ops
from ssljax.augment import randaugment as ra

DRAWS = 100_000


@pytest.fixture(scope="module", params=["cifar", "imagenet"])
def drawn(request):
    space = ra.SEARCH_SPACES[request.param]
    return space, jax.device_get(jax.jit(lambda k: ra.draw(k, space))(keys(DRAWS)))


def test_operations_are_uniform_in_each_layer_and_independent_between_layers(drawn):
    space, draws = drawn
    count = len(space.ops)
    assert draws.op.shape == (DRAWS, 2)
    for layer_ops in draws.op.T:
        assert is_uniform(layer_ops[layer_ops >= 0], count)
    both = draws.op[(draws.op >= 0).all(axis=1)]
    table = np.histogram2d(*both.T, bins=count)[0]
    assert stats.chi2_contingency(table).pvalue > 0.001


def test_each_layer_is_applied_with_the_recipe_s_probability(drawn):
    space, draws = drawn
    pairs = 2 * (draws.op[:, 0] >= 0) + (draws.op[:, 1] >= 0)  # independent: four equal parts
    assert space.probability == 0.5
    assert is_uniform(pairs, 4)


def test_levels_and_signs_are_uniform_and_independent_of_the_operation(drawn):
    space, draws = drawn
    assert is_uniform(draws.level, len(space.levels))
    assert is_uniform(draws.negative.astype(int), 2)
    table = np.histogram2d(draws.op[:, 0], draws.level[:, 0], bins=(15, len(space.levels)))[0]
    assert stats.chi2_contingency(table[table.sum(axis=1) > 0]).pvalue > 0.001


def test_cutout_s_centre_is_uniform_over_the_pixels(drawn):
    centre = np.floor(drawn[1].centre * 32).astype(int)
    assert is_uniform(centre[:, 0] * 32 + centre[:, 1], 32 * 32)


def parity(space, images, ours, theirs, tolerance=0):
    """Returns the fraction of images with Pillow's levels, given ops as (name, level, negated).

    Args:
      tolerance: allowed difference of levels, for all but one in a hundred.
    """
    draws = jax.device_get(ra.draw(keys(len(images), seed=2), space))
    ours = np.asarray(jax.jit(ours)(images, draws))
    equal = []
    for i, image in enumerate(images):
        picked = [
            (space.ops[op].name, round(space.levels[level] * scale), bool(negative))
            for op, level, negative in zip(
                draws.op[i], draws.level[i], draws.negative[i], strict=True
            )
            if op >= 0
            for scale in [1 if space.cutout else 10]
        ]
        expected = theirs(image, picked, np.floor(draws.centre[i] * image.shape[0]).astype(int))
        apart = abs(ours[i].astype(int) - expected) > tolerance
        equal.append(np.mean(apart) <= (0.01 if tolerance else 0))
    return np.mean(equal)


def test_the_cifar_policy_has_the_pixels_of_pillow_s():
    """All operations and most pairs, including a warp before and after one without alpha."""
    space = ra.CIFAR._replace(probability=0.9)
    share = parity(
        space,
        pictures(600),
        lambda images, draws: ra.apply(images, draws, space),
        pillow_policies.randaugment_cifar,
    )
    assert share > 0.99  # a rotated source pixel may lie on a border, up to rounding


def test_the_imagenet_policy_has_the_pixels_of_pillow_s():
    space = ra.IMAGENET._replace(probability=0.9)
    share = parity(
        space,
        pictures(300, size=45),
        lambda images, draws: ra.apply(images, draws, space),
        lambda image, picked, centre: pillow_policies.randaugment_imagenet(image, picked),
    )
    assert share > 0.99


def test_the_comatch_policy_has_the_pixels_of_pillow_s():
    space = ra.COMATCH._replace(probability=0.9)
    share = parity(
        space,
        pictures(300),
        lambda images, draws: ra.apply(images, draws, space),
        lambda image, picked, centre: pillow_policies.randaugment_comatch(
            image, [(name, negated) for name, _, negated in picked], centre
        ),
        tolerance=2,  # interpolated levels may be truncated to the next one
    )
    assert share > 0.98


@pytest.mark.parametrize("space", [ra.CIFAR, ra.IMAGENET])
def test_a_layer_is_one_warp_one_lookup_and_one_filter(space, monkeypatch):
    calls = []

    def counted(kernel, *args, **options):
        calls.append(kernel.__name__)
        return kernel(*args, **options)

    for kernel in (ops.warp, ops.lookup, ops.filter_blend):
        monkeypatch.setattr(layer.ops, kernel.__name__, functools.partial(counted, kernel))
    images = jnp.zeros((4, 32, 32, 3), jnp.uint8)
    op, parameter = jnp.zeros(4, jnp.int32), jnp.zeros(4)
    names = [op.name for op in space.ops]
    jax.eval_shape(lambda *a: layer.apply_layer(*a, names=names), images, op, parameter)
    assert sorted(calls) == ["filter_blend", "lookup", "warp"]


@pytest.mark.parametrize("space", [pytest.param(ra.CIFAR, marks=pytest.mark.slow), ra.IMAGENET])
def test_a_gpu_computes_the_same_pixels_without_a_condition(space, monkeypatch):
    """Of one image, which needs few of the kernels, and of several."""
    images, image_keys = pictures(12), keys(12)

    def views():
        return [ra.randaugment(image_keys[rows], images[rows], space=space) for rows in parts]

    parts = [slice(1), slice(12)]
    expected = views()
    monkeypatch.setattr(jax.lax, "cond", lambda needed, kernel, otherwise, x: kernel(x))
    jax.clear_caches()
    for found, wanted in zip(views(), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_the_same_pixels_on_one_device_on_four_and_under_vmap():
    images, image_keys = pictures(16), keys(16)
    view = lambda k, x: ra.randaugment(k, x, space=ra.CIFAR)  # noqa: E731
    whole = jax.jit(view)(image_keys, images)
    parts = [x.reshape(4, 4, *x.shape[1:]) for x in (image_keys, images)]
    for run in (jax.pmap(view), jax.jit(jax.vmap(view))):
        np.testing.assert_array_equal(run(*parts).reshape(images.shape), whole)


def test_layers_probability_and_magnitude_are_arguments():
    images = pictures(64)
    plain = ra.CIFAR._replace(cutout=0, transparent=False, ops=(ra.Op("translate_x", int, True),))

    def moved(**options):
        result = ra.randaugment(keys(64), images, space=plain, **options)
        right, left = (
            (np.array_equal(result[i, :, 5:], images[i, :, :-5]) for i in range(64)),
            (np.array_equal(result[i, :, :-5], images[i, :, 5:]) for i in range(64)),
        )
        return np.array(list(right)), np.array(list(left)), np.asarray(result)

    right, left, _ = moved(layers=1, probability=1.0, magnitude=5)
    assert (right ^ left).all()
    assert right.any()
    assert left.any()
    np.testing.assert_array_equal(moved(layers=1, probability=0.0)[2], images)


def test_bad_arguments_are_named():
    images = pictures(2)
    for options, message in [
        ({"layers": -1}, "layers is -1; allowed: from 0 up"),
        ({"probability": 1.5}, "probability is 1.5; allowed: from 0 to 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            ra.randaugment(keys(2), images, space=ra.CIFAR, **options)
    with pytest.raises(ValueError, match="Cutout of 16 pixels; allowed for images of 8×8: less"):
        ra.randaugment(keys(2), images[:, :8, :8], space=ra.CIFAR)


def test_the_magnitude_grid_shows_each_operation_at_each_level():
    image = pictures(1)
    rows = ra.magnitude_grid(jnp.asarray(image), ra.CIFAR)
    assert list(rows) == [op.name for op in ra.CIFAR.ops]
    np.testing.assert_array_equal(rows["identity"], np.repeat(image, 9, axis=0))
    np.testing.assert_array_equal(rows["brightness"], ops.brightness(
        np.repeat(image, 9, axis=0), 0.18 * np.arange(1, 10) + 0.1))  # fmt: skip
