"""Tests the wide residual network against an independent forward pass and arithmetic."""

from functools import partial
from itertools import count

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from helpers.networks import convolve, shapes, size
from ssljax.models.wide_resnet import WideResNet, wide_resnet


def test_wrn_28_2_has_as_many_parameters_as_its_layers_add_up_to():
    def conv3x3(channels, filters):
        return 9 * channels * filters + filters  # with biases

    def conv1x1(channels, filters):
        return channels * filters + filters

    def norm(channels):
        return 2 * channels  # scale and bias

    first_32 = norm(16) + conv3x3(16, 32) + norm(32) + conv3x3(32, 32) + conv1x1(16, 32)
    other_32 = norm(32) + conv3x3(32, 32) + norm(32) + conv3x3(32, 32)
    first_64 = norm(32) + conv3x3(32, 64) + norm(64) + conv3x3(64, 64) + conv1x1(32, 64)
    other_64 = norm(64) + conv3x3(64, 64) + norm(64) + conv3x3(64, 64)
    first_128 = norm(64) + conv3x3(64, 128) + norm(128) + conv3x3(128, 128) + conv1x1(64, 128)
    other_128 = norm(128) + conv3x3(128, 128) + norm(128) + conv3x3(128, 128)
    total = (
        conv3x3(3, 16)
        + (first_32 + 3 * other_32)
        + (first_64 + 3 * other_64)
        + (first_128 + 3 * other_128)
        + norm(128)
        + (128 * 10 + 10)
    )
    assert total == 1_469_642
    assert size(WideResNet(num_classes=10), 32, 32, 3) == total
    # Ports that omit the biases of the 28 convolutions count 1,467,610.
    biases = 16 + (8 + 1) * 32 + (8 + 1) * 64 + (8 + 1) * 128
    assert total - biases == 1_467_610


def test_the_cifar_100_network_has_as_many_parameters_as_its_layers_add_up_to():
    # filters 128: 128, 256 and 512 channels.
    convolutions = [(9, 3, 16)]
    norms = 0
    channels = 16
    for filters in (128, 256, 512):
        convolutions += [(9, channels, filters), (9, filters, filters), (1, channels, filters)]
        convolutions += [(9, filters, filters)] * 6
        norms += channels + 7 * filters
        channels = filters
    total = sum(pixels * inputs * outputs + outputs for pixels, inputs, outputs in convolutions)
    total += 2 * (norms + 512) + 512 * 100 + 100
    assert total == 23_409_092
    assert size(WideResNet(num_classes=100, filters=128), 32, 32, 3) == total


@pytest.mark.parametrize(
    ("width", "scales"),
    [(8, 1), (16, 2), (24, 3), (28, 3), (32, 3), (33, 4), (64, 4), (96, 5), (224, 6)],
)
def test_default_scales_are_the_rounded_up_logarithm_of_the_width_less_2(width, scales):
    assert scales == int(np.ceil(np.log2(width))) - 2
    # The width determines it, not the height.
    parameters = shapes(WideResNet(num_classes=10, filters=8, repeat=1), 128, width, 3)
    assert parameters["Dense_0/kernel"] == (8 * 2 ** (scales - 1), 10)


def convolution_outputs(model, *image_shape):
    """Returns (side in pixels, channels) of each convolution's output, in order."""

    def run(key, images):
        return model.init_with_output(
            key, images, train=False, capture_intermediates=lambda m, _: isinstance(m, nn.Conv)
        )

    _, variables = jax.eval_shape(run, jax.random.PRNGKey(0), jnp.zeros((2, *image_shape)))
    outputs = variables["intermediates"]
    names = sorted(outputs, key=lambda name: int(name.removeprefix("Conv_")))
    return [outputs[name]["__call__"][0].shape[2:] for name in names]


def test_each_scale_halves_the_image_at_its_first_block_and_the_first_does_not():
    # Four blocks of two convolutions per scale, and a shortcut at each first block.
    expected = [(32, 16)] + [(32, 32)] * 9 + [(16, 64)] * 9 + [(8, 128)] * 9
    assert convolution_outputs(WideResNet(num_classes=10), 32, 32, 3) == expected


@pytest.mark.parametrize(
    ("filters", "shortcuts"),
    [(4, [(16, 4), (4, 8)]), (16, [(16, 32)]), (8, [(16, 8), (8, 16)])],
)
def test_shortcuts_are_convolutions_exactly_where_the_channel_count_changes(filters, shortcuts):
    model = WideResNet(num_classes=3, filters=filters, repeat=2, scales=2)
    kernels = [shape for shape in shapes(model, 8, 8, 3).values() if shape[:2] == (1, 1)]
    assert sorted(shape[2:] for shape in kernels) == sorted(shortcuts)


def calculated(variables, images, *, filters, repeat, scales, train):
    """Computes logits, features, and the inputs of each BatchNorm, in float64.

    It transcribes `ResNet.classifier` in `libml/models.py` of google-research/mixmatch.
    """
    layers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    convolutions, norms, seen = count(), count(), []

    def conv(x, stride=1):
        layer = layers["params"][f"Conv_{next(convolutions)}"]
        return convolve(x, layer["kernel"], layer["bias"], stride)

    def norm_and_leaky_relu(x):
        name = f"BatchNorm_{next(norms)}"
        seen.append(x)
        statistics = layers["batch_stats"][name]
        mean, var = statistics["mean"], statistics["var"]
        if train:
            mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        x = (x - mean) / np.sqrt(var + 0.001)
        x = x * layers["params"][name]["scale"] + layers["params"][name]["bias"]
        return np.where(x > 0, x, 0.1 * x)

    y = conv(images)
    for scale in range(scales):
        for block in range(repeat):
            stride = 2 if scale > 0 and block == 0 else 1
            before = y
            y = norm_and_leaky_relu(y)
            if scale == 0 and block == 0:
                before = y
            y = conv(norm_and_leaky_relu(conv(y, stride)))
            if before.shape[3] != filters * 2**scale:
                before = conv(before, stride)
            y = before + y
    y = norm_and_leaky_relu(y).mean(axis=(1, 2))
    dense = layers["params"]["Dense_0"]
    return y @ dense["kernel"] + dense["bias"], y, seen


TINY = dict(filters=4, repeat=2, scales=2)
IMAGES = np.random.default_rng(1).uniform(-1, 1, (4, 8, 8, 3)).astype(np.float32)


@partial(jax.jit, static_argnames=("model", "train"))
def apply(model, variables, *, train):
    return model.apply(variables, IMAGES, train=train, mutable=["batch_stats"])


def arbitrary_variables(model):
    """Returns variables in which every bias, scale and statistic matters."""
    structure = jax.eval_shape(partial(model.init, train=False), jax.random.PRNGKey(0), IMAGES)
    random = np.random.default_rng(0)

    def draw(path, leaf):
        noise = random.normal(size=leaf.shape)
        if path[-1].key == "kernel":
            return np.float32(noise / np.sqrt(np.prod(leaf.shape[:-1])))
        return np.float32(np.exp(0.3 * noise) if path[-1].key in ("scale", "var") else 0.3 * noise)

    return jax.tree_util.tree_map_with_path(draw, structure)


@pytest.mark.parametrize(("filters", "train"), [(4, False), (4, True), (16, False)])
def test_logits_and_features_are_those_of_an_independent_forward_pass(filters, train):
    sizes = TINY | dict(filters=filters)
    model = WideResNet(num_classes=3, **sizes)
    variables = arbitrary_variables(model)
    (logits, features), _ = apply(model, variables, train=train)
    expected, inputs_of_dense, _ = calculated(variables, IMAGES, **sizes, train=train)
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    np.testing.assert_allclose(features, inputs_of_dense, atol=1e-5)
    assert np.abs(expected).max() > 0.1
    assert logits.shape == (4, 3)
    assert features.shape == (4, 2 * filters)


def test_training_moves_every_running_statistic_by_a_thousandth():
    model = WideResNet(num_classes=3, **TINY)
    variables = arbitrary_variables(model)
    _, updated = apply(model, variables, train=True)
    _, _, seen = calculated(variables, IMAGES, **TINY, train=True)
    assert len(seen) == len(updated["batch_stats"]) == 2 * 2 * 2 + 1
    for i, x in enumerate(seen):
        old, new = (v["batch_stats"][f"BatchNorm_{i}"] for v in (variables, updated))
        mean, var = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))  # biased, unlike TensorFlow's
        for name, of_batch in (("mean", mean), ("var", var)):
            expected = 0.999 * old[name] + 0.001 * of_batch
            np.testing.assert_allclose(new[name], expected, rtol=1e-6, atol=1e-7)
            # The change itself is much larger than that tolerance.
            assert np.abs(new[name] - old[name]).max() > 1e-4


def test_evaluation_leaves_the_running_statistics_alone():
    model = WideResNet(num_classes=3, **TINY)
    variables = arbitrary_variables(model)
    _, updated = apply(model, variables, train=False)
    jax.tree.map(np.testing.assert_array_equal, updated["batch_stats"], variables["batch_stats"])


def test_batch_norm_momentum_can_be_lowered():
    sizes = dict(filters=4, repeat=1, scales=1)
    model = WideResNet(num_classes=3, **sizes, batch_norm_momentum=0.75)
    variables = arbitrary_variables(model)
    _, updated = apply(model, variables, train=True)
    _, _, (x, *_) = calculated(variables, IMAGES, **sizes, train=True)
    old, new = (v["batch_stats"]["BatchNorm_0"]["mean"] for v in (variables, updated))
    np.testing.assert_allclose(new, 0.75 * old + 0.25 * x.mean(axis=(0, 1, 2)), atol=1e-6)


def test_bfloat16_computes_every_layer_and_is_kept_nowhere():
    half = WideResNet(num_classes=3, **TINY, dtype=jnp.bfloat16)
    init = partial(half.init, train=False)
    kept = jax.eval_shape(init, jax.random.PRNGKey(0), IMAGES)
    variables = arbitrary_variables(half)
    (logits, features), updated = apply(half, variables, train=True)
    assert {leaf.dtype for leaf in jax.tree.leaves((kept, updated, logits, features))} == {
        np.dtype("float32")
    }
    watch = partial(half.apply, train=False, capture_intermediates=True, mutable=["intermediates"])
    layers = jax.eval_shape(watch, variables, IMAGES)[1]["intermediates"]
    del layers["__call__"]  # the entire network's output: float32
    assert len(layers) == 1 + 8 + 2 + 9 + 1
    assert {leaf.dtype for leaf in jax.tree.leaves(layers)} == {jnp.dtype("bfloat16")}
    exact, _, _ = calculated(variables, IMAGES, **TINY, train=True)
    np.testing.assert_allclose(logits, exact, atol=0.03)


def test_initial_weights_have_the_published_distributions():
    model = WideResNet(num_classes=100, filters=32, repeat=1, scales=1)
    init = jax.jit(partial(model.init, train=False))
    variables = init(jax.random.PRNGKey(0), jnp.zeros((1, 8, 8, 3)))
    for name, leaf in flatten_dict(variables["params"], sep="/").items():
        layer, kind = name.split("/")
        if kind == "bias":
            np.testing.assert_array_equal(leaf, 0)
        elif kind == "scale":
            np.testing.assert_array_equal(leaf, 1)
        elif layer == "Dense_0":
            np.testing.assert_allclose(np.std(leaf), np.sqrt(2 / (32 + 100)), rtol=0.05)
        else:
            side, _, _, filters = leaf.shape
            deviation = np.sqrt(2 / (side * side * filters))
            # A standard deviation estimated from n numbers has the relative error 1 / √(2n).
            tolerance = 4 / np.sqrt(2 * leaf.size)
            np.testing.assert_allclose(np.std(leaf), deviation, rtol=tolerance)
            np.testing.assert_allclose(np.mean(leaf), 0, atol=4 * deviation / np.sqrt(leaf.size))
            if leaf.size >= 9 * 32 * 32:  # not truncated at two standard deviations
                assert np.abs(leaf).max() > 3 * deviation
    for name, leaf in flatten_dict(variables["batch_stats"], sep="/").items():
        np.testing.assert_array_equal(leaf, 1 if name.endswith("var") else 0)


def test_configs_call_it_wide_resnet():
    assert wide_resnet is WideResNet
