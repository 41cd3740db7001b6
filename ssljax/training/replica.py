"""A step that runs on several devices, seen from one of them."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


class Replica(NamedTuple):
    """Which of several devices, running one step together, this one is.

    One that computes its share of the batch in parts is as many replicas, one after another.
    """

    axis: str | None  # the mapped axis; None: a single device
    size: int  # devices
    parts: int = 1  # of each device's share
    part: jax.Array | int = 0  # [] which one this is

    @property
    def replicas(self) -> int:
        """Of how many replicas this is one."""
        return self.size * self.parts

    @property
    def number(self) -> jax.Array | int:
        """[] which one, in the order of the batch."""
        device = jax.lax.axis_index(self.axis) if self.axis else 0
        return device * self.parts + self.part

    def rows(self, n: int) -> jax.Array:
        """The rows of a batch of `n` that belong to this replica, `[n / replicas]` int32."""
        share = n // self.replicas
        return self.number * share + jnp.arange(share)

    def local_key(self, key: jax.Array) -> jax.Array:
        """A key for what this replica draws for itself."""
        return jax.random.fold_in(key, self.number)

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
