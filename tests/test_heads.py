"""Tests layers on a model's features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssljax import heads

KEY = jax.random.PRNGKey(0)
FEATURES = jnp.float32(np.random.default_rng(0).normal(size=(5, 6)))


def weights_of(head):
    return {"heads": {head.name: head.init(KEY, 6, 3)}}


@pytest.mark.parametrize(
    ("options", "outputs"),
    [({"outputs": 4}, 4), ({"per_class": 2}, 6), ({"outputs": 1, "per_class": 1}, 4)],
)
def test_a_dense_layer_has_outputs_and_outputs_for_each_class(options, outputs):
    head = heads.dense("head", **options)
    params = weights_of(head)
    layer = params["heads"]["head"]
    assert layer["kernel"].shape == (6, outputs)
    np.testing.assert_array_equal(layer["bias"], np.zeros(outputs))
    layer["bias"] = jnp.arange(outputs, dtype=jnp.float32)
    expected = np.asarray(FEATURES) @ np.asarray(layer["kernel"]) + np.arange(outputs)
    np.testing.assert_allclose(head(params, FEATURES), expected, rtol=1e-5, atol=1e-6)


def test_a_dense_layer_can_do_without_biases():
    assert heads.dense("head", 2, bias=False).init(KEY, 6, 3).keys() == {"kernel"}


def test_an_mlp_s_embeddings_have_length_one_and_can_be_means_of_several():
    for count in (1, 3):
        head = heads.mlp("head", 4, jax.nn.relu, count=count)
        params = weights_of(head)
        each = params["heads"]["head"]
        each = [each] if count == 1 else list(each.values())
        assert len(each) == count
        layers = [(w["Dense_0"]["kernel"], w["Dense_1"]["kernel"]) for w in each]
        assert {x.shape for pair in layers for x in pair} == {(6, 6), (6, 4)}
        total = sum(np.maximum(FEATURES @ first, 0) @ second for first, second in layers)
        expected = total / np.linalg.norm(total, axis=1, keepdims=True)
        np.testing.assert_allclose(head(params, FEATURES), expected, rtol=1e-4, atol=1e-6)


def test_rows_of_zeros_have_a_length_and_a_gradient():
    rows = jnp.zeros((2, 3))
    np.testing.assert_array_equal(heads.normalize(rows), rows)
    gradient = jax.grad(lambda x: jnp.sum(heads.normalize(x)))(rows)
    assert np.isfinite(gradient).all()
