"""FixMatch (Sohn et al., 2020), as `fixmatch.py` of google-research/fixmatch computes it."""

import jax
import jax.numpy as jnp

from ssljax import losses
from ssljax.checks import check_choice, check_non_negative, check_probability
from ssljax.methods.method import Aux, Method, no_noise, no_state


def fixmatch(
    *, threshold: float = 0.95, unlabeled_weight: float = 1.0, weak_pass: str = "joint"
) -> Method:
    """Confident predictions for weak views are the labels of strong views.

    One forward pass over [labelled, weak, strong] gives all logits (but see `weak_pass`), with
    BatchNorm over all these images. The pseudo-label is the most likely class of the model (not of
    its average), without gradient; images below the threshold count as zero in a mean over all.

    Args:
      threshold: least probability (`>=`) of a pseudo-label that counts, 0..1 (τ).
      unlabeled_weight: weight of the unlabelled loss (λu; the published flag `wu`).
      weak_pass: `joint`, as published; or `no_grad`, which is faster but not equivalent: weak views
        have a separate forward pass, which stores nothing for a gradient, and BatchNorm normalises
        the other images without them. (Without BatchNorm their gradient is zero anyway.)
    """
    check_probability(threshold=threshold)
    check_non_negative(unlabeled_weight=unlabeled_weight)
    check_choice("weak_pass", weak_pass, ("joint", "no_grad"))

    def loss(params, ema_params, apply, batch, noise, state, progress):
        del ema_params, noise, progress
        if weak_pass == "joint":
            passed = losses.weak_and_strong(apply, params, batch)
            x_logits, weak_logits, strong_logits, batch_stats = passed
        else:
            weak, strong = batch.views
            weak_logits, _ = apply(jax.lax.stop_gradient(params), weak)
            logits, batch_stats = apply(params, jnp.concatenate([batch.labeled, strong]))
            x_logits, strong_logits = jnp.split(logits, [len(batch.labeled)])
        classes = x_logits.shape[-1]

        guess = jax.nn.softmax(jax.lax.stop_gradient(weak_logits))
        mask = (jnp.max(guess, axis=-1) >= threshold).astype(jnp.float32)
        pseudo_labels = jax.nn.one_hot(jnp.argmax(guess, axis=-1), classes)

        labels = jax.nn.one_hot(batch.labels, classes)
        xe = jnp.mean(losses.cross_entropy(batch.adjusted(x_logits), labels))
        xeu = jnp.mean(mask * losses.cross_entropy(strong_logits, pseudo_labels))
        logs = {"loss/xe": xe, "loss/xeu": xeu}
        return xe + unlabeled_weight * xeu, Aux(batch_stats, state, logs, guess, mask)

    return Method(
        views=("weak", "strong"), init=no_state, noise=no_noise, loss=loss, adjustable=True
    )
