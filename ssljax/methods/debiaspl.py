"""Debiased pseudo-labelling (Wang et al., 2022), as `main_DebiasPL.py` of its authors computes it.

https://arxiv.org/abs/2201.01490; frank-xwang/debiased-pseudo-labeling.
"""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_choice, check_non_negative, check_probability, check_range
from ssljax.methods.method import Aux, Method, no_noise

_CLD_TEMPERATURE = 0.07


def debiaspl(
    *,
    threshold: float = 0.8,
    tau: float = 0.4,
    momentum: float = 0.999,
    unlabeled_weight: float = 10.0,
    cld_weight: float = 0.3,
    views: int = 2,
    teacher: str = "ema",
) -> Method:
    """FixMatch whose guesses are corrected for the classes that the model predicts too often.

    q is the average prediction for weak views, and begins uniform. A guess is the softmax of the
    logits of a weak view minus τ · log q, with q of the previous steps. The loss takes the logits
    of strong views plus τ · log q, with q that includes this step. With two views of each kind,
    both strong views learn three guesses: one of the mean logits, and one of each weak view. The
    CLD loss compares predictions for strong views with the mean predictions for groups of weak
    views. A group has the images whose *least* likely class is the same, as published.

    The defaults are the values of the authors' script for 1 % of ImageNet. The defaults of their
    program are a threshold of 0.7, τ = 1, no CLD loss and one view of each kind.

    Args:
      threshold: least probability (`>=`) of a guess that counts, 0..1.
      tau: strength of the debiasing (τ), 0 or more.
      momentum: momentum of q, 0..1.
      unlabeled_weight: weight of the unlabelled loss (λu).
      cld_weight: weight of the CLD loss; 0: none.
      views: number of views of each kind, 1 or 2.
      teacher: the model that makes the guesses: `ema`, the averaged weights in evaluation mode
        (`config.ema_batch_stats` averages their statistics too, as published); or `self`, the model
        in one pass over labelled, weak and strong images.
    """
    check_probability(threshold=threshold, momentum=momentum)
    check_non_negative(tau=tau, unlabeled_weight=unlabeled_weight, cld_weight=cld_weight)
    check_range("views", views, 1, 2)
    check_choice("teacher", teacher, ("ema", "self"))

    def init(sizes):
        return jnp.full(sizes.classes, 1 / sizes.classes)

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del noise, progress
        n, m = len(batch.labeled), len(batch.views[0])
        weak, strong = (jnp.concatenate(x) for x in (batch.views[:views], batch.views[views:]))
        if teacher == "ema":
            weak_logits, _ = apply.evaluate(ema_params, weak)
            logits, batch_stats = apply(params, jnp.concatenate([batch.labeled, strong]))
        else:
            logits, batch_stats = apply(params, jnp.concatenate([batch.labeled, weak, strong]))
            weak_logits = logits[n : n + m * views]
        weak_logits = jax.lax.stop_gradient(weak_logits).reshape(views, m, -1)
        strong_logits = logits[-m * views :].reshape(views, m, -1)
        classes, x_logits = logits.shape[-1], logits[:n]

        mean_logits = jnp.mean(weak_logits, axis=0)
        q = momentum * state + (1 - momentum) * jnp.mean(jax.nn.softmax(mean_logits), axis=0)
        guessed = jnp.stack([mean_logits, *weak_logits]) if views > 1 else weak_logits
        guesses = jax.nn.softmax(guessed - tau * jnp.log(state)[None, None])
        masks = (jnp.max(guesses, axis=-1) >= threshold).astype(jnp.float32)
        pseudo_labels = jax.nn.one_hot(jnp.argmax(guesses, axis=-1), classes)
        adjusted = strong_logits + tau * jnp.log(q)[None, None]
        errors = losses.cross_entropy(adjusted[None], pseudo_labels[:, None])  # [guess, strong, M]
        labels = jax.nn.one_hot(batch.labels, classes)
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        xeu = jnp.mean(masks[:, None] * errors)
        logs = {"loss/xe": xe, "loss/xeu": xeu}
        total = xe + unlabeled_weight * xeu
        if cld_weight:
            seen = jnp.mean(strong_logits, axis=0) if views > 1 else adjusted[0]
            logs["loss/cld"] = _cld(jax.nn.softmax(seen), jax.nn.softmax(mean_logits))
            total += cld_weight * logs["loss/cld"]
        return total, Aux(batch_stats, q, logs, guesses[0], masks[0])

    return Method(
        views=("weak",) * views + ("strong",) * views,
        init=init,
        noise=no_noise,
        loss=loss,
        joint=True,
        adjustable=True,
    )


def _cld(strong, weak):
    """The CLD (cross-level discrimination) loss `[]` of predictions `[M, C]` for both views."""
    group = jax.nn.one_hot(jnp.argmin(weak, axis=-1), weak.shape[-1])
    centres = (group.T @ weak) / jnp.maximum(jnp.sum(group, axis=0), 1)[:, None]
    return jnp.mean(losses.cross_entropy(strong @ centres.T / _CLD_TEMPERATURE, group))
