"""Tests gradients computed as matrix products against XLA's."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from ssljax.models import convolution
from ssljax.models.wide_resnet import wide_resnet

LAYOUT = lax.conv_dimension_numbers((1, 1, 1, 1), (1, 1, 1, 1), ("NHWC", "HWIO", "NHWC"))
# Images, filters, side of the kernel, stride.
SHAPES = [
    ((6, 8, 8, 8), 4, 3, 1),
    ((5, 7, 9, 8), 16, 3, 1),
    ((6, 8, 8, 8), 4, 3, 2),
    ((5, 7, 10, 12), 4, 3, 2),
    ((7, 33, 32, 8), 4, 3, 1),
    ((3, 8, 8, 8), 4, 1, 1),
    ((3, 7, 8, 8), 4, 1, 2),
]


def gradients(operation, shape, filters, side, stride, dtype=jnp.float32):
    """Returns gradients by images and kernel of a weighted sum of outputs, and the outputs."""
    keys = jax.random.split(jax.random.key(0))
    images = jax.random.normal(keys[0], shape).astype(dtype)
    kernel = jax.random.normal(keys[1], (side, side, shape[3], filters)).astype(dtype)

    def loss(images, kernel):
        outputs = operation(
            images, kernel, (stride, stride), "SAME", dimension_numbers=LAYOUT,
            lhs_dilation=(1, 1), rhs_dilation=(1, 1), feature_group_count=1, precision=None,
        ).astype(jnp.float32)  # fmt: skip
        weights = jnp.sin(jnp.arange(outputs.size, dtype=jnp.float32)).reshape(outputs.shape)
        return jnp.sum(outputs * weights), outputs

    return jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(images, kernel)


@pytest.mark.parametrize(("shape", "filters", "side", "stride"), SHAPES)
def test_values_and_gradients_are_those_of_xla(shape, filters, side, stride):
    found = gradients(convolution.conv_general_dilated, shape, filters, side, stride)
    expected = gradients(lax.conv_general_dilated, shape, filters, side, stride)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, atol=2e-6 * np.abs(y).max())


@pytest.mark.parametrize("stride", [1, 2])
def test_sums_are_float32_in_bfloat16_too(stride):
    shape = ((64, 16, 16, 8), 4, 3, stride)
    exact = gradients(lax.conv_general_dilated, *shape)[1][1]
    found = gradients(convolution.conv_general_dilated, *shape, dtype=jnp.bfloat16)[1][1]
    assert found.dtype == jnp.bfloat16
    # Rounding the inputs to 8 bits causes independent errors.
    assert np.abs(found - exact).max() < 0.02 * np.abs(exact).max()


def test_several_networks_at_once():
    def gradient(images, kernel):
        def loss(kernel):
            return jnp.sum(
                jnp.sin(
                    convolution.conv_general_dilated(
                        images, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT
                    )
                )
            )

        return jax.grad(loss)(kernel)

    images = jax.random.normal(jax.random.key(0), (2, 3, 6, 6, 8))
    kernels = jax.random.normal(jax.random.key(1), (2, 3, 3, 8, 4))
    each = [jax.jit(gradient)(*pair) for pair in zip(images, kernels, strict=True)]
    together = jax.jit(jax.vmap(gradient))(images, kernels)
    np.testing.assert_allclose(together, each, rtol=1e-4, atol=1e-5)


def is_own(images=(2, 8, 8, 8), side=3, strides=(1, 1), padding="SAME", **options):
    """Whether the gradient is this package's implementation."""
    jaxpr = jax.make_jaxpr(
        lambda x, w: convolution.conv_general_dilated(
            x, w, strides, padding, dimension_numbers=LAYOUT, **options
        )
    )(
        jnp.ones(images),
        jnp.ones((side, side, images[3] // options.get("feature_group_count", 1), 4)),
    )
    return any(eqn.primitive.name == "custom_vjp_call" for eqn in jaxpr.eqns)


def test_others_are_left_to_xla():
    assert is_own()
    assert not is_own(images=(2, 8, 8, 3))
    assert not is_own(side=5)
    assert not is_own(padding="VALID")
    assert not is_own(strides=(1, 2))
    assert not is_own(rhs_dilation=(2, 2))
    assert not is_own(feature_group_count=2)


def test_networks_use_it_while_they_train_and_not_when_they_serve():
    model = wide_resnet(num_classes=10, filters=8, repeat=1)
    images = jnp.ones((2, 32, 32, 3))
    init = functools.partial(model.init, train=False)
    variables = jax.eval_shape(init, jax.random.key(0), images)

    def text(train):
        def apply(variables):
            return model.apply(variables, images, train=train, mutable=["batch_stats"])[0][0]

        return str(jax.make_jaxpr(apply)(variables))

    assert "square_conv" in text(True)
    assert "square_conv" not in text(False)


@pytest.mark.parametrize(("side", "size", "stride"), [(7, 3, 2), (9, 5, 1)])
def test_depthwise_convolutions_are_xla_s(side, size, stride):
    """Also tests their gradients, which other models use in training."""
    random = np.random.RandomState(0)
    images = jnp.asarray(random.normal(size=(2, side, side + 2, 4)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(size, size, 1, 4)), jnp.float32)
    options = {
        "dimension_numbers": ("NHWC", "HWIO", "NHWC"),
        "feature_group_count": 4,
    }

    def fast(images, kernel):
        return convolution.depthwise(images, kernel, (stride, stride), "SAME", **options)

    def plain(images, kernel):
        return lax.conv_general_dilated(images, kernel, (stride, stride), "SAME", **options)

    def gradients(f):
        weigh = jnp.asarray(random.normal(size=plain(images, kernel).shape), jnp.float32)
        random.seed(1)
        return jax.jit(jax.grad(lambda x, w: jnp.sum(f(x, w) * weigh), (0, 1)))(images, kernel)

    np.testing.assert_allclose(fast(images, kernel), plain(images, kernel), atol=1e-5)
    random.seed(1)
    by_fast = gradients(fast)
    random.seed(1)
    for found, expected in zip(by_fast, gradients(plain), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_a_portable_depthwise_convolution_is_one_operation():
    def primitives():
        def f(images, kernel):  # a new function for each case
            return convolution.depthwise(
                images, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
                feature_group_count=4,
            )  # fmt: skip

        program = jax.make_jaxpr(f)(jnp.zeros((1, 8, 8, 4)), jnp.zeros((3, 3, 1, 4)))
        return [eqn.primitive.name for eqn in program.eqns]

    with convolution.portable():
        assert primitives() == ["conv_general_dilated"]
    assert "cond" in primitives()
