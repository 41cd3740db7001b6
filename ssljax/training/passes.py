"""The network that methods call (`methods.method.Apply`), on one of several devices."""

import inspect
import itertools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.network import merged
from ssljax.training.replica import Replica
from ssljax.training.trainable import ALL, Trainable

PyTree = Any
_IMAGES = 1 << 20  # folded into the key of a step for its images; devices count from 0


class Network:
    """The forward passes of one step; each has separate random numbers.

    Args:
      batch_stats: BatchNorm's running statistics before this step.
      averaged: the statistics that belong to the moving average of the weights.
      frozen: the parameters that are not trained; methods only see the others.
      key: random key of this step, the same on all devices; None: the model needs none.
      whole: whether every device has the entire batch. Then each of n devices computes every n-th
        row, and receives all results. Neighbouring rows are on different devices, so that each has
        the same mix of sources, as in the published multi-GPU code.
      sizes: numbers of labelled and unlabelled images in this device's batch.
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
        sizes: tuple[int, int] = (1, 1),
        trainable: Trainable = ALL,
        frozen: PyTree = (),
    ):
        self._model, self._key = model, key
        self._batch_stats, self._averaged = batch_stats, averaged
        self._replica, self._spread = replica, whole and replica.axis is not None
        self._sizes, self._trainable, self._frozen = sizes, trainable, frozen
        self._calls = itertools.count()

    def __call__(self, params: PyTree, images: jax.Array) -> tuple[jax.Array, PyTree]:
        """See `Apply`, also for the next two methods."""
        logits, _, batch_stats = self._train(params, images)
        return self._all(logits), batch_stats

    def with_features(
        self, params: PyTree, images: jax.Array
    ) -> tuple[jax.Array, jax.Array, PyTree]:
        logits, features, batch_stats = self._train(params, images)
        return self._all(logits), self._all(features), batch_stats

    def evaluate(self, params: PyTree, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits, features = self._evaluate(params, self._averaged, self._mine(images))
        return self._all(logits), self._all(features)

    def _evaluate(self, params, batch_stats, images):
        params = merged(params, self._frozen)
        variables = {"params": params, "batch_stats": batch_stats}
        return self._model.apply(variables, images, train=False)

    def _train(self, params, images):
        images, call = self._mine(images), next(self._calls)
        if self._trainable.as_in_evaluation:
            return *self._evaluate(params, self._batch_stats, images), self._batch_stats
        params = merged(params, self._frozen)
        variables = {"params": params, "batch_stats": self._batch_stats}
        (logits, features), updated = self._model.apply(
            variables, images, train=True, mutable=["batch_stats"], **self._random(call, images)
        )
        return logits, features, updated.get("batch_stats", {})

    def _random(self, call, images):
        """The random keys of a pass, as arguments of the model.

        Any Flax network gets one key per device by Flax's `rngs`. A network with the argument
        `keys` gets one key per image, so that its random numbers do not depend on the devices.
        """
        if self._key is None:
            return {}
        local = jax.random.fold_in(self._replica.local_key(self._key), call)
        found: dict[str, Any] = {
            "rngs": {"shake": local, "dropout": jax.random.fold_in(local, 1)},
        }
        if "keys" in inspect.signature(type(self._model).__call__).parameters:
            key = jax.random.fold_in(jax.random.fold_in(self._key, _IMAGES), call)
            fold_in = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
            found["keys"] = fold_in(key, self._rows(len(images)))
        return found

    def _rows(self, n):
        """The positions `[n]` int32 of this device's images among those of all devices in a call.

        A replica has its share of the labelled images and of each unlabelled view. The images of a
        call are complete shares, the labelled ones first.
        """
        size, index = self._replica.replicas, self._replica.number
        if size == 1:
            return jnp.arange(n)
        if self._spread:
            return index + size * jnp.arange(n)
        rows, start = [], 0
        for length in _shares(n, *self._sizes):
            rows.append(size * start + length * index + jnp.arange(length))
            start += length
        return jnp.concatenate(rows)

    def _mine(self, images):
        """The rows that this device computes; `Mixed` images are only mixed for these rows."""
        is_mixed = isinstance(images, losses.Mixed)
        if not self._spread:
            return images.value() if is_mixed else images
        rows = self._rows(len(images) // self._replica.size)
        return images[rows].value() if is_mixed else losses.take_rows(images, rows)

    def _all(self, rows):
        """The rows of all devices, `[N, outputs]`, in the order of the images."""
        if not self._spread:
            return rows
        gathered = jax.lax.all_gather(rows, self._replica.axis, axis=1)
        return gathered.reshape(-1, rows.shape[-1])


def _shares(n: int, labeled: int, unlabeled: int) -> list[int]:
    """The lengths of the shares in `n` images of a call: labelled ones, then unlabelled views.

    A call that does not consist of complete shares is one share.

    Args:
      labeled, unlabeled: number of images in a share of each kind.
    """
    if n % labeled or unlabeled <= labeled:
        return [labeled] * (n // labeled) if n % labeled == 0 else [n]
    before = n % unlabeled // labeled
    return [labeled] * before + [unlabeled] * (n // unlabeled)
