"""The batch of step t as a function of (key, t): epoch-exact shuffling without iterator state.

Every epoch is one permutation of the examples, and a batch may end one epoch and begin the next.
The permutation is evaluated only where the batch needs it, by a small block cipher (a Feistel
network with cycle walking), so that a step costs the same for 50 examples and for 50 million.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from ssljax.data.batches import RawBatch, TrainingData

# With a few dozen examples or more, orders are as good as random; smaller permutations have too few
# bits for all orders to be equally likely. A round costs a few integer operations per example.
_ROUNDS = 8
# Rounds of cycle walking on a GPU before the host reads whether all positions have arrived. For 448
# positions in 50,000, the first stride is enough in all but about one of a thousand steps.
_STRIDE = 8


def look_up(
    data: TrainingData,
    step: jax.Array,
    keys: Sequence[jax.Array],
    sizes: tuple[int, int],
    rows: tuple[jax.Array, jax.Array],
    image_shape: tuple[int, ...] | None = None,
) -> RawBatch:
    """Returns the rows of one step's batch that belong to this device.

    Args:
      keys: keys of the orders of labelled and of unlabelled images.
      sizes: labelled and unlabelled images per step, over all devices; 0 unlabelled: none are read.
      rows: indices of this device's labelled and unlabelled rows, int32.
      image_shape: shape of images that the data hold as rows of pixels.
    """

    def pick(places):
        images = data.images[places]
        return images.reshape(-1, *(image_shape or ())) if images.ndim == 2 else images

    chosen = _chosen(keys[0], step, len(data.labeled), sizes[0], rows[0])
    raw = RawBatch(pick(data.labeled[chosen]), data.labels[chosen], chosen)
    if not sizes[1]:
        return raw
    chosen = _chosen(keys[1], step, len(data.unlabeled), sizes[1], rows[1])
    return raw._replace(
        unlabeled=pick(data.unlabeled[chosen]),
        unlabeled_labels=data.unlabeled_labels[chosen],
        unlabeled_index=chosen,
    )


def _chosen(key, step, size, batch, rows):
    """Returns positions of some rows of a step's batch, int32."""
    return batch_positions(key, step, size=size, batch=batch)[rows].astype(jnp.int32)


def batch_positions(key: jax.Array, step: jax.Array, *, size: int, batch: int) -> jax.Array:
    """Returns positions in `0..size-1` of the examples of one step.

    Steps 0, 1, 2, … read one endless sequence in which every `size` positions (an epoch) form
    a permutation drawn from `key`.

    Args:
      key: random key of this sequence.
      step: [] integer, the number of steps before this one.
      size: number of examples, at least 1.
      batch: number of positions to return.

    Returns:
      `[batch]` uint32.
    """
    rounds, start = jnp.divmod(jnp.asarray(step, jnp.uint32), size)
    quotient, remainder = _divide_product(start, batch, size)
    offset = remainder + jnp.arange(batch, dtype=jnp.uint32)
    epoch = rounds * batch + quotient + offset // size
    return _permute(key, epoch, offset % size, size)


def _divide_product(a: jax.Array, b: int, size: int) -> tuple[jax.Array, jax.Array]:
    """Returns divmod(a · b, size) for `a < size < 2^30` without overflow, bit by bit of b."""
    quotient = remainder = jnp.zeros_like(a)
    for bit in f"{b:b}":
        remainder = 2 * remainder + int(bit) * a
        quotient = 2 * quotient + remainder // size
        remainder = remainder % size
    return quotient, remainder


def _permute(key: jax.Array, epochs: jax.Array, positions: jax.Array, size: int) -> jax.Array:
    """Returns where the permutations `epochs [N]` of `0..size-1` send `positions [N]`, uint32."""
    half_bits = max(1, ((size - 1).bit_length() + 1) // 2)
    round_keys = jax.vmap(_round_keys, in_axes=(None, 0))(key, epochs)

    def encrypt(x):
        return _encrypt(x, round_keys, half_bits)

    # The cipher permutes 0..4^half_bits-1; following it until it lands below `size` again
    # permutes 0..size-1 (cycle walking: fewer than four steps on average).
    def step(_, x):
        return jnp.where(x < size, x, encrypt(x))

    def outside(x):
        return jnp.any(x >= size)

    def walk(x):
        return jax.lax.while_loop(outside, lambda x: step(0, x), encrypt(x))

    def walk_in_strides(x):
        def stride(x):
            return jax.lax.fori_loop(0, _STRIDE, step, x, unroll=True)

        return jax.lax.while_loop(outside, stride, stride(encrypt(x)))

    return jax.lax.platform_dependent(positions, cuda=walk_in_strides, default=walk)


def _round_keys(key, epoch):
    return jax.random.bits(jax.random.fold_in(key, epoch), (_ROUNDS,), jnp.uint32)


# One function of the program, called in each step of a walk: it is traced once.
@functools.partial(jax.jit, static_argnums=2)
def _encrypt(x, round_keys, half_bits):
    """Encrypts `x [N]` with its own keys `[N, rounds]`; [N] uint32 below 4^half_bits."""
    mask = jnp.uint32((1 << half_bits) - 1)
    left, right = x >> half_bits, x & mask
    for i in range(_ROUNDS):
        left, right = right, left ^ (_hash(right ^ round_keys[:, i]) & mask)
    return (left << half_bits) | right


def _hash(x: jax.Array) -> jax.Array:
    """A 32-bit mixing function (lowbias32 of Wellons' hash-prospector)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
