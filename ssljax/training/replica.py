"""One of several devices that run a step together."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PyTree = Any


class Replica(NamedTuple):
    """The position of this device among several that run one step together.

    A device that computes its share of the batch in parts is one replica per part, in sequence.
    """

    axis: str | None  # the mapped axis; None: a single device
    size: int  # number of devices
    parts: int = 1  # number of parts of each device's share
    part: jax.Array | int = 0  # [] number of this part

    @property
    def replicas(self) -> int:
        """The number of replicas."""
        return self.size * self.parts

    @property
    def number(self) -> jax.Array | int:
        """The number `[]` of this replica, in the order of the batch."""
        device = jax.lax.axis_index(self.axis) if self.axis else 0
        return device * self.parts + self.part

    def rows(self, n: int) -> jax.Array:
        """The rows of a batch of `n` that belong to this replica, `[n / replicas]` int32."""
        share = n // self.replicas
        return self.number * share + jnp.arange(share)

    def local_key(self, key: jax.Array) -> jax.Array:
        """A random key of this replica only."""
        return jax.random.fold_in(key, self.number)

    def gather(self, rows: jax.Array) -> jax.Array:
        """The rows of all devices in order, which are the complete batch."""
        return jax.lax.all_gather(rows, self.axis, tiled=True) if self.axis else rows

    def mean(self, tree: PyTree) -> PyTree:
        """The mean of each leaf over the devices."""
        return jax.lax.pmean(tree, self.axis) if self.axis else tree

    def sum(self, tree: PyTree) -> PyTree:
        """The sum of each leaf over the devices."""
        return jax.lax.psum(tree, self.axis) if self.axis else tree


SINGLE = Replica(axis=None, size=1)
