"""CTAugment (ReMixMatch, Berthelot et al., 2020): RandAugment that learns which levels to use.

The range of an operation's level, 0 to 1, is divided into bins, and each bin has a rate: a moving
average of how well the network still recognises *probes*, labelled images that an operation at a
level of that bin has changed. Training views draw only from bins whose rate is near the best.

An axis of size 2 in the shapes below counts an operation's levels: rescale has two, its scale and
its filter; other operations use only the first.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ssljax.augment import ops
from ssljax.augment.ctaugment_spaces import BinnedOp, SearchSpace
from ssljax.augment.layer import apply_layer
from ssljax.augment.resample import RESCALE_METHODS, rescale

Rates = jax.Array  # float32 [operations, 2, bins]; operations with fewer bins leave the rest unused


class Policy(NamedTuple):
    """The random choices for N images and L layers."""

    op: jax.Array  # [N, L] int32, index into SearchSpace.ops, -1: not applied
    level: jax.Array  # [N, L, 2] float32 in [0, 1)
    centre: jax.Array  # [N, L + 1, 2] float32, centres of Cutout as shares of H and W, in [0, 1)
    cutout: jax.Array  # [N] float32, level of the final Cutout


def bin_counts(space: SearchSpace) -> np.ndarray:
    """The number of bins of each level, `[operations, 2]` int."""
    return np.array([(*op.bins, 0, 0)[:2] for op in space.ops])


def init(space: SearchSpace) -> Rates:
    """The rates before the first update, which are all 1."""
    counts = bin_counts(space)
    return jnp.ones((*counts.shape, counts.max()))


def probabilities(rates: Rates, space: SearchSpace) -> jax.Array:
    """The probability of each bin in training views, shaped like `rates`; 0 for unused bins."""
    used = np.arange(rates.shape[-1]) < bin_counts(space)[..., None]
    weights = jnp.maximum(rates, space.epsilon) if space.epsilon else rates + (1 - space.decay)
    share = weights / jnp.max(jnp.where(used, weights, 0), axis=-1, keepdims=True, initial=1e-9)
    share = jnp.where(share < space.threshold, 0, share) + space.epsilon
    share = jnp.where(used, share, 0)
    return share / jnp.maximum(share.sum(axis=-1, keepdims=True), 1e-9)


def sample(keys: jax.Array, rates: Rates, space: SearchSpace, *, probe: bool) -> Policy:
    """Draws the policy of N images from `keys [N]`.

    Args:
      probe: whether the images are probes: levels are uniform and every operation is applied,
        without the final Cutout. Otherwise levels are drawn by their bins' rates.
    """
    n, depth = len(keys), space.depth
    size = 8 * depth + 2
    uniform = jax.vmap(lambda key: jax.random.uniform(key, (size,)))(keys)
    centre = uniform[:, 6 * depth :].reshape(n, depth + 1, 2)
    op, applied, first, second, bins = jnp.split(
        uniform[:, : 6 * depth], [depth, 2 * depth, 3 * depth, 4 * depth], axis=1
    )
    level = jnp.stack([first, second], axis=-1)
    op = jnp.floor(op * len(space.ops)).astype(jnp.int32)
    if not probe:
        level = _draw_levels(bins.reshape(n, depth, 2), level, op, rates, space)
        op = jnp.where(applied < space.probability, op, -1)
    cutout = jnp.full(n, 0.0 if probe else space.cutout)
    return Policy(op, level, centre, cutout)


def _draw_levels(bins, within, op, rates, space):
    """Draws a bin by its probability, and a level uniformly within the bin, `[N, L, 2]`.

    `bins` and `within` are uniform random numbers `[N, L, 2]` for the two draws.
    """
    share, count = probabilities(rates, space), bin_counts(space)
    if space.between:  # a segment per pair of neighbours, with the sum of their probabilities
        count = np.maximum(count - 1, 0)
        used = np.arange(share.shape[-1] - 1) < count[..., None]
        share = jnp.where(used, share[..., 1:] + share[..., :-1], 0)
    total = jnp.cumsum(share, axis=-1)[op]  # [N, L, 2, bins]
    chosen = jnp.sum(bins[..., None] * total[..., -1:] >= total, axis=-1)
    parts = jnp.asarray(count)[op]
    # Operations without bins do not read the level.
    return jnp.where(parts > 0, (chosen + within) / jnp.maximum(parts, 1), within)


def apply(images: jax.Array, policy: Policy, space: SearchSpace) -> jax.Array:
    """Applies a policy to `images [N, H, W, 1 or 3]` uint8."""
    names = [op.name for op in space.ops]

    def layer(images, drawn):
        op, level, centre = drawn
        parameter = jnp.zeros(len(images))
        for index, entry in enumerate(space.ops):
            parameter = jnp.where(op == index, entry.parameter(level[:, 0]), parameter)
        images = apply_layer(images, op, parameter, names=names, fill=space.fill)
        if "rescale" in names:
            index = names.index("rescale")
            several = len(space.ops[index].bins) == 2
            method = level[:, 1] * 5.99 if several else RESCALE_METHODS.index("bicubic")
            chosen = (op == index)[:, None, None, None]
            images = jnp.where(chosen, rescale(images, parameter, method), images)
        if "cutout" in names:
            chosen = op == names.index("cutout")
            images = _cutout(images, jnp.where(chosen, level[:, 0], 0), centre)
        return images, None

    per_layer = (policy.op, policy.level, policy.centre[:, :-1])
    images, _ = jax.lax.scan(layer, images, jax.tree.map(lambda x: x.swapaxes(0, 1), per_layer))
    return _cutout(images, policy.cutout, policy.centre[:, -1]) if space.cutout else images


def _cutout(images, level, centre):
    """Paints a square of up to half of the shorter side at level 1, and of no pixels at 0."""
    height, width = images.shape[1:3]
    size = 1 + jnp.floor(level * min(height, width) * 0.499).astype(jnp.int32)
    centre = jnp.floor(centre * jnp.array([[height, width]])).astype(jnp.int32)
    return ops.cutout(images, size // 2 * 2, centre)


def update(rates: Rates, policy: Policy, match: jax.Array, space: SearchSpace) -> Rates:
    """Learns from probes: the rate of each bin they used moves towards their match.

    Args:
      policy: the policy that was applied to the N probes.
      match: float32 `[N]`, the EMA model's probability of the true label, 0..1.
    """
    count = jnp.asarray(bin_counts(space))[policy.op]  # [N, L, 2]
    chosen = jnp.floor(policy.level * count * space.bin_share).astype(jnp.int32)
    row = 2 * policy.op[..., None] + jnp.arange(2)[None, None, :]
    touched = (count > 0) & (policy.op >= 0)[..., None]
    # Every used bin as an index into the flat rates, in the order of images, layers and levels.
    # Entries without a bin get an index out of range, and are dropped.
    index = jnp.where(touched, row * rates.shape[-1] + chosen, rates.size).reshape(-1)
    match = jnp.broadcast_to(match[:, None, None], count.shape).reshape(-1)
    flat = rates.reshape(-1)
    zeros, rest = jnp.zeros_like(flat), 1 - space.decay
    times = zeros.at[index].add(1, mode="drop")
    if space.average:
        mean = zeros.at[index].add(match, mode="drop") / jnp.maximum(times, 1)
        flat = jnp.where(times > 0, flat + rest * (mean - flat), flat)
    else:  # one after another: the k-th last update of a bin has decayed k - 1 times
        order = jnp.arange(len(index))
        later = (index[:, None] == index[None, :]) & (order[:, None] < order[None, :])
        weight = rest * space.decay ** later.sum(axis=1)
        flat = flat * space.decay**times
        flat = flat.at[index].add(weight * match, mode="drop")
    return flat.reshape(rates.shape)


def magnitude_grid(images: jax.Array, space: SearchSpace) -> dict[str, jax.Array]:
    """Each operation's name -> the single image of `images` at the middle of each level bin."""
    levels = [_middles(op) for op in space.ops]
    counts, level = [*map(len, levels)], np.concatenate(levels)
    total = len(level)
    policy = Policy(
        op=jnp.asarray(np.repeat(np.arange(len(counts)), counts)[:, None]),
        # The second level selects the bicubic filter.
        level=jnp.asarray(np.stack([level, np.full(total, 0.2)], axis=-1)[:, None], jnp.float32),
        centre=jnp.full((total, 2, 2), 0.5),
        cutout=jnp.zeros(total),
    )
    rows = jnp.split(apply(jnp.repeat(images, total, axis=0), policy, space), np.cumsum(counts))
    return {op.name: row for op, row in zip(space.ops, rows, strict=False)}


def magnitudes(space: SearchSpace) -> dict[str, list[float]]:
    """The parameter of each image of `magnitude_grid`, in Pillow's units."""
    return {op.name: [float(op.parameter(level)) for level in _middles(op)] for op in space.ops}


def _middles(op: BinnedOp) -> np.ndarray:
    """The middle of each bin of an operation's first level, 0..1."""
    count = op.bins[0] if op.bins else 1
    return (np.arange(count) + 0.5) / count
