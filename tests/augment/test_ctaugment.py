"""Tests CTAugment: rates and probabilities by hand, the draws, and the pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from benchmarks import pillow_policies
from helpers.draws import is_uniform, keys, pictures
from ssljax.augment import ctaugment as cta
from ssljax.augment import heat_map
from ssljax.augment.ctaugment_spaces import CIFAR, IMAGENET, REMIXMATCH

CIFAR_OPS, IMAGENET_OPS = (
    {op.name: i for i, op in enumerate(space.ops)} for space in (CIFAR, IMAGENET)
)


def test_recipes_have_the_published_operations_and_bins():
    assert len(CIFAR.ops) == len(IMAGENET.ops) == 19
    bins = {op.name: op.bins for op in CIFAR.ops}
    assert (bins.pop("identity"), bins.pop("posterize"), bins.pop("rescale")) == ((), (8,), (17, 6))
    assert set(bins.values()) == {(17,)}
    assert {op.bins for op in IMAGENET.ops} == {(15,)}
    assert cta.init(CIFAR).shape == (19, 2, 17)
    assert cta.init(IMAGENET).shape == (19, 2, 15)
    assert (cta.init(CIFAR) == 1).all()


def test_cifar_probabilities_by_hand():
    rates = cta.init(CIFAR).at[CIFAR_OPS["posterize"], 0, :4].set([0.9, 0.5, 0.797, 0.799])
    p = np.asarray(cta.probabilities(rates, CIFAR))
    # (w + 0.01) / 1.01: 0.901, 0.505, 0.799, 0.801; below 0.80 it is 0
    shares = np.array([0.91 / 1.01, 0, 0, 0.809 / 1.01, 1, 1, 1, 1])
    np.testing.assert_allclose(p[CIFAR_OPS["posterize"], 0, :8], shares / shares.sum(), rtol=1e-6)
    assert (p[CIFAR_OPS["posterize"], 0, 8:] == 0).all()
    np.testing.assert_allclose(p[CIFAR_OPS["rotate"], 0], 1 / 17, rtol=1e-6)
    np.testing.assert_allclose(p[CIFAR_OPS["rescale"], 1, :6], 1 / 6, rtol=1e-6)
    assert (p[CIFAR_OPS["rescale"], 1, 6:] == 0).all()
    assert (p[CIFAR_OPS["identity"]] == 0).all()


def test_imagenet_probabilities_by_hand():
    row = [0.5, 0.45, 0.4, 0.425, 0.4249, *[0.0] * 10]
    rates = cta.init(IMAGENET).at[3, 0].set(jnp.array(row))
    p = np.asarray(cta.probabilities(rates, IMAGENET))
    # w / 0.5: 1, 0.9, 0.8, 0.85, 0.8498; below 0.85 it is 0; then 0.001 more for all
    shares = np.array([1.001, 0.901, 0.001, 0.851, 0.001, *[0.001] * 10])
    np.testing.assert_allclose(p[3, 0], shares / shares.sum(), rtol=1e-5)
    np.testing.assert_allclose(p[4, 0], 1 / 15, rtol=1e-6)


def policy(op, level):
    """Two probes of two operations each, with levels of one or two arguments."""
    level = np.array([[x if isinstance(x, tuple) else (x, 0.0) for x in row] for row in level])
    return cta.Policy(jnp.array(op), jnp.float32(level), jnp.zeros((len(op), 3, 2)), jnp.zeros(2))


def test_cifar_update_by_hand():
    """Updates are sequential; both levels of rescale learn; identity and -1 learn nothing."""
    rotate, rescale = CIFAR_OPS["rotate"], CIFAR_OPS["rescale"]
    applied = policy([[rotate, rescale], [rotate, rotate]], [[0.5, (0.0, 0.99)], [0.5, 0.999999]])
    rates = cta.init(CIFAR)
    new = np.asarray(cta.update(rates, applied, jnp.array([0.2, 0.6]), CIFAR))
    expected = np.array(rates)
    expected[rotate, 0, 8] = 0.99 * (0.99 + 0.01 * 0.2) + 0.01 * 0.6  # int(0.5 · 17 · 0.999) = 8
    expected[rescale, 0, 0] = expected[rescale, 1, 5] = 0.99 + 0.01 * 0.2
    expected[rotate, 0, 16] = 0.99 + 0.01 * 0.6
    np.testing.assert_allclose(new, expected, rtol=1e-6)

    nothing = policy([[CIFAR_OPS["identity"], -1], [-1, -1]], [[0.5, 0.5], [0.5, 0.5]])
    unchanged = cta.update(rates, nothing, jnp.array([0.2, 0.6]), CIFAR)
    np.testing.assert_array_equal(unchanged, rates)


def test_cifar_levels_just_above_a_border_count_for_the_bin_below():
    """The published int(level · bins · 0.999)."""
    applied = policy([[CIFAR_OPS["blur"], -1], [-1, -1]], [[3.001 / 17, 0.0], [0.0, 0.0]])
    new = cta.update(cta.init(CIFAR), applied, jnp.array([0.0, 0.0]), CIFAR)
    assert np.argmin(new[CIFAR_OPS["blur"], 0]) == 2


def test_imagenet_update_by_hand():
    """Updates of the same bin in a step are averaged; identity learns, too."""
    applied = policy([[10, 10], [10, 7]], [[0.5, 0.51], [0.52, 0.0]])
    rates = cta.init(IMAGENET).at[10, 0, 7].set(0.8)
    new = np.asarray(cta.update(rates, applied, jnp.array([0.2, 0.6]), IMAGENET))
    expected = np.array(rates)
    expected[10, 0, 7] = 0.8 + 0.01 * ((0.2 + 0.2 + 0.6) / 3 - 0.8)  # 0.5 · 15 to 0.52 · 15
    expected[7, 0, 0] = 1 + 0.01 * (0.6 - 1)
    np.testing.assert_allclose(new, expected, rtol=1e-6)


@pytest.mark.parametrize("space", [CIFAR, IMAGENET])
def test_a_bin_whose_match_stays_low_loses_its_probability(space):
    index = [op.name for op in space.ops].index("rotate")
    bins = space.ops[index].bins[0]

    def learn(rates, key):
        applied = cta.sample(jax.random.split(key, 64), rates, space, probe=True)
        far = (applied.op == index) & (applied.level[..., 0] > (bins - 1) / bins)
        match = jnp.where(far.any(axis=1), 0.05, 0.95)
        return cta.update(rates, applied, match, space), None

    rates, _ = jax.jit(lambda k: jax.lax.scan(learn, cta.init(space), k))(keys(1000))
    p = np.asarray(cta.probabilities(rates, space))[index, 0]
    assert p[bins - 1] < 0.001 + space.epsilon / space.threshold
    assert (p[: bins - 1] > 0.9 / bins).all()


@pytest.mark.parametrize("space", [CIFAR, IMAGENET])
def test_probes_are_uniform_and_always_applied(space):
    # Probes do not depend on the rates.
    rates = cta.init(space).at[:, :, 0].set(0.0)
    drawn = jax.jit(lambda k: cta.sample(k, rates, space, probe=True))(keys(50_000))
    assert drawn.op.shape == (50_000, 2)
    assert is_uniform(drawn.op, 19)
    assert is_uniform(np.floor(drawn.level * 17).astype(int), 17)
    assert is_uniform(np.floor(drawn.centre * 16).astype(int)[:, 1, 0], 16)
    assert (drawn.cutout == 0).all()


@pytest.mark.parametrize("space", [CIFAR, IMAGENET])
def test_training_views_draw_by_the_rates(space):
    rates = jax.random.uniform(jax.random.PRNGKey(3), cta.init(space).shape, minval=0.75)
    p = np.asarray(cta.probabilities(rates, space), np.float64)
    assert (p[:, 0] < 0.001).any()  # some bins are excluded: 0, and nearly 0
    drawn = jax.jit(lambda k: cta.sample(k, rates, space, probe=False))(keys(50_000))
    op = np.ravel(drawn.op)
    assert is_uniform(op[op >= 0], 19)
    share = np.mean(op >= 0)
    assert share == 1 if space is CIFAR else abs(share - 0.5) < 0.005
    assert (drawn.cutout == (space is CIFAR)).all()
    for index, entry in enumerate(space.ops):
        for k, bins in enumerate(entry.bins):
            level = np.asarray(drawn.level)[..., k].ravel()[op == index]
            counts = np.bincount(np.floor(level * bins).astype(int), minlength=bins)
            expected = p[index, k, :bins] / p[index, k].sum() * counts.sum()
            rare = expected < 5
            assert abs(counts[rare].sum() - expected[rare].sum()) <= 4 * expected[rare].sum() ** 0.5
            pooled = ([*x[~rare], x[rare].sum() + 1e-6] for x in (counts, expected))
            assert stats.chisquare(*pooled).pvalue > 1e-4
            assert is_uniform(np.floor(level * bins % 1 * 4).astype(int), 4)  # within a bin


def test_remixmatch_draws_between_neighbouring_bins_and_has_no_cutout_at_the_end():
    """The published `segments = p[1:] + p[:-1]`, and a level within one of the segments."""
    posterize, rescale = CIFAR_OPS["posterize"], CIFAR_OPS["rescale"]
    rates = cta.init(REMIXMATCH).at[posterize, 0, :3].set([0.1, 0.1, 0.9])
    drawn = jax.jit(lambda k: cta.sample(k, rates, REMIXMATCH, probe=False))(keys(50_000))
    assert (drawn.cutout == 0).all()
    level = np.asarray(drawn.level)[np.asarray(drawn.op) == posterize][:, 0]
    # 8 bins have 7 segments; the first is between two excluded bins.
    counts = np.bincount(np.floor(level * 7).astype(int), minlength=7)
    segments = np.array([0, 0.91, 1.92, 2.02, 2.02, 2.02, 2.02])
    assert counts[0] == 0
    expected = segments[1:] / segments.sum() * counts.sum()
    assert stats.chisquare(counts[1:], expected).pvalue > 1e-4
    assert is_uniform(np.floor(level * 7 % 1 * 4).astype(int), 4)
    method = np.asarray(drawn.level)[np.asarray(drawn.op) == rescale][:, 1]
    assert is_uniform(np.floor(method * 5).astype(int), 5)  # 6 bins
    rotate = np.asarray(drawn.level)[np.asarray(drawn.op) == CIFAR_OPS["rotate"]][:, 0]
    assert is_uniform(np.floor(rotate * 16).astype(int), 16)  # 17 bins


def test_the_cifar_policy_has_the_pixels_of_pillow_s():
    space = CIFAR
    images = pictures(600)
    drawn = cta.sample(keys(600, seed=4), cta.init(space), space, probe=False)
    ours = np.asarray(jax.jit(lambda x, p: cta.apply(x, p, space))(images, drawn)).astype(int)
    drawn, equal, most = jax.device_get(drawn), [], []
    for i, image in enumerate(images):
        centre = np.floor(drawn.centre[i] * 32).astype(int)
        names = [space.ops[op].name for op in drawn.op[i]]
        ops = list(zip(names, drawn.level[i].tolist(), centre[:2].tolist(), strict=True))
        ops.append(("cutout", (1.0, 0.0), centre[2].tolist()))
        difference = np.abs(ours[i] - pillow_policies.ctaugment_cifar(image, ops))
        (most if "rescale" in names else equal).append(difference.max())
    assert len(most) > 30
    assert np.mean(np.array(equal) == 0) > 0.98
    # Rescale differs from Pillow's by up to 2 levels, which another operation can amplify.
    assert np.mean(np.array(most) <= 2) > 0.8


@pytest.mark.parametrize("space", [CIFAR, pytest.param(IMAGENET, marks=pytest.mark.slow)])
def test_the_same_pixels_on_one_device_on_four_and_under_vmap(space):
    def view(keys, images):
        rates = cta.init(space)
        return cta.apply(images, cta.sample(keys, rates, space, probe=False), space)

    images, image_keys = pictures(16), keys(16)
    whole = jax.jit(view)(image_keys, images)
    assert (whole != images).any(axis=(1, 2, 3)).sum() > 8
    parts = [x.reshape(4, 4, *x.shape[1:]) for x in (image_keys, images)]
    for run in (jax.pmap(view), jax.jit(jax.vmap(view))):
        np.testing.assert_array_equal(run(*parts).reshape(images.shape), whole)


def test_the_magnitude_grid_and_the_heat_map_show_every_operation():
    image = pictures(1)
    rows = cta.magnitude_grid(jnp.asarray(image), CIFAR)
    assert [len(row) for row in rows.values()] == [
        1 if op.name == "identity" else 8 if op.name == "posterize" else 17 for op in CIFAR.ops
    ]
    np.testing.assert_array_equal(rows["identity"], image)
    rates = cta.init(CIFAR).at[0, 0, 0].set(0.1).at[0, 0, 1].set(0.9)
    picture = heat_map.draw(rates, CIFAR)
    assert picture.shape == (16 * 19, 96 + 16 * 17, 3)  # rescale has two rows, identity none
    cells = picture[4, 100::16]
    assert cells[0, 0] > cells[0, 1]  # red: excluded
    assert (cells[1] == int(0.9 * 255)).all()
    assert (cells[2:] == 255).all()
