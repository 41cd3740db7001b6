"""Computes a device's share of the batch in parts, so that only one part has to fit in memory."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ssljax.methods.method import Aux

PyTree = Any
# (number of the part, its batch, its noise) -> ((loss, Aux), gradients)
Gradient = Callable[..., tuple[tuple[jax.Array, Aux], PyTree]]


def accumulated(
    gradient: Gradient, arrays: tuple[PyTree, ...], parts: int, *, looped: bool
) -> tuple[tuple[jax.Array, Aux], PyTree]:
    """The combined results of `gradient(part, *arrays of the part)` over all parts of a batch.

    The loss, its logs, the statistics and the gradients are means over the parts, as they are over
    devices; the guesses are those of all images, in order. One part is one call of `gradient`.

    Args:
      arrays: trees of arrays whose first axis counts images; `parts` divides its length.
      looped: whether the parts run in a loop on the device; else the loop is unrolled, as XLA's CPU
        convolutions are some thirty times slower inside a loop.

    Raises:
      ValueError: there are several parts, and the loss returns a method state.
    """
    if parts == 1:
        return gradient(0, *arrays)
    arrays = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), arrays)

    def add(total: PyTree, numbered: PyTree) -> tuple[PyTree, PyTree]:
        part, own = numbered
        (value, aux), grads = gradient(part, *own)
        means = value, aux.logs, aux.batch_stats, grads
        return jax.tree.map(jnp.add, total, means), (aux.guess, aux.mask)

    numbered = jnp.arange(parts), arrays
    first = jax.tree.map(lambda x: x[0], numbered)
    shapes = jax.eval_shape(lambda x: gradient(x[0], *x[1]), first)
    (value, aux), grads = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    if jax.tree.leaves(aux.state):
        raise ValueError("the loss returns a state; allowed with several microbatches: none")
    total = value, aux.logs, aux.batch_stats, grads
    if looped:
        total, guesses = jax.lax.scan(add, total, numbered)
    else:
        total, guesses = _one_by_one(add, total, numbered, parts)
    value, logs, batch_stats, grads = jax.tree.map(lambda x: x / parts, total)
    guess, mask = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), guesses)
    return (value, Aux(batch_stats, aux.state, logs, guess, mask)), grads


def _one_by_one(add: Any, total: PyTree, numbered: PyTree, parts: int) -> tuple[PyTree, PyTree]:
    """`lax.scan`, unrolled; each part starts after the previous one has ended."""
    guesses = []
    for i in range(parts):
        part = jax.tree.map(lambda x, i=i: x[i], numbered)
        part, total = jax.lax.optimization_barrier((part, total))
        total, guess = add(total, part)
        guesses.append(guess)
    return total, jax.tree.map(lambda *x: jnp.stack(x), *guesses)
