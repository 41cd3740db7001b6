"""Further layers on a model's features, whose weights are trained beside the model's own."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


class Head(NamedTuple):
    """A small network on features. `head(params, features)` computes its outputs `[N, outputs]`.

    Its weights are `params["heads"][head.name]`, which shrink and are averaged as the model's own
    are.
    """

    name: str
    # (key, width of the features, number of classes) -> weights
    init: Callable[[jax.Array, int, int], PyTree]
    # (weights, features [N, D]) -> outputs
    apply: Callable[[PyTree, jax.Array], jax.Array]

    def __call__(self, params: PyTree, features: jax.Array) -> jax.Array:
        """The outputs for `features [N, D]`, with the weights that `params` hold."""
        return self.apply(params["heads"][self.name], features)


def dense(name: str, outputs: int = 0, *, per_class: int = 0, bias: bool = True) -> Head:
    """A dense layer, drawn like the model's own last one (Glorot's normal distribution).

    Args:
      outputs: number of outputs, beside those for each class.
      per_class: number of outputs for each class.
      bias: whether it adds a bias.
    """

    def init(key, features, classes):
        return _dense_weights(key, features, outputs + per_class * classes, bias=bias)

    return Head(name, init, _dense)


def mlp(
    name: str,
    outputs: int,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    *,
    normalized: bool = True,
    count: int = 1,
) -> Head:
    """A dense layer as wide as the features, an activation, and another dense layer.

    Args:
      outputs: width E of the embedding `[N, E]`.
      normalized: whether each embedding is scaled to length 1.
      count: number of such networks, whose mean is the embedding (EPASS of USB).
    """

    def one(key, features):
        keys = jax.random.split(key)
        return {
            "Dense_0": _dense_weights(keys[0], features, features),
            "Dense_1": _dense_weights(keys[1], features, outputs),
        }

    def init(key, features, classes):
        del classes
        if count == 1:
            return one(key, features)
        return {f"mlp_{i}": one(k, features) for i, k in enumerate(jax.random.split(key, count))}

    def apply(weights, features):
        each = [weights] if count == 1 else list(weights.values())
        hidden = [activation(_dense(w["Dense_0"], features)) for w in each]
        embedded = [_dense(w["Dense_1"], x) for w, x in zip(each, hidden, strict=True)]
        embedding = sum(embedded[1:], embedded[0]) / count
        return normalize(embedding) if normalized else embedding

    return Head(name, init, apply)


def normalize(rows: jax.Array) -> jax.Array:
    """Rows `[N, D]`, each scaled to length 1; a row of zeros stays."""
    square = jnp.sum(jnp.square(rows), axis=-1, keepdims=True)
    return rows * jax.lax.rsqrt(jnp.maximum(square, 1e-24))


def _dense_weights(key, features, outputs, *, bias=True):
    kernel = jax.nn.initializers.glorot_normal()(key, (features, outputs))
    return {"kernel": kernel} | ({"bias": jnp.zeros(outputs)} if bias else {})


def _dense(weights, features):
    outputs = features @ weights["kernel"]
    return outputs + weights["bias"][None] if "bias" in weights else outputs
