"""FlexMatch (Zhang et al., 2021), as TorchSSL and USB, its authors' libraries, compute it.

https://arxiv.org/abs/2110.08263; `models/flexmatch` of TorchSSL, `algorithms/flexmatch` of USB.
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_non_negative, check_probability
from ssljax.methods.method import Aux, Method, no_noise


def flexmatch(
    *, threshold: float = 0.95, unlabeled_weight: float = 1.0, thresh_warmup: bool = True
) -> Method:
    """FixMatch whose threshold is lower for classes that have been learned less.

    The state holds the class of each unlabelled image's last confident guess. β is a class's number
    of such images, divided by the largest such number; its threshold is τ·β/(2 - β), with β of the
    previous steps. A guess is remembered if it reaches the fixed threshold τ, as published. All
    images count before the first guess is remembered. For an image that is twice in a batch, the
    last guess is remembered.

    Args:
      threshold: least probability (`>=`) of a guess that is remembered, 0..1 (τ).
      unlabeled_weight: weight of the unlabelled loss (λu).
      thresh_warmup: whether the largest number may also be that of the images without a confident
        guess, so that thresholds rise slowly at first.
    """
    check_probability(threshold=threshold)
    check_non_negative(unlabeled_weight=unlabeled_weight)

    def init(sizes):
        return {
            "chosen": jnp.full(sizes.unlabeled, -1, jnp.int32),  # of each image; -1: none yet
            "share": jnp.zeros(sizes.classes),  # β
        }

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, noise, progress
        passed = losses.weak_and_strong(apply, params, batch)
        x_logits, weak_logits, strong_logits, batch_stats = passed
        classes = x_logits.shape[-1]

        guess = jax.nn.softmax(weak_logits)
        confidence, predicted = jnp.max(guess, axis=-1), jnp.argmax(guess, axis=-1)
        share = state["share"]
        lowered = threshold * (share / (2 - share))
        mask = (confidence >= lowered[predicted]).astype(jnp.float32)
        pseudo_labels = jax.nn.one_hot(predicted, classes)

        labels = jax.nn.one_hot(batch.labels, classes)
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        xeu = jnp.mean(mask * losses.cross_entropy(strong_logits, pseudo_labels))
        logs = {"loss/xe": xe, "loss/xeu": xeu, "threshold": jnp.mean(lowered)}
        chosen = losses.write(
            state["chosen"], batch.unlabeled_index, predicted, confidence >= threshold
        )
        after = {"chosen": chosen, "share": _shares(chosen, share, thresh_warmup)}
        return xe + unlabeled_weight * xeu, Aux(batch_stats, after, logs, guess, mask)

    views = ("weak", "strong")
    return Method(views, init, no_noise, loss, joint=True, adjustable=True)


def _shares(chosen, before, thresh_warmup):
    """β `[C]`: each class's number of images, divided by the largest one.

    β does not change while all images are of one class, or none has a guess.

    Args:
      chosen: `[unlabeled]` int32, each image's class; -1: none yet.
      before: `[C]` β of the previous step.
    """
    counts = jnp.bincount(chosen + 1, length=len(before) + 1)  # the first entry counts -1
    largest = jnp.max(counts if thresh_warmup else counts[1:])
    share = counts[1:] / jnp.maximum(largest, 1)
    return jnp.where(jnp.max(counts) < len(chosen), share, before)
