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

    The class in which each unlabelled image was last guessed confidently is remembered. A class's
    share β of these, in the largest share, lowers its threshold to τ·β/(2 - β), with the shares of
    the steps before. As published, images are remembered at the fixed threshold, and before
    the first of them all images count. Of several views of an image in a batch, the last counts.

    Args:
      threshold: least probability (`>=`) of a guess that is remembered, 0..1 (τ).
      unlabeled_weight: weight of the unlabelled loss (λu).
      thresh_warmup: whether the images without a confident guess yet are a class too where the
        largest share is looked for, so that thresholds rise slowly at first.
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
    """Each class's count over the largest one, `[C]`; as before while all images are alike."""
    counts = jnp.bincount(chosen + 1, length=len(before) + 1)  # the first is of those without
    largest = jnp.max(counts if thresh_warmup else counts[1:])
    share = counts[1:] / jnp.maximum(largest, 1)
    return jnp.where(jnp.max(counts) < len(chosen), share, before)
