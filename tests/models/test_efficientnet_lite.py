from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax.models import efficientnet_lite

tiny = partial(efficientnet_lite.EfficientNetLite, num_classes=5, widen=0.1, deepen=0.3)


def initialised(model, side=32, channels=3):
    images = jnp.zeros((1, side, side, channels))
    return jax.jit(lambda: model.init(jax.random.key(0), images, train=False))()


@pytest.mark.parametrize(
    ("name", "count", "groups"),
    [
        ("efficientnet_lite0", 4_652_008, 18),
        ("efficientnet_lite1", 5_416_680, 23),
        ("efficientnet_lite2", 6_092_072, 23),
        ("efficientnet_lite3", 8_197_096, 26),
        ("efficientnet_lite4", 13_006_568, 32),
    ],
)
def test_parameter_counts(name, count, groups):
    model = getattr(efficientnet_lite, name)(num_classes=1000)
    images = jnp.zeros((1, 64, 64, 3))
    made = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    assert sum(x.size for x in jax.tree.leaves(made["params"])) == count
    found = {model.group(name) for name in made["params"]}
    assert found == set(range(groups)) == set(range(model.groups))


def test_groups_follow_the_network():
    model = efficientnet_lite.efficientnet_lite0(num_classes=10)
    order = ["conv_stem", "block_0_0", "block_1_0", "block_1_1", "block_2_0", "block_6_0", "head"]
    assert [model.group(name) for name in order] == [0, 1, 2, 3, 4, 16, 17]
    assert model.group("bn1") == 0
    assert model.group("bn2") == model.group("conv_head") == 16


def test_strides_are_the_published_ones():
    """Tests the side of each block's output for 224×224 images."""
    model = efficientnet_lite.efficientnet_lite0(num_classes=10)
    images = jnp.zeros((1, 224, 224, 3))
    _, made = jax.eval_shape(
        lambda: model.init_with_output(
            jax.random.key(0), images, train=False, capture_intermediates=True
        )
    )
    blocks = {k: v for k, v in made["intermediates"].items() if k.startswith("block_")}
    shapes = [value["__call__"][0].shape[1:] for _, value in sorted(blocks.items())]
    assert [s[0] for s in shapes] == [112, *[56] * 2, *[28] * 2, *[14] * 6, *[7] * 5]
    assert [s[2] for s in shapes] == [
        16, *[24] * 2, *[40] * 2, *[80] * 3, *[112] * 3, *[192] * 4, 320
    ]  # fmt: skip


@pytest.mark.parametrize("frozen", [3, *(pytest.param(x, marks=pytest.mark.slow) for x in (0, 9))])
def test_training_moves_the_statistics_of_what_is_trained_alone(frozen):
    images = jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (4, 32, 32, 3)), jnp.float32)
    variables = initialised(tiny())

    model = tiny(frozen=frozen)
    assert model.groups == 10
    apply = jax.jit(partial(model.apply, train=True, mutable=["batch_stats"]))
    _, updated = apply(variables, images)
    moved = {
        model.group(name)
        for name, layer in updated["batch_stats"].items()
        for before, after in zip(
            jax.tree.leaves(variables["batch_stats"][name]), jax.tree.leaves(layer), strict=True
        )
        if not np.array_equal(before, after)
    }
    assert moved == set(range(frozen, 9))  # the head, 9, has none


@pytest.mark.slow
def test_grey_images_are_those_of_three_equal_channels():
    model = tiny()
    variables = initialised(model)
    grey = jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (2, 32, 32, 1)), jnp.float32)
    apply = jax.jit(partial(model.apply, train=False))
    np.testing.assert_allclose(
        apply(variables, grey)[1], apply(variables, jnp.repeat(grey, 3, axis=3))[1], atol=1e-6
    )


@pytest.mark.slow
def test_remat_takes_no_part_in_what_is_computed():
    keys = jax.random.split(jax.random.PRNGKey(3), 2)
    images = jnp.asarray(np.random.RandomState(0).uniform(-1, 1, (2, 32, 32, 3)), jnp.float32)
    variables = initialised(tiny())

    def logits(model):
        apply = partial(model.apply, train=True, keys=keys, mutable=["batch_stats"])
        return jax.jit(apply)(variables, images)[0][0]

    plain, again = (logits(tiny(drop_path=0.5, remat=remat)) for remat in (False, True))
    np.testing.assert_allclose(plain, again, rtol=1e-4, atol=1e-5)
