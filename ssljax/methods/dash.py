"""Dash (Xu et al., 2021), as `dash.py` and `libml/train.py` of idstcv/Dash compute it.

http://proceedings.mlr.press/v139/xu21e.html
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_non_negative, check_positive, check_range
from ssljax.methods.method import Aux, Method, no_noise

_FIRST = 500.0  # the threshold of the first epochs, so high that all images count
_SCALE = 0.9  # factor of the published loss; no publication explains it


def dash(
    *,
    gamma: float = 1.27,
    temperature: float = 0.5,
    start_epoch: int = 10,
    drop_epochs: int = 9,
    min_threshold: float = 0.05,
    unlabeled_weight: float = 1.0,
    epoch_images: int = 1 << 16,
) -> Method:
    """FixMatch that selects images whose guess has a loss below a falling threshold.

    All images count in the first epochs. ρ is the mean of the last unlabelled losses before
    `start_epoch`, as many as there are unlabelled images without a label. The threshold begins at ρ
    and is divided by γ every few epochs. An image counts if the cross-entropy of its weak view
    with the likeliest class is below the threshold (`<`). The unlabelled loss is 0.9 times the mean
    over the images that count, not over all images. Strong views learn sharpened guesses until the
    threshold has reached its least value, and the likeliest class from then on.

    Args:
      gamma: divisor of the threshold (γ), above 0. (The defaults are those of `start_train.sh`.
        `dash.py` itself has 1.004 for gamma, and 1 for the next three arguments.)
      temperature: temperature of the sharpening (T), above 0.
      start_epoch: first epoch, counted from 0, in which images are selected.
      drop_epochs: number of epochs between two reductions of the threshold.
      min_threshold: least threshold, in nats.
      unlabeled_weight: weight of the unlabelled loss (λu; the published flag `wu`).
      epoch_images: number of labelled images per epoch.
    """
    check_positive(
        gamma=gamma, temperature=temperature, drop_epochs=drop_epochs, epoch_images=epoch_images
    )
    check_range("start_epoch", start_epoch, 1)
    check_non_negative(min_threshold=min_threshold, unlabeled_weight=unlabeled_weight)

    def init(sizes):
        without_label = max(1, sizes.unlabeled - sizes.labeled)
        # The sum and the number of the losses whose mean is ρ, and how many losses ρ averages.
        return {"sum": jnp.zeros(()), "count": jnp.zeros(()), "last": jnp.int32(without_label)}

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, noise
        passed = losses.weak_and_strong(apply, params, batch)
        x_logits, weak_logits, strong_logits, batch_stats = passed
        n, classes = x_logits.shape

        epoch = _epoch(progress.step, n, epoch_images)
        falls = ((epoch - 1) // drop_epochs).astype(jnp.float32)
        falling = state["sum"] / jnp.maximum(state["count"], 1) * gamma**-falls
        threshold = jnp.where(epoch < start_epoch, _FIRST, falling)

        guess = jax.nn.softmax(weak_logits / temperature)
        hard = jax.nn.one_hot(jnp.argmax(weak_logits, axis=-1), classes)
        error = losses.cross_entropy(weak_logits, hard)
        mask = (error < jnp.maximum(threshold, min_threshold)).astype(jnp.float32)
        soft_error = losses.cross_entropy(strong_logits, guess)
        hard_error = losses.cross_entropy(strong_logits, hard)
        errors = jnp.where(threshold > min_threshold, soft_error, hard_error)
        labels = jax.nn.one_hot(batch.labels, classes)
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        xeu = _SCALE * jnp.sum(mask * errors) / jnp.maximum(jnp.sum(mask), 1)

        # How many losses follow each of these before the start. Only the last losses enter ρ.
        m, last = len(soft_error), state["last"]
        steps_left = -(-start_epoch * epoch_images // n) - 1 - progress.step
        later = jnp.arange(m)[::-1] + m * jnp.clip(steps_left, 0, last)
        noted = (later < last) & (epoch == start_epoch - 1)
        after = {
            "sum": state["sum"] + jnp.sum(noted * jax.lax.stop_gradient(soft_error)),
            "count": state["count"] + jnp.sum(noted),
            "last": last,
        }
        logs = {"loss/xe": xe, "loss/xeu": xeu, "threshold": threshold}
        return xe + unlabeled_weight * xeu, Aux(batch_stats, after, logs, guess, mask)

    views = ("weak", "strong")
    return Method(views, init, no_noise, loss, joint=True, adjustable=True)


def _epoch(step, batch_size, epoch_images):
    """step · batch_size // epoch_images, `[]` int32, even where the product overflows int32."""
    whole, rest = jnp.divmod(step, epoch_images)
    return whole * batch_size + rest * batch_size // epoch_images
