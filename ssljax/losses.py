"""Array functions shared by methods. Losses are per example; methods reduce them visibly."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PyTree = Any
Apply = Callable[[PyTree, Any], tuple[jax.Array, PyTree]]  # see `methods.method`


def cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy in nats of `logits [..., C]` against distributions `targets [..., C]`."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def logit_adjustment(class_counts: Sequence[int] | np.ndarray, strength: float) -> np.ndarray:
    """τ · log π, `[C]` float32: what logits are adjusted by where classes differ in frequency.

    Added to the logits in the loss, or subtracted from those of a model that was trained without
    it, it makes the errors of all classes count alike (Menon et al., 2021,
    https://arxiv.org/abs/2007.07314, equations 10 and 9).

    Args:
      class_counts: `[C]` labelled images of each class, in proportion to π.
      strength: τ.

    Raises:
      ValueError: a class has none.
    """
    counts = np.asarray(class_counts, np.float64)
    if without := int(np.sum(counts == 0)):
        raise ValueError(
            f"{without} of {len(counts)} classes have no labelled image; allowed for logit "
            "adjustment: at least one of each"
        )
    return (strength * np.log(counts / counts.sum())).astype(np.float32)


def squared_error(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Brier score over classes: mean of (softmax(logits) - targets)², `[..., C]` -> `[...]`."""
    return jnp.mean(jnp.square(jax.nn.softmax(logits) - targets), axis=-1)


def entropy(logits: jax.Array) -> jax.Array:
    """Entropy in nats of softmax(logits), `[..., C]` -> `[...]`."""
    return cross_entropy(logits, jax.nn.softmax(logits))


def kl_divergence(logits: jax.Array, other: jax.Array) -> jax.Array:
    """KL(softmax(logits) || softmax(other)) in nats, `[..., C]` -> `[...]`."""
    log_p, log_q = jax.nn.log_softmax(logits), jax.nn.log_softmax(other)
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q), axis=-1)


def sharpen(probabilities: jax.Array, temperature: float) -> jax.Array:
    """p^(1/T) / Σ p^(1/T) over the last axis; T < 1 favours the likeliest class (MixMatch, 7)."""
    powered = probabilities ** (1 / temperature)
    return powered / jnp.sum(powered, axis=-1, keepdims=True)


def draw_mixup(key: jax.Array, n: int, beta: float) -> dict[str, jax.Array]:
    """Draws `mixup` for n images: weights λ ← max(λ, 1 - λ) of Beta(β, β), and partners."""
    lam_key, permutation_key = jax.random.split(key)
    lam = jax.random.beta(lam_key, beta, beta, (n,))
    return {
        "lam": jnp.maximum(lam, 1 - lam),
        "permutation": jax.random.permutation(permutation_key, n),
    }


def mixup(values: jax.Array, lam: jax.Array, permutation: jax.Array) -> jax.Array:
    """λ · values + (1 - λ) · permuted values, row by row (MixUp, eq. 1).

    Args:
      values: `[N, ...]` images or label distributions.
      lam: `[N]` in 0..1, the share of a row that stays.
      permutation: `[N]` integers, each row's partner.
    """
    lam = lam.reshape(lam.shape + (1,) * (values.ndim - 1))
    return lam * values + (1 - lam) * values[permutation]


@dataclasses.dataclass(frozen=True)
class Mixed:
    """Images that are to be mixed as `mixup` does, `[n, ...]`: a device can mix its rows alone."""

    images: jax.Array  # [N, ...]
    lam: jax.Array  # [n] in 0..1, the share of a row's own image
    own: jax.Array  # [n] integers, where it is in images
    partner: jax.Array  # [n] integers, where the image is that it is mixed with

    def __len__(self) -> int:
        return len(self.lam)

    def __getitem__(self, rows: Any) -> "Mixed":
        return Mixed(self.images, self.lam[rows], self.own[rows], self.partner[rows])

    def value(self) -> jax.Array:
        """The mixed images."""
        lam = self.lam.reshape(-1, *[1] * (self.images.ndim - 1))
        own, partner = take_rows(self.images, self.own), take_rows(self.images, self.partner)
        return lam * own + (1 - lam) * partner


def take_rows(images: jax.Array, rows: jax.Array) -> jax.Array:
    """Returns `images[rows]`, `[n, ...]`, of images `[N, ...]` and rows `[n]` integers.

    The rows are taken flat: a TPU would first copy images of three axes into another layout.
    """
    return images.reshape(len(images), -1)[rows].reshape(-1, *images.shape[1:])


def mixed(images: jax.Array, lam: jax.Array, permutation: jax.Array) -> Mixed:
    """`mixup(images, lam, permutation)`, not yet computed: a device can mix its rows alone."""
    return Mixed(images, lam, jnp.arange(len(images)), permutation)


def interleave(parts: Sequence[jax.Array]) -> list[jax.Array]:
    """Mixes n equally long arrays `[B, ...]`: slice i of part 0 changes places with that of part i.

    Part 0 then holds about B/n rows of every part, and each other part B/n rows of part 0 among
    its own. Doing it twice restores them (`libml/layers.py` of google-research/mixmatch).
    """
    n, batch = len(parts), parts[0].shape[0]
    # Slices as equal as can be, the longer ones last.
    lengths = [(batch + i) // n for i in range(n)]
    starts = [sum(lengths[:i]) for i in range(n)]
    slices = [[p[a : a + k] for a, k in zip(starts, lengths, strict=True)] for p in parts]
    for i in range(1, n):
        slices[0][i], slices[i][i] = slices[i][i], slices[0][i]
    return [jnp.concatenate(s) for s in slices]


def apply_interleaved(
    apply: Apply,
    params: PyTree,
    images: jax.Array | Mixed,
    n: int,
) -> tuple[jax.Array, list[PyTree]]:
    """Passes n equally long parts of a batch through the network as n interleaved sub-batches.

    Each sub-batch is normalised on its own, and holds a share of part 0, the labelled images.

    Args:
      images: `[n · B, H, W, C]`, part after part; `Mixed`, so that a device mixes its rows alone.

    Returns:
      Logits `[n · B, C]` in the order of images, and the statistics after each sub-batch.
    """
    rows = interleave(jnp.split(jnp.arange(len(images)), n))
    outputs = [apply(params, images[sub_batch]) for sub_batch in rows]
    logits = interleave([logits for logits, _ in outputs])
    return jnp.concatenate(logits), [batch_stats for _, batch_stats in outputs]


def weak_and_strong(
    apply: Apply, params: PyTree, batch: Any
) -> tuple[jax.Array, jax.Array, jax.Array, PyTree]:
    """One pass over [labelled, weak, strong], with BatchNorm over all of it, as in FixMatch.

    Args:
      batch: `methods.method.Batch` with a weak and a strong view.

    Returns:
      Logits of labelled images `[B, C]`, of weak views `[M, C]` without gradient and of strong
      views `[M, C]`; new batch statistics.
    """
    weak, strong = batch.views
    n, m = len(batch.labeled), len(weak)
    logits, batch_stats = apply(params, jnp.concatenate([batch.labeled, weak, strong]))
    x_logits, weak_logits, strong_logits = jnp.split(logits, [n, n + m])
    return x_logits, jax.lax.stop_gradient(weak_logits), strong_logits, batch_stats


def align(guesses: jax.Array, target: jax.Array, model: jax.Array) -> jax.Array:
    """Guesses `[M, C]` times target / model, both `[C]`, normalised (ReMixMatch, 3.1; 10⁻⁶ is added
    to both, as in AdaMatch, CReST and USB)."""
    aligned = guesses * ((target + 1e-6) / (model + 1e-6))[None]
    return aligned / jnp.sum(aligned, axis=-1, keepdims=True)


def push(queue: jax.Array, rows: jax.Array) -> jax.Array:
    """A queue `[N, D]` after rows `[n, D]` have entered at its end and the oldest n have left."""
    return jnp.concatenate([queue, rows])[len(rows) :]


def balance(guesses: jax.Array, queue: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Guesses `[M, C]` divided by the mean guess of the last steps, normalised (CoMatch, SimMatch).

    Args:
      queue: `[steps, C]` mean guesses of the steps before; rows of zeros at first.

    Returns:
      The guesses, and the queue with this step's mean guess.
    """
    queue = push(queue, jnp.mean(guesses, axis=0)[None])
    balanced = guesses / jnp.mean(queue, axis=0)[None]
    return balanced / jnp.sum(balanced, axis=-1, keepdims=True), queue


def write(
    table: jax.Array, index: jax.Array, rows: jax.Array, counts: jax.Array | None = None
) -> jax.Array:
    """A table `[N, …]` with rows `[n, …]` written at `index [n]`.

    Of several rows for one place, the last is written.

    Args:
      counts: `[n]` bool, which rows are written; None: all are.
    """
    order = jnp.arange(len(index))
    index = index if counts is None else jnp.where(counts, index, len(table))  # outside: dropped
    last = jnp.full(len(table), -1).at[index].max(order, mode="drop")
    wins = last.at[index].get(mode="fill", fill_value=-1) == order
    return table.at[jnp.where(wins, index, len(table))].set(rows, mode="drop")
