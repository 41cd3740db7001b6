"""The network as methods call it (`methods.method.Apply`), on one of several devices."""

import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax.training.replica import Replica

PyTree = Any


class Network:
    """The passes of one step; each has randomness of its own.

    Args:
      batch_stats: BatchNorm's running statistics before this step.
      averaged: those that go with the moving average of the weights.
      key: of this device; None: the model draws no random numbers.
      whole: whether every device holds the whole batch. Then each computes every n-th row, and is
        given all results: neighbouring rows go to different devices, so that each sees the same mix
        of sources, as the published multi-GPU code arranges.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        batch_stats: PyTree,
        averaged: PyTree,
        key: jax.Array | None,
        replica: Replica,
        whole: bool,
    ):
        self._model, self._key = model, key
        self._batch_stats, self._averaged = batch_stats, averaged
        self._replica, self._spread = replica, whole and replica.axis is not None
        self._calls = itertools.count()

    def __call__(self, params: PyTree, images: jax.Array) -> tuple[jax.Array, PyTree]:
        """See `Apply`, here and below."""
        logits, _, batch_stats = self._train(params, images)
        return self._all(logits), batch_stats

    def with_features(
        self, params: PyTree, images: jax.Array
    ) -> tuple[jax.Array, jax.Array, PyTree]:
        logits, features, batch_stats = self._train(params, images)
        return self._all(logits), self._all(features), batch_stats

    def evaluate(self, params: PyTree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        variables = {"params": params, "batch_stats": self._averaged}
        logits, features = self._model.apply(variables, self._mine(images), train=False)
        return self._all(logits), self._all(features)

    def _train(self, params, images):
        variables = {"params": params, "batch_stats": self._batch_stats}
        call = next(self._calls)
        rngs = {} if self._key is None else {"shake": jax.random.fold_in(self._key, call)}
        (logits, features), updated = self._model.apply(
            variables, self._mine(images), train=True, mutable=["batch_stats"], rngs=rngs
        )
        return logits, features, updated.get("batch_stats", {})

    def _mine(self, images):
        """The rows that this device computes."""
        if not self._spread:
            return images
        rows = images.reshape(-1, self._replica.size, *images.shape[1:])
        return jnp.take(rows, jax.lax.axis_index(self._replica.axis), axis=1)

    def _all(self, rows):
        """All devices' rows `[N, outputs]`, in the order of the images."""
        if not self._spread:
            return rows
        gathered = jax.lax.all_gather(rows, self._replica.axis, axis=1)
        return gathered.reshape(-1, rows.shape[-1])
