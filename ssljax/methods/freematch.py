"""FreeMatch (Wang et al., 2022), as USB, its authors' library, computes it.

https://arxiv.org/abs/2205.07246; `semilearn/algorithms/freematch` of USB.
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_non_negative, check_probability
from ssljax.methods.method import Aux, Method, no_noise


def freematch(
    *,
    unlabeled_weight: float = 1.0,
    fairness_weight: float = 0.001,
    momentum: float = 0.999,
    use_quantile: bool = False,
    clip_thresh: bool = False,
) -> Method:
    """FixMatch whose thresholds follow the model's average predictions.

    τ is the average confidence. A class's threshold is τ times its average probability, divided by
    that of the likeliest class. The averages include this step's weak views. The fairness loss is
    Σ a · log b. Here a is the average probability of each class divided by the average share of
    images predicted as this class, b is the same ratio for this step's confident strong views, and
    both are scaled to sum to 1. The loss is a negative cross-entropy, with this sign as published.

    Args:
      unlabeled_weight: weight of the unlabelled loss (λu).
      fairness_weight: weight of the fairness loss (λe; USB's default is 0.01, and its recipes have
        0.001).
      momentum: momentum of the averages, 0..1.
      use_quantile: whether τ averages the 0.8 quantile of the confidences, not their mean.
      clip_thresh: whether τ is at most 0.95 (USB's SVHN recipes).
    """
    check_non_negative(unlabeled_weight=unlabeled_weight, fairness_weight=fairness_weight)
    check_probability(momentum=momentum)

    def init(sizes):
        uniform = jnp.full(sizes.classes, 1 / sizes.classes)
        return {
            "threshold": jnp.array(1 / sizes.classes),  # τ
            "probabilities": uniform,
            "predicted": uniform,  # share of images per predicted class
        }

    def average(old, new):
        return momentum * old + (1 - momentum) * new

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, noise, progress
        passed = losses.weak_and_strong(apply, params, batch)
        x_logits, weak_logits, strong_logits, batch_stats = passed
        classes = x_logits.shape[-1]

        guess = jax.nn.softmax(weak_logits)
        confidence, predicted = jnp.max(guess, axis=-1), jnp.argmax(guess, axis=-1)
        pseudo_labels = jax.nn.one_hot(predicted, classes)
        seen = jnp.quantile(confidence, 0.8) if use_quantile else jnp.mean(confidence)
        tau = average(state["threshold"], seen)
        after = {
            "threshold": jnp.clip(tau, 0, 0.95) if clip_thresh else tau,
            "probabilities": average(state["probabilities"], jnp.mean(guess, axis=0)),
            "predicted": average(state["predicted"], jnp.mean(pseudo_labels, axis=0)),
        }
        thresholds = after["threshold"] * (after["probabilities"] / jnp.max(after["probabilities"]))
        mask = (confidence >= thresholds[predicted]).astype(jnp.float32)

        labels = jax.nn.one_hot(batch.labels, classes)
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        xeu = jnp.mean(mask * losses.cross_entropy(strong_logits, pseudo_labels))
        fairness = _fairness(strong_logits, mask, after["probabilities"], after["predicted"])
        logs = {
            "loss/xe": xe,
            "loss/xeu": xeu,
            "loss/fairness": fairness,
            "threshold": after["threshold"],
        }
        total = xe + unlabeled_weight * xeu + fairness_weight * fairness
        return total, Aux(batch_stats, after, logs, guess, mask)

    views = ("weak", "strong")
    return Method(views, init, no_noise, loss, joint=True, adjustable=True)


def _fairness(strong_logits, mask, probabilities, predicted):
    """The fairness loss `[]` of `freematch`; 0 if no image is confident.

    Args:
      strong_logits: `[M, C]`.
      mask: `[M]` float32, 1 for a confident image, else 0.
      probabilities, predicted: `[C]` averages.
    """
    classes = strong_logits.shape[-1]
    strong = jax.nn.softmax(strong_logits)
    weights = (mask / jnp.maximum(jnp.sum(mask), 1))[:, None]
    mean = jnp.sum(weights * strong, axis=0)
    shares = jnp.sum(weights * jax.nn.one_hot(jnp.argmax(strong, axis=-1), classes), axis=0)
    modulated = _normalized(mean * _inverse(shares))
    fairness = jnp.sum(
        _normalized(probabilities * _inverse(predicted)) * jnp.log(modulated + 1e-12)
    )
    return jnp.where(jnp.any(mask > 0), fairness, 0.0)


def _inverse(x):
    """1 / x, and 0 where x is 0."""
    return jnp.where(x > 0, 1 / jnp.where(x > 0, x, 1), 0)


def _normalized(x):
    """x `[C]` divided by its sum, if the sum is above 0."""
    total = jnp.sum(x)
    return x / jnp.where(total > 0, total, 1)
