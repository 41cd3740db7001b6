"""Unsupervised data augmentation (Xie et al., 2019), as `uda.py` of google-research/fixmatch.

https://arxiv.org/abs/1904.12848
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_choice, check_non_negative, check_positive, check_probability
from ssljax.methods.method import Aux, Method, no_noise, no_state

# Training signal annealing: completed fraction of the schedule, from 0 -> how far the threshold has
# risen, 0..1. `log` is at 0.99 at the end of the schedule.
_TSA = {
    "no": lambda ratio: 1.0,
    "linear": lambda ratio: ratio,
    "exp": lambda ratio: jnp.exp(5 * (ratio - 1)),
    "log": lambda ratio: 1 - jnp.exp(-5 * ratio),
}


def uda(
    *,
    threshold: float = 0.95,
    unlabeled_weight: float = 1.0,
    temperature: float = 1.0,
    entropy_weight: float = 0.0,
    tsa: str = "no",
    tsa_images: int = 1 << 22,
) -> Method:
    """Predictions for strong views learn sharpened, confident predictions for weak views.

    One forward pass over [labelled, weak, strong] gives all logits, with BatchNorm over all these
    images. Confidence is that of the prediction before it is sharpened; images below the threshold
    count as zero in a mean over all of them. Training signal annealing leaves out the labelled
    images that are already known too well; the labelled loss is the mean over the others.

    Args:
      threshold: least probability (`>=`) of the likeliest class for an image to count, 0..1 (the
        published flag `confidence`).
      unlabeled_weight: weight of the divergence (the published flag `wu`).
      temperature: divisor of the weak views' logits, above 0.
      entropy_weight: weight of the entropy on weak views (the published flag `we`).
      tsa: schedule of the greatest probability (`<=`) of its label at which a labelled image
        counts, from 1 / classes to 1: no, linear, exp or log.
      tsa_images: number of labelled images over which this probability rises (published:
        2^14 << `tsa_pos`, which is 8).
    """
    check_probability(threshold=threshold)
    check_non_negative(unlabeled_weight=unlabeled_weight, entropy_weight=entropy_weight)
    check_positive(temperature=temperature, tsa_images=tsa_images)
    check_choice("tsa", tsa, _TSA)

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, noise
        weak, strong = batch.views
        logits, batch_stats = apply(params, jnp.concatenate([batch.labeled, weak, strong]))
        n, m, classes = len(batch.labeled), len(weak), logits.shape[-1]
        x_logits, weak_logits, strong_logits = jnp.split(logits, [n, n + m])

        teacher_logits = jax.lax.stop_gradient(weak_logits)
        guess = jax.nn.softmax(teacher_logits)
        mask = (jnp.max(guess, axis=-1) >= threshold).astype(jnp.float32)
        xeu = jnp.mean(mask * losses.kl_divergence(teacher_logits / temperature, strong_logits))
        ent = jnp.mean(losses.entropy(weak_logits))

        labels = jax.nn.one_hot(batch.labels, classes)
        risen = _TSA[tsa](
            progress.images / float(tsa_images)
        )  # above 1 after the schedule: all count
        highest = risen * (1 - 1 / classes) + 1 / classes
        known = jnp.sum(labels * jax.lax.stop_gradient(jax.nn.softmax(x_logits)), axis=-1)
        counts = (known <= highest).astype(jnp.float32)
        xe = jnp.sum(counts * losses.cross_entropy(batch.adjusted(x_logits), labels))
        xe /= jnp.maximum(jnp.sum(counts), 1)

        logs = {"loss/xe": xe, "loss/xeu": xeu, "loss/entropy": ent, "mask_sup": jnp.mean(counts)}
        total = xe + unlabeled_weight * xeu + entropy_weight * ent
        return total, Aux(batch_stats, state, logs, guess, mask)

    # Joint with annealing: the mean is over the images that count, whose number differs per device.
    views = ("weak", "strong")
    return Method(
        views=views, init=no_state, noise=no_noise, loss=loss, joint=tsa != "no", adjustable=True
    )
