"""Tests the other published networks: parameters per layer, and independent forward passes."""

from functools import partial
from itertools import count

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from helpers.networks import convolve, size
from ssljax.models.cnn13 import cnn13
from ssljax.models.convnet import convnet
from ssljax.models.shake_resnet import shake_resnet


def conv(side, channels, filters, *, bias=True):
    return side * side * channels * filters + bias * filters


def test_cnn13_has_as_many_parameters_as_its_layers_add_up_to():
    def layer(side, channels, filters):
        return conv(side, channels, filters) + 2 * filters  # and BatchNorm's scale and bias

    total = (
        layer(3, 3, 128) + 2 * layer(3, 128, 128)
        + layer(3, 128, 256) + 2 * layer(3, 256, 256)
        + layer(3, 256, 512) + layer(1, 512, 256) + layer(1, 256, 128)
        + 128 * 10 + 10
    )  # fmt: skip
    assert total == 3_123_850
    assert size(cnn13(num_classes=10), 32, 32, 3) == total


def test_convnet_has_as_many_parameters_as_its_layers_add_up_to():
    total = (
        conv(3, 3, 32)
        + conv(3, 32, 32) + conv(3, 32, 64)
        + conv(3, 64, 64) + conv(3, 64, 128)
        + conv(3, 128, 128) + conv(3, 128, 256)
        + conv(3, 256, 10)
    )  # fmt: skip
    assert total == 605_226
    assert size(convnet(num_classes=10), 32, 32, 3) == total


def test_shake_resnet_has_as_many_parameters_as_its_layers_add_up_to():
    def branch(channels, filters):
        return (
            conv(3, channels, filters, bias=False)
            + conv(3, filters, filters, bias=False)
            + (4 * filters)
        )

    total = conv(3, 3, 16, bias=False) + 128 * 10 + 10
    channels = 16
    for filters in (32, 64, 128):
        # Two convolutions of half the channels, or at the first scale one: as many weights.
        shortcut = conv(1, channels, filters, bias=False) + 2 * filters
        total += 2 * branch(channels, filters) + 3 * 2 * branch(filters, filters) + shortcut
        channels = filters
    assert total == 2_923_130
    assert size(shake_resnet(num_classes=10), 32, 32, 3) == total


def norm(x, parameters, statistics, train):
    mean, var = statistics["mean"], statistics["var"]
    if train:
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
    return (x - mean) / np.sqrt(var + 1e-3) * parameters["scale"] + parameters["bias"]


def leaky(x):
    return np.where(x > 0, x, 0.2 * x)  # TensorFlow's default slope


def pool(x, how):
    n, height, width, channels = x.shape
    x = x[:, : height // 2 * 2, : width // 2 * 2]
    return how(x.reshape(n, height // 2, 2, width // 2, 2, channels), (2, 4))


class Layers:
    """The layers of a network in order of creation."""

    def __init__(self, variables, train):
        self.values = jax.tree.map(lambda x: np.asarray(x, np.float64), variables)
        self.convolutions, self.norms, self.train = count(), count(), train

    def conv(self, x, stride=1, padded=True):
        layer = self.values["params"][f"Conv_{next(self.convolutions)}"]
        y = convolve(x, layer["kernel"], layer.get("bias", 0), stride)
        return y if padded else y[:, 1:-1, 1:-1]

    def norm(self, x):
        name = f"BatchNorm_{next(self.norms)}"
        values = self.values
        return norm(x, values["params"][name], values["batch_stats"][name], self.train)

    def dense(self, x):
        layer = self.values["params"]["Dense_0"]
        return x @ layer["kernel"] + layer["bias"]


def cnn13_by_hand(layers, x):
    for _ in range(2):
        for _ in range(3):
            x = layers.norm(leaky(layers.conv(x)))
        x = pool(x, np.max)
    x = layers.norm(leaky(layers.conv(x, padded=False)))
    for _ in range(2):
        x = layers.norm(leaky(layers.conv(x)))
    features = x.mean((1, 2))
    return layers.dense(features), features


def convnet_by_hand(layers, x):
    x = leaky(layers.conv(x))
    for _ in range(2):
        x = pool(leaky(layers.conv(leaky(layers.conv(x)))), np.mean)
    return layers.conv(x).mean((1, 2)), x.mean((1, 2))


def shake_by_hand(layers, x, weights):
    """Computes two scales of two blocks; `weights` yields each block's weight of branch 2."""

    def branch(x, stride):
        x = layers.norm(layers.conv(np.maximum(x, 0), stride))
        return layers.norm(layers.conv(np.maximum(x, 0)))

    x = layers.conv(x)
    for scale in range(2):
        for block in range(2):
            stride = 2 if scale and not block else 1
            first, second = branch(x, stride), branch(x, stride)
            if stride == 2:
                halves = [
                    layers.conv(np.maximum(half, 0)) for half in (x[:, ::2, ::2], x[:, 1::2, 1::2])
                ]
                x = layers.norm(np.concatenate(halves, axis=3))
            elif not block:
                x = layers.norm(layers.conv(x))
            weight = next(weights)
            x = x + (1 - weight) * first + weight * second
    features = x.mean((1, 2))
    return layers.dense(features), features


@pytest.fixture
def images():
    return np.random.default_rng(0).uniform(-1, 1, (3, 16, 16, 3)).astype(np.float32)


def variables_of(model, images):
    """Returns initial weights, but with non-trivial biases and statistics."""
    variables = jax.jit(partial(model.init, train=False))(jax.random.PRNGKey(1), images)
    generator = np.random.default_rng(2)
    return jax.tree.map(
        lambda x: x + np.float32(generator.uniform(0, 0.1, x.shape)), jax.device_get(variables)
    )


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    ("model", "by_hand"),
    [
        (cnn13(num_classes=5, filters=4), cnn13_by_hand),
        (convnet(num_classes=5, filters=4, scales=2), convnet_by_hand),
    ],
)
def test_outputs_are_those_of_an_independent_forward_pass(model, by_hand, train, images):
    variables = variables_of(model, images)
    apply = jax.jit(partial(model.apply, train=train, mutable=["batch_stats"]))
    outputs, _ = apply(variables, images)
    expected = by_hand(Layers(variables, train), images.astype(np.float64))
    for ours, theirs in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)  # float32 against float64


SHAKE = shake_resnet(num_classes=5, filters=4, repeat=2, scales=2)


def test_shake_shake_weighs_its_branches_equally_in_evaluation(images):
    variables = variables_of(SHAKE, images)
    outputs = jax.jit(partial(SHAKE.apply, train=False))(variables, images)
    expected = shake_by_hand(Layers(variables, False), images.astype(np.float64), iter([0.5] * 4))
    for ours, theirs in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_shake_shake_draws_a_weight_for_each_image_and_block_in_training(images, monkeypatch):
    variables = variables_of(SHAKE, images)
    drawn, uniform = [], jax.random.uniform
    monkeypatch.setattr(jax.random, "uniform", lambda *a: drawn.append(uniform(*a)) or drawn[-1])
    (logits, _), _ = SHAKE.apply(
        variables, images, train=True, mutable=["batch_stats"], rngs={"shake": jax.random.key(3)}
    )
    weights = np.array(drawn, np.float64)
    assert weights.shape == (4, 3, 1, 1, 1)
    assert len(np.unique(weights)) == 12
    expected, _ = shake_by_hand(Layers(variables, True), images.astype(np.float64), iter(weights))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_the_gradient_of_shake_shake_has_the_forward_pass_s_weights(images):
    """`mu[::1]` in the published code: the derivative is that of the computed function."""
    variables = variables_of(SHAKE, images)

    def total(scale):
        # Scales one branch of the last block through its BatchNorm's scale and bias.
        params = dict(variables["params"])
        name = f"BatchNorm_{max(int(n[10:]) for n in params if n.startswith('BatchNorm'))}"
        params[name] = jax.tree.map(lambda x: scale * x, params[name])
        both = {"params": params, "batch_stats": variables["batch_stats"]}
        (logits, _), _ = SHAKE.apply(
            both, images, train=True, mutable=["batch_stats"], rngs={"shake": jax.random.key(3)}
        )
        return jnp.sum(logits)

    # The function is linear in the scale, so the difference is the derivative.
    one, gradient = jax.jit(jax.value_and_grad(total))(1.0)
    difference = jax.jit(total)(2.0) - one
    assert float(gradient) == pytest.approx(float(difference), rel=1e-3)


def test_cnn13_refuses_images_that_are_too_small():
    with pytest.raises(ValueError, match="cnn13 was given images of 8×8; allowed: from 12×12"):
        size(cnn13(num_classes=10), 8, 8, 1)
