"""A step that runs on several devices, seen from one of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


class Replica(NamedTuple):
    """Which of several devices, running one step together, this one is."""

    axis: str | None  # the mapped axis; None: a single device
    size: int

    def rows(self, n: int) -> jax.Array:
        """The rows of a batch of `n` that belong to this device, `[n / size]` int32."""
        share = n // self.size
        index = jax.lax.axis_index(self.axis) if self.axis else 0
        return index * share + jnp.arange(share)

    def local_key(self, key: jax.Array) -> jax.Array:
        """A key for what this device draws for itself."""
        return jax.random.fold_in(key, jax.lax.axis_index(self.axis) if self.axis else 0)

    def gather(self, rows: jax.Array) -> jax.Array:
        """Every device's rows, in order: the whole batch."""
        return jax.lax.all_gather(rows, self.axis, tiled=True) if self.axis else rows

    def mean(self, tree: PyTree) -> PyTree:
        """The mean of each leaf over the devices."""
        return jax.lax.pmean(tree, self.axis) if self.axis else tree

    def sum(self, tree: PyTree) -> PyTree:
        """The sum of each leaf over the devices."""
        return jax.lax.psum(tree, self.axis) if self.axis else tree


SINGLE = Replica(axis=None, size=1)
